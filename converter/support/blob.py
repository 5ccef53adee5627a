"""Bytes that know the name a message should call them by."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle2torch.converter.support.errors import SourceError

# Bytes of a mapped file that are copied before their memory is let go.
MOST_MAPPED = 1 << 20
# What PyTorch's own tensors have, for the processor's widest instructions.
ALIGNMENT = 64


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


def copy_out(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of arrays that are views of mapped files: in C order, floating-point numbers as float32.

    The files' memory is let go meanwhile, all would be there twice otherwise. The copies share one piece of memory, for
    which the system has large pages: touching small ones for the first time takes longer than copying.
    """
    kinds = {name: np.dtype(np.float32 if array.dtype.kind == "f" else array.dtype) for name, array in arrays.items()}
    sizes = {name: array.size * kinds[name].itemsize for name, array in arrays.items()}
    memory = np.empty(sum(map(_aligned, sizes.values())) + ALIGNMENT, np.uint8)
    start, read, copies = -memory.ctypes.data % ALIGNMENT, 0, {}
    for name, array in arrays.items():
        copies[name] = memory[start : start + sizes[name]].view(kinds[name]).reshape(array.shape)
        start += _aligned(sizes[name])
        for target, source in _pieces(copies[name], array):
            target[...] = source
            read += source.nbytes
            if read > MOST_MAPPED:
                release(array)
                read = 0
    return copies


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _pieces(target: np.ndarray, source: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Both in pieces of the same places, one after another in the source's memory."""
    if source.nbytes <= MOST_MAPPED:
        yield target, source
        return
    axis = int(np.argmax(source.strides))
    targets, sources = np.moveaxis(target, axis, 0), np.moveaxis(source, axis, 0)
    step = max(1, MOST_MAPPED // sources[0].nbytes)
    for start in range(0, len(sources), step):
        yield targets[start : start + step], sources[start : start + step]


def release(array: np.ndarray) -> None:
    """Let go of the memory of the mapped file that an array is a view of; it is read again where it is needed again."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # where the system has it
        owner.madvise(mmap.MADV_DONTNEED)
