"""Writing files so that a final path holds a complete file or none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from converter.errors import OutputError


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
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a result is as readable as any other file of the user's.
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); nothing was left behind") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
