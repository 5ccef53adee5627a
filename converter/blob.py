"""Bytes that know the name a message should call them by."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.errors import SourceError

# Bytes of a mapped file that are copied before their memory is let go.
MOST_MAPPED = 1 << 20


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


class Copier:
    """Copies arrays out of mapped files, whose memory is let go meanwhile: all would be there twice otherwise."""

    def __init__(self) -> None:
        self._read = 0

    def __call__(self, array: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
        """The array as one of this type, in C order and with memory of its own."""
        if array.nbytes <= MOST_MAPPED:
            copied = np.array(array, dtype=dtype, order="C")
            self._count(array, array.nbytes)
            return copied
        copied = np.empty(array.shape, dtype)
        # Along the axis along which the file goes.
        axis = int(np.argmax(array.strides))
        parts, sources = np.moveaxis(copied, axis, 0), np.moveaxis(array, axis, 0)
        step = max(1, MOST_MAPPED // sources[0].nbytes)
        for start in range(0, len(sources), step):
            parts[start : start + step] = sources[start : start + step]
            self._count(array, sources[start : start + step].nbytes)
        return copied

    def _count(self, array: np.ndarray, read: int) -> None:
        self._read += read
        if self._read > MOST_MAPPED:
            release(array)
            self._read = 0


def release(array: np.ndarray) -> None:
    """Let go of the memory of the mapped file that an array is a view of; it is read again where it is needed again."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # where the system has it
        owner.madvise(mmap.MADV_DONTNEED)
