"""Small files that the user gives by name: a dictionary, a configuration."""

from __future__ import annotations

import stat
from pathlib import Path

from paddle2torch.converter.support.errors import SourceError

LARGEST = 64 << 20  # bytes; the largest dictionary has 100 KB


def read_given(path: Path, what: str) -> bytes:
    """The content of a file that the user named.

    Args:
        path: of the file.
        what: it is to be, for messages.

    Raises:
        SourceError: there is none, it is no file but a folder, pipe or device, which may never end, or it is much too
            large.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise SourceError(f"{path}: the {what} is to be a file, and this is a folder, pipe or device")
        if about.st_size > LARGEST:
            raise SourceError(f"{path}: is too large for a {what} ({about.st_size:,} bytes); check the path")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path}: the {what} cannot be read ({reason}); check the path") from error
