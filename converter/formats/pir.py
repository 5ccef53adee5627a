"""`inference.json`: a program as Paddle 3 writes it (PIR), read into the records of a `.pdmodel`, or built again.

Keys are short: `#` is what a thing is, `%` the number of a value, `I` and `O` an operator's operands and results, `A`
its attributes with name `N` and content `AT`, `TT` a type, `D` data, `VD` a number that JSON cannot have. Operands and
results have places, no names; value 0 is none at all. Parameters are operators of type `p` with attributes of their
own (the last is the name), whose flags in `OA` begin with whether they are stored in the `.pdiparams` beside the file.
The versions 1, 3 and 4 of the form differ in nothing that is read here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from paddle2torch.converter.formats.foreign import PIR, refuse_foreign
from paddle2torch.converter.formats.names import checked_name
from paddle2torch.converter.formats.pdmodel import (
    FEEDS,
    MAX_PROGRAM_BYTES,
    MOST_FIELDS,
    MOST_OPERATORS,
    Operator,
    Program,
    Variable,
    check_count,
)
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.boundary import guarded
from paddle2torch.converter.support.errors import FormatError

_DIALECTS: Mapping[str, str] = {"0": "builtin", "1": "pd_op", "2": "cf", "3": "custom_op", "4": "pd_dist"}
_PARAMETER = "p"
_NO_VALUE = 0

_ELEMENT_TYPES: Mapping[str, str] = {
    "t_bool": "bool",
    "t_i8": "int8",
    "t_ui8": "uint8",
    "t_i16": "int16",
    "t_i32": "int32",
    "t_i64": "int64",
    "t_f8e4m3fn": "float8_e4m3fn",
    "t_f8e5m2": "float8_e5m2",
    "t_f16": "float16",
    "t_bf16": "bfloat16",
    "t_f32": "float32",
    "t_f64": "float64",
    "t_c64": "complex64",
    "t_c128": "complex128",
}
_TENSOR = "t_dtensor"
_LIST_TYPE = "t_vec"

# Upper case of what `VD` has.
_NOT_FINITE: Mapping[str, float] = {"INF": float("inf"), "-INF": float("-inf"), "NAN": float("nan")}

# JSON of a program nests attributes in arrays in operators; types of lists of tensors add a few more levels.
_MAX_NESTING = 16


@guarded("an inference.json of Paddle 3")
def read_pir(blob: Blob) -> Program:
    """The program of an `inference.json`.

    Operators keep the names, attributes and order of operands that PIR has (`pd_op.conv2d`). The one value in each
    slot has the slot's place as key: `{"0": ("x",), "1": ("",)}`, where the empty name says that an optional operand is
    not given. Parameters and inputs have their own names, other values those of their place: `31.0` is the first result
    of the operator 31, parameters counted. Parameters are variables, not operators; those that are not stored in a
    `.pdiparams` are not persistable.

    Raises:
        FormatError: the file is damaged or something else.
    """
    return _Reader(blob).program(_parsed(blob))


@guarded("an inference.json of Paddle 3")
def rebuilt_pir(blob: Blob, operators: Sequence[int]) -> bytes:
    """A program built again from some of the operators of another's block, and of nothing else.

    Values stay as they are. What is left out: parameters that none of the operators reads, and whatever is not read
    here.

    Args:
        blob: an `inference.json`.
        operators: their places among `Program.operators`, in the order in which they are to run.

    Returns:
        The bytes of an `inference.json`.

    Raises:
        FormatError: the file is damaged, or one of the operators has an attribute or a type of an unknown kind.
    """
    content, reader = _parsed(blob), _Reader(blob)
    reader.program(content)
    records = reader.records(content)
    others = [record for record in records if record["#"] != _PARAMETER]
    chosen = [reader.copied(others[place], f"operator {place}") for place in operators]
    read = {operand["%"] for record in chosen for operand in record["I"]}
    parameters = [record for record in records if record["#"] == _PARAMETER and record["O"]["%"] in read]
    kept = [reader.copied_parameter(record, f"parameter {record['A'][-1]}") for record in parameters] + chosen
    base = content["base_code"]
    program = {
        "base_code": {
            key: base[key] for key in ("magic", "trainable", "version") if isinstance(base.get(key), str | int)
        },
        "program": {"regions": [{"#": "region_0", "blocks": [{"#": "block_0", "args": [], "ops": kept}]}]},
    }
    return json.dumps(program, separators=(",", ":")).encode()


def _parsed(blob: Blob) -> Any:
    refuse_foreign(blob, PIR, "an inference.json of Paddle 3")
    check_count(blob, "bytes", blob.size, MAX_PROGRAM_BYTES)
    data = bytes(blob.data)
    # Every value of JSON but the first stands behind one of these; some of them are in texts.
    check_count(blob, "values", sum(map(data.count, (b",", b"[", b"{"))), MOST_FIELDS)
    try:
        return json.loads(data.decode())
    except json.JSONDecodeError as error:
        raise FormatError(blob.name, f"is cut short or damaged: {error.msg}", error.pos) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(blob.name, "is no JSON that Paddle writes (not UTF-8, or of absurd size or depth)") from error


class _Reader:
    """The names of the values met so far, and the records made."""

    def __init__(self, blob: Blob) -> None:
        self.blob, self.file = blob, blob.name
        self.names: dict[int, str] = {_NO_VALUE: ""}
        self.variables: dict[str, Variable] = {}

    def fail(self, problem: str) -> NoReturn:
        raise FormatError(self.file, problem)

    def get(self, record: object, key: str, kind: type, where: str) -> Any:
        """A part of a JSON object that must be there and of this type."""
        value = record.get(key) if isinstance(record, dict) else None
        if type(value) is not kind:
            self.fail(f"{key!r} of {where} is missing or not a {kind.__name__}; the file is damaged or not of Paddle 3")
        return value

    # ---- the program

    def records(self, content: object) -> list[dict[str, Any]]:
        """What the main block has, each with its kind."""
        base = self.get(content, "base_code", dict, "the file")
        if base.get("magic") != "pir":
            self.fail("is not a program of Paddle 3: its magic is not 'pir'")
        regions = self.get(self.get(content, "program", dict, "the file"), "regions", list, "the program")
        blocks = self.get(regions[0], "blocks", list, "a region") if len(regions) == 1 else []
        if len(blocks) != 1:
            self.fail(f"the program has {len(regions)} regions and {len(blocks)} blocks in the first, not one of each")
        return self.block(blocks[0])

    def block(self, block: object) -> list[dict[str, Any]]:
        records = self.get(block, "ops", list, "a block")
        for place, record in enumerate(records):
            self.get(record, "#", str, f"operator {place}")
        return records

    def program(self, content: object) -> Program:
        operators: list[Operator] = []
        inner: list[Operator] = []
        for place, record in enumerate(self.records(content)):
            if record["#"] == _PARAMETER:
                self.parameter(record, place)
            else:
                operators.append(self.operator(record, place))
                inner += self.body(record)
        check_count(self.blob, "operators", len(operators) + len(inner), MOST_OPERATORS)
        return Program(self.variables, tuple(operators), tuple(inner), pir=True)

    def body(self, record: dict[str, Any], depth: int = 0) -> Iterator[Operator]:
        """The operators in the body of a loop or branch, and in bodies there: their kinds alone."""
        if depth > _MAX_NESTING:
            self.fail("its loops and branches are nested too deeply; the file is damaged")
        for region in self.get(record, "regions", list, "an operator") if record.get("regions") else ():
            for block in self.get(region, "blocks", list, "a region"):
                for each in self.block(block):
                    yield Operator(_full_name(checked_name(self.file, each["#"])), {}, {}, {})
                    yield from self.body(each, depth + 1)

    def parameter(self, record: dict, place: int) -> None:
        where = f"parameter {place}"
        name = checked_name(self.file, next(reversed(self.get(record, "A", list, where)), None))
        # Without the flags, which files made for inference alone lack, all parameters are stored.
        flags = record.get("OA") or [1]
        if not isinstance(flags, list):
            self.fail(f"the flags of {where} are not a list; the file is damaged")
        self.define(self.get(record, "O", dict, where), name, persistable=bool(flags[0]))

    def operator(self, record: dict, place: int) -> Operator:
        kind = _full_name(checked_name(self.file, record["#"]))
        where = f"operator {place} ({kind})"
        attributes: dict[str, object] = {}
        for each in self.get(record, "A", list, where):
            name = checked_name(self.file, self.get(each, "N", str, f"an attribute of {where}"))
            attributes[name] = self.value(self.get(each, "AT", dict, f"{name} of {where}"), f"{name} of {where}")
        operands = enumerate(self.get(record, "I", list, where))
        inputs: dict[str, tuple[str, ...]] = {str(index): (self.known(each, where),) for index, each in operands}
        outputs: dict[str, tuple[str, ...]] = {}
        for index, result in enumerate(self.get(record, "O", list, where)):
            own = attributes.get("name") if kind in FEEDS else f"{place}.{index}"
            outputs[str(index)] = (self.define(result, checked_name(self.file, own)),)
        return Operator(kind, inputs, outputs, attributes)

    # ---- building again

    def copied_parameter(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        """A parameter without what is not known."""
        if record.get("DA") or record.get("QA"):
            self.fail(f"{where} is quantised, or spread over several machines, which is not read")
        if not all(isinstance(flag, int) for flag in (*record["A"][:-1], *record.get("OA", ()))):
            self.fail(f"the flags of {where} are not numbers; the file is damaged")
        result = {"%": record["O"]["%"], "TT": self.known_only(record["O"]["TT"], where)}
        flags = {"OA": record["OA"]} if "OA" in record else {}
        return {"#": _PARAMETER, "A": record["A"], "DA": [], "O": result, **flags, "QA": []}

    def copied(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        """An operator without what is not known."""
        if record.get("regions"):
            self.fail(f"{where} has a body: loops and branches are not run")
        return {
            "#": record["#"],
            "A": self.copied_attributes(record["A"], where),
            "I": [{"%": operand["%"]} for operand in record["I"]],
            "O": [{"%": result["%"], "TT": self.known_only(result["TT"], where)} for result in record["O"]],
            **({"OA": self.copied_attributes(record["OA"], where)} if "OA" in record else {}),
        }

    def copied_attributes(self, attributes: object, where: str) -> list[dict[str, Any]]:
        if not isinstance(attributes, list):
            self.fail(f"the attributes of {where} are not a list; the file is damaged")
        return [
            {"N": self.get(each, "N", str, where), "AT": self.known_only(self.get(each, "AT", dict, where), where)}
            for each in attributes
        ]

    def known_only(self, record: Any, where: str, depth: int = 0) -> Any:
        """A type or an attribute's content, which are of known kinds all the way down."""
        if depth > _MAX_NESTING:
            self.fail(f"{where} is nested too deeply; the file is damaged")
        if isinstance(record, list):
            return [self.known_only(each, where, depth + 1) for each in record]
        if not isinstance(record, dict):
            return record
        kind = _local_name(self.get(record, "#", str, where))
        if kind not in _KINDS:
            self.fail(f"{where} has a part of kind {kind[:60]!r}, which is not known")
        content = {key: self.known_only(record[key], where, depth + 1) for key in ("D", "VD") if key in record}
        return {"#": record["#"], **content}

    # ---- values

    def known(self, operand: object, where: str) -> str:
        """The name of a value that an earlier operator has computed, or "" for none."""
        number = self.get(operand, "%", int, f"an operand of {where}")
        if number not in self.names:
            self.fail(f"{where} reads value {number}, which nothing computes before it; the file is damaged")
        return self.names[number]

    def define(self, result: object, name: str, persistable: bool = False) -> str:
        """Take up a new value. One that is null, as a result that is not asked for, has the number 0 again."""
        number = self.get(result, "%", int, name)
        dtype, shape = self.tensor_type(self.get(result, "TT", dict, name), name)
        if number == _NO_VALUE:
            return ""
        if number in self.names or name in self.variables:
            self.fail(f"value {number} ({name}) is computed twice; the file is damaged")
        self.names[number] = name
        self.variables[name] = Variable(name, dtype, shape, persistable)
        return name

    def tensor_type(self, record: dict, where: str) -> tuple[str | None, tuple[int, ...] | None]:
        """Element type and shape; None for both where the value is no tensor, but a list of them, say."""
        if _local_name(self.get(record, "#", str, f"the type of {where}")) != _TENSOR:
            return None, None
        content = self.get(record, "D", list, f"the type of {where}")
        if len(content) < 2 or not isinstance(content[1], list) or not all(type(size) is int for size in content[1]):
            self.fail(f"the type of {where} has no shape; the file is damaged")
        element = _local_name(self.get(content[0], "#", str, f"the type of {where}"))
        if element not in _ELEMENT_TYPES:
            self.fail(f"{where} has element type {element!r}, which is not known")
        return _ELEMENT_TYPES[element], tuple(content[1])

    # ---- attributes

    def value(self, record: dict, where: str, depth: int = 0) -> object:
        """An attribute's content as a plain value."""
        if depth > _MAX_NESTING:
            self.fail(f"{where} is nested too deeply; the file is damaged")
        kind = _local_name(self.get(record, "#", str, where))
        if kind == "a_array":
            items = self.get(record, "D", list, where)
            return [self.value(each, f"an element of {where}", depth + 1) for each in items]
        if "VD" in record:
            return self.not_finite(record["VD"], where)
        content = record.get("D")
        try:
            return _PLAIN[kind](content) if kind in _PLAIN else content
        except (TypeError, IndexError, KeyError, OverflowError):
            self.fail(f"the content of {where} is not that of {kind}; the file is damaged")

    def not_finite(self, text: object, where: str) -> float:
        if not isinstance(text, str) or text.upper() not in _NOT_FINITE:
            self.fail(f"{where} is no number; the file is damaged")
        return _NOT_FINITE[text.upper()]


def _full_name(name: str) -> str:
    """`1.conv2d` as `pd_op.conv2d`."""
    dialect, _, rest = name.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}.{rest}"


def _local_name(name: str) -> str:
    """`0.t_f32` as `t_f32`."""
    return name.rpartition(".")[2]


def _of(*kinds: type) -> Callable[[Any], Any]:
    """Passes values of exactly these types (a bool is no int)."""

    def check(value: object) -> object:
        if type(value) not in kinds:
            raise TypeError(value)
        return value

    return check


_number = _of(int, float, bool)


def _integers(values: Any) -> list[int]:
    return [_of(int)(value) for value in _of(list)(values)]


def _complex(parts: Any) -> complex:
    return complex(*map(_number, parts))


def _scalar(parts: Any) -> object:
    """A number behind the name of its type; complex numbers have two."""
    return _number(parts[1]) if len(parts) == 2 else _complex(parts[1:])


def _dtype(record: Any) -> str:
    name = _local_name(_of(str)(record["#"]))
    return _ELEMENT_TYPES.get(name, name)


# What is made of the data of each kind of attribute. Those of other kinds (places, meshes) are left as JSON has them.
_PLAIN: Mapping[str, Callable[[Any], object]] = {
    "a_bool": _of(bool),
    "a_i32": _of(int),
    "a_i64": _of(int),
    "a_index": _of(int),
    "a_f32": lambda value: float(_number(value)),
    "a_f64": lambda value: float(_number(value)),
    "a_c64": _complex,
    "a_c128": _complex,
    "a_str": _of(str),
    "a_tensorname": _of(str),
    "a_dtype": _of(str),
    "a_layout": _of(str),
    "a_intarray": _integers,
    "a_scalar": _scalar,
    "a_type": _dtype,
}
# Kinds of types and attributes that a program built again may have.
_KINDS = frozenset({*_PLAIN, *_ELEMENT_TYPES, _TENSOR, _LIST_TYPE, "a_array", "a_place", "NULL"})
