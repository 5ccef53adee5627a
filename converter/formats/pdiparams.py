"""`.pdiparams`: the parameters of an inference program, one after another in the order of their names.

A record is: version (u32, 0), number of LoD levels (u64, 0 for parameters; each level is a u64 byte count and as many
bytes), version (u32, 0), length of the description (i32), description (protobuf TensorDesc: element type and sizes),
then the elements, little-endian. The file has no names; they come from the program.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from io import BufferedIOBase
from typing import Any, NoReturn

import numpy as np

from paddle2torch.converter.formats.foreign import PARAMETERS, refuse_foreign
from paddle2torch.converter.formats.pdmodel import ELEMENT_NAMES, Variable, message_class, parse_message
from paddle2torch.converter.formats.tensors import ELEMENT_TYPES, byte_count, is_possible, little_endian, widen_bfloat16
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.boundary import guarded
from paddle2torch.converter.support.errors import FormatError

_ELEMENT_NUMBERS = {name: number for number, name in ELEMENT_NAMES.items()}
# A description of nine sizes, the most that Paddle allows, has about a hundred bytes.
_MAX_DESCRIPTION = 1024
# Parameters have none.
_MAX_LEVELS = 16


@guarded("a .pdiparams file")
def read_pdiparams(blob: Blob, parameters: Sequence[Variable]) -> dict[str, np.ndarray]:
    """The arrays of a `.pdiparams` file.

    Args:
        blob: the file.
        parameters: the program's parameters in the file's order, as `Program.parameters` gives them.

    Returns:
        Parameter name → array, read-only and each in memory of its own; bfloat16 is widened to float32.

    Raises:
        FormatError: the file is damaged, or does not belong to these parameters.
        SourceError: the file was changed since it was found.
    """
    if blob.size or parameters:
        refuse_foreign(blob, PARAMETERS, "a .pdiparams file")
    with blob.stream() as stream:
        reader = _Reader(blob, stream)
        arrays = {parameter.name: reader.tensor(parameter) for parameter in parameters}
        if reader.at != blob.size:
            reader.fail(
                f"{blob.size - reader.at} bytes are left after the program's {len(parameters)} parameters; "
                "the file belongs to another .pdmodel"
            )
    return arrays


def write_pdiparams(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a `.pdiparams` file.

    Args:
        arrays: parameter name → array of a type that Paddle has.

    Raises:
        FormatError: an array's element type cannot be stored.
    """
    pieces: list[bytes | memoryview] = []
    for name, array in sorted(arrays.items()):
        description: Any = message_class("Tensor")()  # a class that is made while this runs
        description.data_type = _element_number(name, array.dtype)
        description.dims.extend(array.shape)
        content = description.SerializeToString()
        pieces += [struct.pack("<IQIi", 0, 0, 0, len(content)), content, little_endian(array).reshape(-1).data]
    return b"".join(pieces)


def _element_number(name: str, dtype: np.dtype) -> int:
    if dtype.name not in ELEMENT_TYPES:
        raise FormatError(".pdiparams", f"{name} has element type {dtype}; Paddle stores {', '.join(ELEMENT_TYPES)}")
    return _ELEMENT_NUMBERS[dtype.name]


class _Reader:
    """A position in the file that moves from one record to the next."""

    def __init__(self, blob: Blob, stream: BufferedIOBase) -> None:
        self.file, self.size, self.stream, self.at = blob.name, blob.size, stream, 0

    def fail(self, problem: str) -> NoReturn:
        raise FormatError(self.file, problem, self.at)

    def require(self, count: int, what: str) -> None:
        left = self.size - self.at
        if count > left:
            self.fail(f"{what} should take {count} bytes, {left} are left; the file is cut short or another model's")

    def take(self, count: int, what: str) -> bytes:
        self.require(count, what)
        data = self.stream.read(count)
        if len(data) < count:
            self.fail(f"ends inside {what}; the file is cut short")
        self.at += count
        return data

    def number(self, layout: str, what: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def tensor(self, parameter: Variable) -> np.ndarray:
        """The next record, which must be this parameter's."""
        name = parameter.name
        self.version(name)
        levels = self.number("<Q", name)
        if levels > _MAX_LEVELS:
            self.fail(f"{name} has {levels} LoD levels; the file is damaged or another model's")
        for _ in range(levels):
            self.take(self.number("<Q", name), f"the LoD of {name}")
        self.version(name)
        described = self.description(name)
        dtype, shape = ELEMENT_NAMES.get(described.data_type), tuple(described.dims)
        if dtype not in ELEMENT_TYPES:
            self.fail(f"{name} has element type {dtype or described.data_type}, which is not read")
        if not is_possible(shape):
            self.fail(f"{name} has the impossible shape {list(shape)}; the file is damaged")
        self.compare(name, "shape", shape, parameter.shape)
        self.compare(name, "element type", dtype, parameter.dtype)
        count = byte_count(shape, ELEMENT_TYPES[dtype])
        self.require(count, name)
        array = np.empty(shape, ELEMENT_TYPES[dtype])
        if self.stream.readinto(array.reshape(-1).view(np.uint8).data) < count:
            self.fail(f"ends inside {name}; the file is cut short")
        self.at += count
        if dtype == "bfloat16":
            array = widen_bfloat16(array)
        array.flags.writeable = False
        return array

    def version(self, name: str) -> None:
        if version := self.number("<I", name):
            self.fail(f"the record of {name} has version {version}, not 0; the file is damaged or another model's")

    def description(self, name: str) -> Any:
        length = self.number("<i", name)
        if not 0 < length <= _MAX_DESCRIPTION:
            self.fail(f"the description of {name} cannot have {length} bytes; the file is damaged or another model's")
        described = parse_message("Tensor", memoryview(self.take(length, name)))
        if described is None:
            self.fail(f"the description of {name} cannot be read; the file is damaged")
        return described

    def compare(self, name: str, what: str, found: object, expected: object) -> None:
        """The program's word against the file's; None where the program says nothing."""
        if expected is not None and found != expected:
            self.fail(
                f"{name} has {what} {_plain(found)} here, {_plain(expected)} in the program; "
                "the two files do not belong together"
            )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
