"""Writing files so that a final path holds a complete file or none.

A file that is being written lies beside its target as `.NAME.XXXXXXXX.part`, locked for as long as its writer lives. A
killed process leaves it there, no longer locked; whoever writes the same target next takes it away.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from paddle2torch.converter.support.errors import OutputError
from paddle2torch.converter.support.interrupts import held_back

try:
    import fcntl
except ImportError:  # Windows, which lets nobody remove a file that is open, nor its writer move it
    fcntl = None  # type: ignore[assignment]

_PART = ".part"
# Files that are written at a time.
WRITERS = 3
# Bytes; larger than usual, for after each piece a writer has to wait for the others.
_BUFFER = 1 << 17

Content = bytes | memoryview | Callable[[BinaryIO], object]


def _umask() -> int:
    """The process's file mode mask; asking for it means setting it."""
    current = os.umask(0o077)
    os.umask(current)
    return current


# Asked for once, at import: later, other threads may be making files.
UMASK = _umask()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content appears at `path`, all at once, when the block ends well; otherwise nothing changes.

    Raises:
        OutputError: the folder cannot be made, is not writable, or the disk is full.
    """
    with _atomic_write(path) as file:
        yield file
        _sync(file)


@contextmanager
def _atomic_write(path: Path) -> Iterator[BinaryIO]:
    """The same for those who see themselves to it that the content reaches the disk."""
    made: list[Path] = []
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        with _part_of(path) as file:
            yield cast(BinaryIO, file)
            # mkstemp makes private files; a result is as readable as any other file of the user's.
            Path(file.name).chmod(0o666 & ~UMASK)
            if fcntl is None:
                file.close()
            Path(file.name).replace(path)
        made = []
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _unwritten(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); nothing was left behind; "
        "make room there, or choose another place"
    )


def write_together(contents: Mapping[Path, Content]) -> None:
    """Write files that belong together: all are on the disk before the first appears at its path, in the order given.

    Args:
        contents: path → its bytes, or a function that writes them to a stream, called in a thread of its own.

    Raises:
        OutputError: see `atomic_write`; none of the files has changed then.
    """
    written: dict[Path, Future[None]] = {}
    # At the same time: what makes the content of one file leaves time for another's way to the disk.
    writers = ThreadPoolExecutor(WRITERS)
    try:
        with ExitStack() as moving, ExitStack() as stack:
            # What is entered last is moved first.
            for path, content in reversed(contents.items()):
                written[path] = writers.submit(_fill, stack.enter_context(_atomic_write(path)), content)
            for path, done in written.items():
                try:
                    done.result()
                except OSError as error:
                    raise _unwritten(path, error) from error
            # Others who write the same files wait, so that all are of one writer at the end.
            for folder in sorted({path.parent.resolve() for path in contents}):
                moving.enter_context(_alone_in(folder))
    finally:
        # After an error or an interrupt the files are closed by now, and whoever still writes soon ends.
        with held_back():
            writers.shutdown()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process at the latest."""
    if fcntl is None:  # Windows, where a folder cannot be locked
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # there are file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(path: Path) -> None:
    """Remove what killed processes left of attempts to write `path`; what a living one is writing stays."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.????????{_PART}"):
        with suppress(OSError), stale.open("r+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError while its writer lives
            stale.unlink()


@contextmanager
def _part_of(path: Path) -> Iterator[IO[bytes]]:
    """A new file beside `path`, locked, and gone after the block unless it was moved."""
    file = _locked_part(path)
    try:
        with file:
            yield file
    finally:
        with suppress(OSError):
            Path(file.name).unlink()


def _locked_part(path: Path) -> IO[bytes]:
    while True:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            buffering=_BUFFER, dir=path.parent, prefix=f".{path.name}.", suffix=_PART, delete=False
        )
        if fcntl is not None:
            with suppress(OSError):  # there are file systems without locks, where nothing is swept away
                fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process took it for a leftover before it was locked


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content)
    _sync(file)


def _sync(file: IO[bytes] | BinaryIO) -> None:
    """Have what was written reach the disk."""
    file.flush()
    os.fsync(file.fileno())
