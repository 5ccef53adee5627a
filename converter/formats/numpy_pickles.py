"""NumPy's arrays, dtypes and scalars in pickles, rebuilt from checked numbers without NumPy's own unpickling.

`ARRAYS` is the table of names for `read_pickle`. Wherever the pickle has an array or a scalar, the result has a
`PickledArray`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeGuard

import numpy as np

from paddle2torch.converter.formats.restricted import (
    PLAIN,
    Buildable,
    Constructor,
    Global,
    Refused,
    bytes_of,
    kind_of,
    text_of,
)
from paddle2torch.converter.formats.tensors import byte_count, is_possible

_ELEMENTS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_BYTE_ORDERS = ("<", ">", "|", "=")


class _ElementType(Buildable):
    """`numpy.dtype('f4', False, True)`, followed by a state that has the byte order."""

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        text = text_of(code)
        self.order = "<"
        if text[:1] in _BYTE_ORDERS:
            self.order, text = text[0], text[1:]
        if text not in _ELEMENTS:
            raise Refused(f"an array of element type {text!r} is no tensor")
        self.code = text

    def set_state(self, state: tuple) -> None:
        """Take (version, byte order, subarray, names, fields, item size, alignment, flags)."""
        if state[2:5] != (None, None, None) or state[5:] != (-1, -1, 0):
            raise Refused("an element type has fields, metadata or flags, as no tensor's has")
        self.order = text_of(state[1])
        if self.order not in _BYTE_ORDERS:
            raise Refused(f"there is no byte order {self.order!r}")

    @property
    def dtype(self) -> np.dtype:
        """The dtype; "native" is taken as little-endian, as on every machine that Paddle runs on."""
        return np.dtype((">" if self.order == ">" else "<") + self.code)


class PickledArray(Buildable):
    """An array or a NumPy scalar of a pickle.

    Attributes:
        array: a view of the file's bytes where they are stored as bytes; None before the state has come.
    """

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def set_state(self, state: tuple) -> None:
        """Take (version, shape, dtype, whether in Fortran order, data)."""
        if len(state) != 5:
            raise Refused("an array's state is not NumPy's")
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran is True or fortran == 1 else "C")


def _array(data: object, dtype: object, shape: object, order: Literal["C", "F"]) -> np.ndarray:
    """A view of the bytes as an array, when they are exactly as many as shape and dtype ask for."""
    if not isinstance(dtype, _ElementType):
        raise Refused(f"an array's element type is {kind_of(dtype)}")
    if not _are_integers(shape) or not is_possible(shape):
        raise Refused("an array's shape is not a tuple of sizes, or is impossibly large")
    element, content = dtype.dtype, bytes_of(data)
    if byte_count(shape, element) != len(content):
        raise Refused(f"an array of shape {shape} and type {element} cannot have {len(content)} bytes")
    return np.frombuffer(content, element).reshape(shape, order=order)


def _are_integers(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(type(value) is int for value in values)


def _reconstruct(subtype: object, shape: object, code: object) -> PickledArray:
    """`_reconstruct(ndarray, (0,), b'b')`: an array whose state follows."""
    if not isinstance(subtype, Global) or subtype.name != "numpy.ndarray" or shape != (0,):
        raise Refused("an array is not started as NumPy starts one")
    return PickledArray()


def _from_buffer(data: object, dtype: object, shape: object, order: object, axes: object = None) -> PickledArray:
    """`_frombuffer(data, dtype, shape, order)` of protocol 5; with order "K", the axes are moved afterwards."""
    if axes is None:
        if order not in ("C", "F"):
            raise Refused("an array's order is neither C nor F")
        return PickledArray(_array(data, dtype, shape, "F" if order == "F" else "C"))
    array = _array(data, dtype, shape, "C")
    if order != "K" or not _are_integers(axes) or sorted(axes) != list(range(array.ndim)):
        raise Refused("an array's axes do not fit its shape")
    return PickledArray(array.transpose(axes))


def _scalar(dtype: object, data: object) -> PickledArray:
    return PickledArray(_array(data, dtype, (), "C"))


_CORE: Mapping[str, Constructor] = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}
# NumPy 2 moved `numpy.core` to `numpy._core`.
ARRAYS: Mapping[str, Constructor | None] = {
    **PLAIN,
    "numpy.ndarray": None,
    "numpy.dtype": _ElementType,
    **{f"numpy.{core}.{name}": construct for core in ("core", "_core") for name, construct in _CORE.items()},
}
