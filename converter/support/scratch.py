"""Folders for as long as something runs; what a killed process leaves of them, the next one takes away.

They lie in the system's folder for temporary files, `paddle2torch-XXXXXXXX.scratch`, each locked for as long as its
owner lives.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked: nothing is swept away there
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = "paddle2torch-", ".scratch"


class Scratch(tempfile.TemporaryDirectory[str]):
    """An empty folder that nobody else looks into; a context manager, see `tempfile.TemporaryDirectory`.

    It is locked for as long as its owner lives, so what locks the folder that it writes to (`files.write_together`)
    needs a folder inside.
    """

    def __init__(self) -> None:
        _sweep()
        self._lock: int | None = None
        while True:
            super().__init__(prefix=PREFIX, suffix=SUFFIX)
            if fcntl is None:
                break
            with suppress(OSError):  # swept before it was locked, or on a file system without locks
                self._lock = os.open(self.name, os.O_RDONLY)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            if Path(self.name).is_dir():
                break
            self.cleanup()

    def cleanup(self) -> None:
        """Remove the folder and all that is in it."""
        super().cleanup()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _sweep() -> None:
    """Remove this user's folders whose owners are gone."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}????????{SUFFIX}"):
        with suppress(OSError):  # its owner lives, or another process removes it
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.getuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
