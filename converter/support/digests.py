"""The sha256 of files; also of the file that is needed next, while there is something else to do."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple


class _Begun(NamedTuple):
    """A hash that is being computed, and what the file was like before."""

    state: tuple[int, ...]
    sha256: Future[str]


_begun: dict[Path, _Begun] = {}


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in lower-case hex; waited for where `hash_ahead` has begun with it.

    Raises:
        OSError: the file cannot be read.
    """
    begun = _begun.pop(path, None)
    if begun is not None and begun.state == _state(path):
        return begun.sha256.result()
    return _computed(path)


def hash_ahead(path: Path) -> None:
    """Begin to hash a file in a thread of its own, for the next `sha256_of` of the same path.

    Raises:
        OSError: there is no such file.
    """
    state = _state(path)
    if path in _begun and _begun[path].state == state:
        return
    begun = _begun[path] = _Begun(state, Future())

    def compute() -> None:
        try:
            begun.sha256.set_result(_computed(path))
        except Exception as error:  # it is raised where the hash is asked for
            begun.sha256.set_exception(error)

    # Nobody waits for it where the program ends before.
    threading.Thread(target=compute, daemon=True).start()


def _state(path: Path) -> tuple[int, ...]:
    """What differs if the file is replaced or written to."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _computed(path: Path) -> str:
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
