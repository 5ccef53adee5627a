"""Writing files and folders so that a final path holds a complete one or none.

What is being written lies in a hidden folder beside its target, `.NAME.XXXXXXXX.part`, locked for as long as its
writer lives; when it is complete and on the disk, it is moved to its place. A killed process leaves the folder there,
no longer locked; whoever writes the same target next takes it away.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from paddle2torch.converter.support.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked: nothing is swept away there
    fcntl = None  # type: ignore[assignment]

_PART = ".part"
_NEW, _OLD = "new", "old"

Content = bytes | memoryview | Callable[[Path], object]


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """An empty folder in which to make what is then moved to `path`; it is gone after the block, and all in it.

    Raises:
        OutputError: the folder above cannot be made or written to.
    """
    with ExitStack() as stack:
        with _writing(path):
            stack.callback(_remove_empty, [folder for folder in path.parents if not folder.exists()])
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path)
            part = stack.enter_context(_locked_part(path))
            # Made with the user's own file mode, which mkdtemp does not follow.
            (part / _NEW).mkdir()
        yield part / _NEW


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content appears at `path`, all at once, when the block ends well; otherwise nothing changes.

    Raises:
        OutputError: the folder cannot be made, is not writable, or the disk is full.
    """
    with staging(path) as folder, _writing(path):
        with (folder / path.name).open("wb") as file:
            yield file
        _finish(folder / path.name)
        (folder / path.name).replace(path)


def write_together(contents: Mapping[Path, Content]) -> None:
    """Write files that belong together: all are on the disk before the first appears at its path, in the order given.

    Two processes that write into one folder at the same time move their files there one after the other, so that files
    of one name in it are all of one writer.

    Args:
        contents: path → its bytes, or a function that writes them to the path that it is given. All paths are in one
            folder.

    Raises:
        OutputError: see `atomic_write`; none of the files has changed then.
    """
    first = next(iter(contents))
    with staging(first) as folder:
        for path, content in contents.items():
            with _writing(path):
                if callable(content):
                    content(folder / path.name)
                else:
                    (folder / path.name).write_bytes(content)
                _finish(folder / path.name)
        with ExitStack() as stack:
            with suppress(OSError):  # there are file systems without locks
                stack.enter_context(_locked(first.parent))
            for path in contents:
                with _writing(path):
                    (folder / path.name).replace(path)


def replace_folder(made: Path, path: Path) -> None:
    """Put a folder made in `staging` at `path`, in place of one that is there.

    Raises:
        OutputError: it cannot be moved; what was at `path` is there still.
    """
    old = made.with_name(_OLD)
    with _writing(path):
        if path.exists():
            path.rename(old)
        try:
            made.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise


def remove_folder(path: Path) -> None:
    """Remove a folder at one stroke, as far as others can see.

    Raises:
        OutputError: it cannot be moved.
    """
    with staging(path) as part, _writing(path):
        path.rename(part.with_name(_OLD))


def sweep(*paths: Path) -> None:
    """Remove what killed processes left of attempts to write these; what a living one is writing stays."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items() if fcntl is not None else ():
        for part in folder.glob(f".*.????????{_PART}"):
            if _target(part) in wanted:
                with suppress(OSError), _locked(part, wait=False):  # an OSError while its writer lives
                    shutil.rmtree(part, ignore_errors=True)


def _target(part: Path) -> str:
    """The name of what is written in such a folder."""
    return part.name.removesuffix(_PART)[1:].rpartition(".")[0]


@contextmanager
def _locked_part(path: Path) -> Iterator[Path]:
    """A new hidden folder beside `path`, locked, and gone after the block."""
    with ExitStack() as stack:
        while True:
            part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART))
            stack.callback(shutil.rmtree, part, ignore_errors=True)
            with suppress(OSError):  # there are file systems without locks, where nothing is swept away
                stack.enter_context(_locked(part))
            if part.exists():
                break
            # Another process took it for a leftover before it was locked.
        yield part


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process at the latest.

    Raises:
        OSError: there is no such folder, it cannot be locked, or another process has it that is not to be waited for.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _finish(file: Path) -> None:
    """Have a file reach the disk, as readable as any other file of the user's, whoever has made it."""
    file.chmod(file.parent.stat().st_mode & 0o666)
    with file.open("r+b") as written:
        os.fsync(written.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the system raises over a target, as the error for people."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); nothing was left behind; "
            "make room there, or choose another place"
        ) from error


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
