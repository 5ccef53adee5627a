"""Making folders so that a final path holds a complete folder or none.

A folder that is being made lies beside its target as `.NAME.XXXXXXXX.part`, locked for as long as its maker lives. A
killed process leaves it there, no longer locked; whoever makes the same target next takes it away.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from paddle2torch.converter.support.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked: nothing is swept away there
    fcntl = None  # type: ignore[assignment]

_PART = ".part"
_NEW, _OLD = "new", "old"


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """An empty folder in which to make what `replace_folder` then puts at `path`; it is gone after the block.

    Raises:
        OutputError: the folder above cannot be made or written to.
    """
    with ExitStack() as stack:
        with _writing(path):
            made = [folder for folder in path.parents if not folder.exists()]
            stack.callback(_remove_empty, made)
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART))
            stack.callback(shutil.rmtree, part, ignore_errors=True)
            stack.enter_context(_locked(part))
            # Made with the user's own file mode, which mkdtemp does not heed.
            (part / _NEW).mkdir()
        yield part / _NEW


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


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); nothing was changed; "
            "make room there, or choose another place"
        ) from error


def _sweep(path: Path) -> None:
    """Remove what killed processes left of attempts to make `path`; what a living one is making stays."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.????????{_PART}"):
        if fcntl is not None and part.is_dir():
            with suppress(OSError), _locked(part, wait=False):  # an OSError while its maker lives
                shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process at the latest."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
