"""Bytes that know the name a message should call them by."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from converter.errors import SourceError


@dataclass(frozen=True)
class Blob:
    """A file's bytes, wherever they lie: on disk or inside an archive.

    Attributes:
        name: what to call it in messages, for example `x_infer.tar:x_infer/inference.pdmodel`.
        data: the bytes; a read-only view, usually of a memory map, so nothing is read before it is used.
    """

    name: str
    data: memoryview

    @classmethod
    def open(cls, path: Path) -> Blob:
        """Map a file into memory.

        Raises:
            SourceError: the file cannot be read.
        """
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, 2)
                # An empty file cannot be mapped.
                data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")
        except OSError as error:
            raise SourceError(
                f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
            ) from error
        return cls(str(path), data)
