"""What all formats of tensors share: which element types there are, and views of raw bytes as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Names as NumPy and Paddle have them; bfloat16 is stored as uint16 wherever NumPy is involved.
ELEMENT_TYPES: dict[str, np.dtype] = {
    "bool": np.dtype("?"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}

# NumPy 1 stops at 32 dimensions, and no machine has more memory than this; weights have at most five dimensions.
_MAX_DIMENSIONS = 32
_MAX_ELEMENTS = 2**48


def is_possible(shape: Sequence[int]) -> bool:
    """Whether an array can have these sizes; NumPy's limits hold even where one of them is 0."""
    return (
        len(shape) <= _MAX_DIMENSIONS
        and all(size >= 0 for size in shape)
        and prod(size or 1 for size in shape) <= _MAX_ELEMENTS
    )


def byte_count(shape: Sequence[int], dtype: np.dtype) -> int:
    """How many bytes an array of this shape takes; exact, whatever the numbers."""
    return prod(shape) * dtype.itemsize


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 numbers given by their bits (uint16); exact, any shape."""
    return (bits.astype("<u4") << 16).view("<f4")


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays as PyTorch's tensors in C order, floating-point values as float32.

    An array that is so already, is read-only and has memory of its own is taken over: nobody can write to it but
    through the tensor. All others are copied; no two tensors share memory.
    """
    import torch

    tensors, taken = {}, set()
    for name, array in arrays.items():
        dtype = np.dtype(np.float32 if array.dtype.kind == "f" else array.dtype)
        fits = array.dtype == dtype and array.flags.c_contiguous
        if fits and array.flags.owndata and not array.flags.writeable and id(array) not in taken:
            taken.add(id(array))
            array.flags.writeable = True  # for a moment, or PyTorch warns
            tensors[name] = torch.from_numpy(array)
            array.flags.writeable = False
        else:
            tensors[name] = torch.from_numpy(np.array(array, dtype, order="C"))
    return tensors


def little_endian(array: np.ndarray) -> np.ndarray:
    """The same values in C order and little-endian, as files have them; copied only where needed."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
