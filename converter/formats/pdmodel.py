"""`.pdmodel`: a Paddle program (ProgramDesc, protobuf) as plain records, and the same program with other shapes.

Paddle's schema is large and its generated module registers itself globally. What a converter needs of it is spelled
out below and built in a descriptor pool of its own, so that Paddle may be loaded beside it. Fields that are not named
here are passed over when reading and kept when writing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from paddle2torch.converter.formats.foreign import PROGRAM, refuse_foreign
from paddle2torch.converter.formats.names import checked_name
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError

if TYPE_CHECKING:
    from google.protobuf.message import Message

# Released programs have at most a few megabytes; records take far more memory than the bytes they come from.
MAX_PROGRAM_BYTES = 256 * 2**20

# Number, label and type of each field; a capital letter begins a message of this table. Enumerations are numbers on
# the wire and read as such, and text is read as bytes, so that what is not UTF-8 can be told where it stands.
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str, str]]] = {
    "Program": {"blocks": (1, "repeated", "Block")},
    "Block": {
        "idx": (1, "required", "int32"),
        "parent_idx": (2, "required", "int32"),
        "vars": (3, "repeated", "Var"),
        "ops": (4, "repeated", "Op"),
    },
    "Var": {
        "name": (1, "required", "bytes"),
        "type": (2, "required", "Type"),
        "persistable": (3, "optional", "bool"),
    },
    "Type": {"type": (1, "required", "int32"), "dense_tensor": (3, "optional", "DenseTensor")},
    "DenseTensor": {"tensor": (1, "required", "Tensor")},
    "Tensor": {"data_type": (1, "required", "int32"), "dims": (2, "repeated", "int64")},
    "Op": {
        "inputs": (1, "repeated", "Slot"),
        "outputs": (2, "repeated", "Slot"),
        "type": (3, "required", "bytes"),
        "attrs": (4, "repeated", "Attr"),
    },
    "Slot": {"parameter": (1, "required", "bytes"), "arguments": (2, "repeated", "bytes")},
    "Attr": {
        "name": (1, "required", "bytes"),
        "type": (2, "required", "int32"),
        "i": (3, "optional", "int32"),
        "f": (4, "optional", "float"),
        "s": (5, "optional", "bytes"),
        "ints": (6, "repeated", "int32"),
        "floats": (7, "repeated", "float"),
        "strings": (8, "repeated", "bytes"),
        "b": (10, "optional", "bool"),
        "bools": (11, "repeated", "bool"),
        "block_idx": (12, "optional", "int32"),
        "l": (13, "optional", "int64"),
        "blocks_idx": (14, "repeated", "int32"),
        "longs": (15, "repeated", "int64"),
        "float64s": (16, "repeated", "double"),
        "var_name": (17, "optional", "bytes"),
        "vars_name": (18, "repeated", "bytes"),
        "float64": (19, "optional", "double"),
        "scalar": (20, "optional", "Scalar"),
        "scalars": (21, "repeated", "Scalar"),
    },
    "Scalar": {
        "type": (1, "required", "int32"),
        "b": (2, "optional", "bool"),
        "i": (3, "optional", "int64"),
        "r": (4, "optional", "double"),
        "c": (5, "optional", "Complex"),
    },
    "Complex": {"r": (1, "required", "double"), "i": (2, "required", "double")},
}

# Paddle's numbers (VarType.Type) for the types of elements.
ELEMENT_NAMES: Mapping[int, str] = {
    0: "bool",
    1: "int16",
    2: "int32",
    3: "int64",
    4: "float16",
    5: "float32",
    6: "float64",
    20: "uint8",
    21: "int8",
    22: "bfloat16",
    23: "complex64",
    24: "complex128",
    32: "float8_e4m3fn",
    33: "float8_e5m2",
    36: "uint16",
    37: "uint32",
    38: "uint64",
}
_DENSE_TENSOR = 7

# Paddle's numbers (AttrType) for the types of attributes, and the field that holds the value.
_ATTRIBUTE_FIELDS: Mapping[int, str] = {
    0: "i",
    1: "f",
    2: "s",
    3: "ints",
    4: "floats",
    5: "strings",
    6: "b",
    7: "bools",
    8: "block_idx",
    9: "l",
    10: "blocks_idx",
    11: "longs",
    12: "float64s",
    13: "var_name",
    14: "vars_name",
    15: "float64",
    16: "scalar",
    17: "scalars",
}
_SCALAR_FIELDS: Mapping[int, str] = {1: "b", 2: "i", 3: "r", 4: "c"}

# Where an operator was made: stack traces and scopes of the exporting machine, not part of the network.
_PROVENANCE = frozenset({"op_callstack", "op_namescope", "op_device", "op_role", "op_role_var"})


# Operators that hand a network its inputs and take its outputs, here and in Paddle 3's programs.
_FEEDS = frozenset({"feed", "pd_op.feed", "pd_op.data"})
_FETCHES = frozenset({"fetch", "pd_op.fetch"})


@dataclass(frozen=True)
class Variable:
    """A variable of a program.

    Attributes:
        name: its name in the program.
        dtype: element type (`float32`, …); None for what is no tensor (feed and fetch lists, scopes).
        shape: sizes, -1 for what is known only at run time; None for what is no tensor.
        persistable: whether it outlives a run, as parameters do.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...] | None
    persistable: bool

    @property
    def is_parameter(self) -> bool:
        """Whether a `.pdiparams` file has it."""
        return self.persistable and self.shape is not None


@dataclass(frozen=True)
class Operator:
    """One step of a program.

    Attributes:
        type: the operator's name, for example `conv2d`.
        inputs: slot → names of the variables in it.
        outputs: slot → names of the variables in it.
        attributes: name → plain Python value.
    """

    type: str
    inputs: dict[str, tuple[str, ...]]
    outputs: dict[str, tuple[str, ...]]
    attributes: dict[str, object]


@dataclass(frozen=True)
class Program:
    """A network: its variables by name, and its operators in execution order."""

    variables: dict[str, Variable]
    operators: tuple[Operator, ...]

    @property
    def parameters(self) -> tuple[Variable, ...]:
        """The persistable tensors in the order of a `.pdiparams` file, which is that of their names."""
        parameters = (each for each in self.variables.values() if each.is_parameter)
        return tuple(sorted(parameters, key=lambda variable: variable.name))

    @property
    def feeds(self) -> tuple[str, ...]:
        """The network's inputs, in order."""
        return tuple(name for end in self._ends(_FEEDS) for names in end.outputs.values() for name in names)

    @property
    def fetches(self) -> tuple[str, ...]:
        """The network's outputs, in order."""
        return tuple(name for end in self._ends(_FETCHES) for names in end.inputs.values() for name in names)

    def _ends(self, kinds: frozenset[str]) -> list[Operator]:
        return sorted((each for each in self.operators if each.type in kinds), key=_column)


def _column(end: Operator) -> int:
    """Which of the network's inputs or outputs an operator is for; Paddle 3 gives inputs in order instead."""
    column = end.attributes.get("col", 0)
    return column if isinstance(column, int) else 0


def read_pdmodel(blob: Blob) -> Program:
    """The program of a `.pdmodel` file.

    Stack traces and other notes about the exporting machine (`op_callstack`, …) are left out.

    Raises:
        FormatError: the file is damaged or something else, or the network has control flow (more than one block).
    """
    block = _main_block(blob, _parse(blob))
    variables = {}
    for message in block.vars:
        variable = _variable(blob, message)
        if variable.name in variables:
            raise FormatError(blob.name, f"variable {variable.name!r} stands in it twice; the file is damaged")
        variables[variable.name] = variable
    return Program(variables, tuple(_operator(blob, message) for message in block.ops))


def with_parameter_shapes(blob: Blob, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The same program with other shapes for some of its parameters; all else is kept as it stands.

    Args:
        blob: a `.pdmodel` file.
        shapes: parameter name → new shape.

    Returns:
        The bytes of a `.pdmodel` file.

    Raises:
        FormatError: the file is damaged, or has no such parameter.
    """
    program = _parse(blob)
    left = dict(shapes)
    for message in _main_block(blob, program).vars:
        variable = _variable(blob, message)
        if variable.is_parameter and variable.name in left:
            message.type.dense_tensor.tensor.dims[:] = left.pop(variable.name)
    if left:
        raise FormatError(blob.name, f"has no parameter {', '.join(sorted(left))}, whose shape was to be set")
    return program.SerializeToString()


@cache
def message_class(name: str) -> type[Message]:
    """The protobuf class of a message of the schema above."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"paddle2torch.{name}"))


def parse_message(name: str, data: memoryview) -> Any:
    """A message of the schema above, or None where the bytes are not one, or one without a required field."""
    message = message_class(name)()
    try:
        message.ParseFromString(bytes(data))
    except DecodeError:
        return None
    return message if message.IsInitialized() else None


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="paddle2torch.proto", package="paddle2torch", syntax="proto2")
    for message, fields in _SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, (number, label, kind) in fields.items():
            field = described.field.add(name=name, number=number, label=f"LABEL_{label.upper()}")
            if kind in _SCHEMA:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".paddle2torch.{kind}"
            else:
                field.type = field_type.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _parse(blob: Blob) -> Any:
    refuse_foreign(blob, PROGRAM, "a .pdmodel program")
    if blob.size > MAX_PROGRAM_BYTES:
        raise FormatError(blob.name, f"{blob.size} bytes are too many for a program (at most {MAX_PROGRAM_BYTES})")
    program = parse_message("Program", blob.data)
    if program is None:
        raise FormatError(
            blob.name,
            "cannot be read as a Paddle program (ProgramDesc); it is cut short, damaged, or something else",
        )
    return program


def _main_block(blob: Blob, program: Any) -> Any:
    """Block 0, which is the network; others hold the bodies of loops and branches."""
    if len(program.blocks) != 1:
        count = len(program.blocks)
        reason = "loops or branches (while, conditional_block), which are not converted" if count else "no network"
        raise FormatError(blob.name, f"the program has {count} blocks where one was expected: it has {reason}")
    return program.blocks[0]


def _text(blob: Blob, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise FormatError(blob.name, f"the text {value[:60]!r} of an attribute is not UTF-8") from error


# The same names come again and again.
_name = lru_cache(maxsize=1024)(checked_name)


def _variable(blob: Blob, message: Any) -> Variable:
    name = _name(blob.name, message.name)
    if message.type.type != _DENSE_TENSOR or not message.type.HasField("dense_tensor"):
        return Variable(name, None, None, message.persistable)
    tensor = message.type.dense_tensor.tensor
    dtype = ELEMENT_NAMES.get(tensor.data_type)
    if dtype is None:
        raise FormatError(blob.name, f"variable {name!r} has element type {tensor.data_type}, which does not exist")
    return Variable(name, dtype, tuple(tensor.dims), message.persistable)


def _operator(blob: Blob, message: Any) -> Operator:
    attributes = {}
    for attribute in message.attrs:
        name = _name(blob.name, attribute.name)
        if name not in _PROVENANCE:
            attributes[name] = _attribute(blob, name, attribute)
    return Operator(
        _name(blob.name, message.type), _slots(blob, message.inputs), _slots(blob, message.outputs), attributes
    )


def _slots(blob: Blob, messages: Any) -> dict[str, tuple[str, ...]]:
    return {
        _name(blob.name, slot.parameter): tuple(_name(blob.name, each) for each in slot.arguments) for slot in messages
    }


def _attribute(blob: Blob, name: str, message: Any) -> object:
    how = _ATTRIBUTE_READERS.get(message.type)
    if how is None:
        raise FormatError(blob.name, f"attribute {name!r} has type {message.type}, which does not exist")
    field, is_repeated, plain = how
    value = getattr(message, field)
    if is_repeated:
        return list(value) if plain is None else [plain(blob, each) for each in value]
    return value if plain is None else plain(blob, value)


def _scalar(blob: Blob, message: Any) -> object:
    field = _SCALAR_FIELDS.get(message.type)
    if field is None:
        raise FormatError(blob.name, f"a number has type {message.type}, which does not exist")
    value = getattr(message, field)
    return complex(value.r, value.i) if field == "c" else value


# How a value becomes a plain one, where it is none already.
_PLAIN: Mapping[str, Callable[[Blob, Any], object]] = {"bytes": _text, "Scalar": _scalar}
# Number of an attribute's type → field with the value, whether it is a list, and how it becomes plain.
_ATTRIBUTE_READERS = {
    number: (field, _SCHEMA["Attr"][field][1] == "repeated", _PLAIN.get(_SCHEMA["Attr"][field][2]))
    for number, field in _ATTRIBUTE_FIELDS.items()
}
