"""`.pdmodel`: a Paddle program (ProgramDesc, protobuf) as plain records, and one built again from parts of another.

Paddle's schema is large and its generated module registers itself globally. What a converter needs of it is spelled
out below and built in a descriptor pool of its own, so that Paddle may be loaded beside it. Fields that are not named
here are passed over when reading, and are not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from paddle2torch.converter.formats.foreign import PROGRAM, refuse_foreign
from paddle2torch.converter.formats.names import checked_name
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.boundary import guarded
from paddle2torch.converter.support.errors import FormatError

if TYPE_CHECKING:
    from google.protobuf.message import Message

# Released programs have up to 2.5 MB, 65,000 fields, 600 operators and 1,500 variables. Records take far more memory
# than the bytes that they come from: two bytes are an operator.
MAX_PROGRAM_BYTES = 32 * 2**20
MOST_FIELDS = 1_000_000
MOST_OPERATORS = 10_000
MOST_VARIABLES = 30_000
# Bytes whose fields need no counting: they are few enough in any case.
_FEW_BYTES = 4 * 2**20

# Number, label and type of each field; a capital letter begins a message of this table. Enumerations are numbers on
# the wire and read as such, and text is read as bytes, so that what is not UTF-8 can be told where it stands.
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str, str]]] = {
    "Program": {
        "blocks": (1, "repeated", "Block"),
        "version": (4, "optional", "Version"),
        "op_version_map": (5, "optional", "OpVersionMap"),
    },
    "Version": {"version": (1, "optional", "int64")},
    "OpVersionMap": {"pair": (1, "repeated", "OpVersionPair")},
    "OpVersionPair": {"op_name": (1, "required", "bytes"), "op_version": (2, "required", "OpVersion")},
    "OpVersion": {"version": (1, "required", "int32")},
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
        "need_check_feed": (4, "optional", "bool"),
        "is_parameter": (5, "optional", "bool"),
        "stop_gradient": (6, "optional", "bool"),
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

# Types of a field that a packed list has next to each other, and how many bytes each takes at least.
_PACKED: Mapping[str, int] = {"int32": 1, "int64": 1, "bool": 1, "float": 4, "double": 8}

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
# What the variables of feed and fetch operators are.
_ENDS = frozenset({9, 10})

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
# Attributes that are no values, but refer to blocks and variables.
_REFERENCES = frozenset({8, 10, 13, 14})

# Where an operator was made: stack traces and scopes of the exporting machine, not part of the network.
_PROVENANCE = frozenset({"op_callstack", "op_namescope", "op_device", "op_role", "op_role_var"})


# Operators that hand a network its inputs and take its outputs, here and in Paddle 3's programs.
FEEDS = frozenset({"feed", "pd_op.feed", "pd_op.data"})
FETCHES = frozenset({"fetch", "pd_op.fetch"})


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
    """A network.

    Attributes:
        variables: by name.
        operators: of the main block, in execution order.
        inner: the operators of all other blocks: bodies of loops and branches.
        pir: whether operators and attributes are called as in an `inference.json` of Paddle 3.
    """

    variables: dict[str, Variable]
    operators: tuple[Operator, ...]
    inner: tuple[Operator, ...] = ()
    pir: bool = False

    @property
    def parameters(self) -> tuple[Variable, ...]:
        """The persistable tensors in the order of a `.pdiparams` file, which is that of their names."""
        parameters = (each for each in self.variables.values() if each.is_parameter)
        return tuple(sorted(parameters, key=lambda variable: variable.name))

    @property
    def feeds(self) -> tuple[str, ...]:
        """The network's inputs, in order."""
        return tuple(name for end in self._ends(FEEDS) for names in end.outputs.values() for name in names)

    @property
    def fetches(self) -> tuple[str, ...]:
        """The network's outputs, in order."""
        return tuple(name for end in self._ends(FETCHES) for names in end.inputs.values() for name in names)

    def _ends(self, kinds: frozenset[str]) -> list[Operator]:
        return sorted((each for each in self.operators if each.type in kinds), key=_column)


def _column(end: Operator) -> int:
    """Which of the network's inputs or outputs an operator is for; Paddle 3 gives inputs in order instead."""
    column = end.attributes.get("col", 0)
    return column if isinstance(column, int) else 0


@guarded("a .pdmodel program")
def read_pdmodel(blob: Blob) -> Program:
    """The program of a `.pdmodel` file.

    Stack traces and other notes about the exporting machine (`op_callstack`, …) are left out.

    Raises:
        FormatError: the file is damaged or something else.
    """
    main, *others = _parse(blob).blocks
    variables = {}
    for message in main.vars:
        variable = _variable(blob, message)
        if variable.name in variables:
            raise FormatError(blob.name, f"variable {variable.name!r} stands in it twice; the file is damaged")
        variables[variable.name] = variable
    inner = tuple(_operator(blob, message) for block in others for message in block.ops)
    return Program(variables, tuple(_operator(blob, message) for message in main.ops), inner)


@guarded("a .pdmodel program")
def rebuilt_pdmodel(blob: Blob, operators: Sequence[int], shapes: Mapping[str, tuple[int, ...]] | None = None) -> bytes:
    """A program built again from some of the operators of another's main block, and of nothing else.

    Values stay as they are. What is left out: other blocks, variables that none of the operators names, notes about
    the exporting machine, and whatever the schema above does not have.

    Args:
        blob: a `.pdmodel` file.
        operators: their places in the main block, in the order in which they are to run.
        shapes: parameter name → another shape for it.

    Returns:
        The bytes of a `.pdmodel` file.

    Raises:
        FormatError: the file is damaged, has no such parameter or operator, or one of the operators refers to other
            blocks or to what is no tensor.
    """
    given = _parse(blob)
    program: Any = message_class("Program")()  # a class that is made while this runs
    for part in ("version", "op_version_map"):
        if given.HasField(part):
            getattr(program, part).CopyFrom(getattr(given, part))
    block = program.blocks.add(idx=0, parent_idx=-1)
    if not given.blocks or max(operators, default=-1) >= len(given.blocks[0].ops):
        raise FormatError(blob.name, "its main block does not have all operators that are to run")
    for place in operators:
        _copy_operator(blob, given.blocks[0].ops[place], block)
    named = {name for op in block.ops for side in (op.inputs, op.outputs) for slot in side for name in slot.arguments}
    left = dict(shapes or {})
    for message in given.blocks[0].vars:
        variable = _variable(blob, message)
        shape = left.pop(variable.name, None) if variable.is_parameter else None
        if message.name in named:
            if variable.shape is None and message.type.type not in _ENDS:
                raise FormatError(blob.name, f"variable {variable.name!r} is no tensor, but an operator's value")
            block.vars.append(message)
            if shape is not None:
                block.vars[-1].type.dense_tensor.tensor.dims[:] = shape
    if left:
        raise FormatError(blob.name, f"has no parameter {', '.join(sorted(left))}, whose shape was to be set")
    program.DiscardUnknownFields()
    return program.SerializeToString()


def _copy_operator(blob: Blob, message: Any, block: Any) -> None:
    """Add a copy of an operator to a block, without the notes about where it was made."""
    copy = block.ops.add(type=message.type, inputs=message.inputs, outputs=message.outputs)
    for attribute in message.attrs:
        name = _name(blob.name, attribute.name)
        if name in _PROVENANCE:
            continue
        if attribute.type in _REFERENCES:
            kind = _name(blob.name, message.type)
            raise FormatError(
                blob.name, f"attribute {name!r} of a {kind} is no value, but refers to a block or variable"
            )
        copy.attrs.append(attribute)


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
    """The ProgramDesc, with at least one block, and of bounded size."""
    refuse_foreign(blob, PROGRAM, "a .pdmodel program")
    check_count(blob, "bytes", blob.size, MAX_PROGRAM_BYTES)
    data = blob.data
    if len(data) > _FEW_BYTES:
        check_count(blob, "fields", _fields(bytes(data), "Program"), MOST_FIELDS)
    program = parse_message("Program", data)
    if program is None:
        raise FormatError(
            blob.name,
            "cannot be read as a Paddle program (ProgramDesc); it is cut short, damaged, or something else",
        )
    if not program.blocks:
        raise FormatError(blob.name, "the program has no block, so it has no network")
    check_count(blob, "operators", sum(len(block.ops) for block in program.blocks), MOST_OPERATORS)
    check_count(blob, "variables", sum(len(block.vars) for block in program.blocks), MOST_VARIABLES)
    return program


def check_count(blob: Blob, what: str, count: int, most: int) -> None:
    """Refuse a program that is far larger than any network's.

    Raises:
        FormatError: the count is larger than that.
    """
    if count > most:
        raise FormatError(blob.name, f"refused: {count:,} {what} or more, where a program has {most:,} at most")


def _fields(data: bytes, message: str) -> int:
    """How many fields a message has, with those of the messages in it; counted on the wire, before they take memory.

    It is counted no further than `MOST_FIELDS`, and no further than the bytes are well formed.
    """
    count, waiting = 0, [(0, len(data), message)]
    while waiting:
        at, end, message = waiting.pop()
        while at < end:
            key, at = _varint(data, at, end)
            count += 1
            if count > MOST_FIELDS:
                return count
            wire = key & 7
            if wire == _VARINT:
                _, at = _varint(data, at, end)
            elif wire == _BYTES:
                length, at = _varint(data, at, end)
                kind = _FIELD_TYPES[message].get(key >> 3, "")
                if kind in _SCHEMA:
                    waiting.append((at, min(at + length, end), kind))
                elif kind in _PACKED:
                    count += length // _PACKED[kind]
                at += length
            else:
                at += _FIXED.get(wire, end)
    return count


# Wire types of protobuf: numbers of variable length, bytes behind their length, and those of fixed length.
_VARINT, _BYTES, _FIXED = 0, 2, {1: 8, 5: 4}
_FIELD_TYPES = {message: {number: kind for number, _, kind in fields.values()} for message, fields in _SCHEMA.items()}


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    value = shift = 0
    while at < end:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128 or shift > 63:
            break
    return value, at


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
