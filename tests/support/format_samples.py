"""Small model files for the format tests, made without the code under test."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable

from paddle2torch.converter.support.blob import Blob

FLOAT32, FLOAT16, BFLOAT16 = 5, 4, 22
DENSE_TENSOR, FEED_LIST, FETCH_LIST = 7, 9, 10


def blob(data: bytes, name: str = "sample") -> Blob:
    return Blob(name, memoryview(data))


# ---- protobuf, by hand


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field: an int as varint, a float as fixed32, text and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def tensor_description(dims: Iterable[int], element_type: int = FLOAT32) -> bytes:
    return field(1, element_type) + b"".join(field(2, size) for size in dims)


def variable(name: str, dims: Iterable[int] | None, persistable: bool = True, kind: int = DENSE_TENSOR) -> bytes:
    """A VarDesc; without dims, of a kind that is no tensor."""
    content = field(1, kind)
    if dims is not None:
        content += field(3, field(1, tensor_description(dims)) + field(2, 0))
    return field(1, name) + field(2, content) + field(3, int(persistable))


def operator(kind: str, inputs: dict, outputs: dict, attributes: Iterable[bytes] = ()) -> bytes:
    """An OpDesc; attributes are encoded OpDesc.Attr messages."""
    slots = b""
    for number, side in ((1, inputs), (2, outputs)):
        for slot, names in side.items():
            slots += field(number, field(1, slot) + b"".join(field(2, name) for name in names))
    return slots + field(3, kind) + b"".join(field(4, attribute) for attribute in attributes)


def attribute(name: str, kind: int, *values: bytes) -> bytes:
    return field(1, name) + field(2, kind) + b"".join(values)


def program(variables: Iterable[bytes], operators: Iterable[bytes] = (), blocks: int = 1) -> bytes:
    """A ProgramDesc; further blocks than the first are empty. A version follows, which no reader here asks for."""
    first = field(1, 0) + field(2, -1)
    first += b"".join(field(3, each) for each in variables) + b"".join(field(4, each) for each in operators)
    rest = b"".join(field(1, field(1, index) + field(2, 0)) for index in range(1, blocks))
    return (field(1, first) if blocks else b"") + rest + field(4, field(1, 0))


def linear_program() -> bytes:
    """x @ w + b, with the variables in another order than their names'."""
    return program(
        [
            variable("feed", None, kind=FEED_LIST),
            variable("fetch", None, kind=FETCH_LIST),
            variable("w", (3, 2)),
            variable("b", (2,)),
            variable("x", (-1, 3), persistable=False),
            variable("y", (-1, 2), persistable=False),
        ],
        [
            operator("feed", {"X": ["feed"]}, {"Out": ["x"]}, [attribute("col", 0, field(3, 0))]),
            operator(
                "fc",
                {"Input": ["x"], "W": ["w"], "Bias": ["b"]},
                {"Out": ["y"]},
                [attribute("op_callstack", 5, field(8, "line 1")), attribute("axis", 0, field(3, -1))],
            ),
            operator("fetch", {"X": ["y"]}, {"Out": ["fetch"]}, [attribute("col", 0, field(3, 0))]),
        ],
    )


# ---- .pdiparams, by hand


def record(dims: Iterable[int], data: bytes, element_type: int = FLOAT32, levels: Iterable[bytes] = ()) -> bytes:
    """One tensor of a `.pdiparams` file."""
    description = tensor_description(dims, element_type)
    levels = tuple(levels)
    lod = struct.pack("<Q", len(levels)) + b"".join(struct.pack("<Q", len(each)) + each for each in levels)
    return struct.pack("<I", 0) + lod + struct.pack("<Ii", 0, len(description)) + description + data


# ---- inference.json, by hand


def pir_type(dims: Iterable[int], element: str = "f32") -> dict:
    return {"#": "0.t_dtensor", "D": [{"#": f"0.t_{element}"}, list(dims), "NCHW", [], 0]}


def pir_parameter(number: int, name: str, dims: Iterable[int], stored: int | None = 1, element: str = "f32") -> dict:
    """A parameter; without its flags where `stored` is None, as files made for inference alone have it."""
    record = {"#": "p", "A": [0, 1, 1, name], "DA": [], "O": {"%": number, "TT": pir_type(dims, element)}, "QA": []}
    return record if stored is None else {**record, "OA": [stored, 0, 1]}


def pir_operator(kind: str, operands: Iterable[int], results: dict[int, dict], attributes: Iterable[dict] = ()) -> dict:
    """An operator: numbers of its operands, type by number of its results."""
    return {
        "#": kind,
        "A": list(attributes),
        "I": [{"%": number} for number in operands],
        "O": [{"%": number, "TT": type_} for number, type_ in results.items()],
    }


def pir_attribute(name: str, kind: str, data: object) -> dict:
    return {"N": name, "AT": {"#": kind, "D": data}}


def pir_program(operators: Iterable[dict], blocks: int = 1, magic: str = "pir") -> bytes:
    block = {"#": "block_0", "args": [], "ops": list(operators)}
    region = {"#": "region_0", "blocks": [block] * blocks}
    base = {"magic": magic, "trainable": True, "version": 1}
    return json.dumps({"base_code": base, "program": {"regions": [region]}}).encode()


def pir_linear() -> bytes:
    """x @ w + b, with a state that no file holds, and an operand and a result that are not there."""
    return pir_program(
        [
            pir_parameter(1, "w", (3, 2)),
            pir_parameter(2, "state", (), stored=0, element="ui8"),
            pir_parameter(3, "b", (2,)),
            pir_operator("1.data", (), {4: pir_type((-1, 3))}, [pir_attribute("name", "0.a_str", "x")]),
            pir_operator("1.matmul", (4, 1, 0), {5: pir_type((-1, 2)), 0: {"#": "NULL"}}),
            pir_operator("0.combine", (5, 3), {6: {"#": "0.t_vec", "D": [pir_type((-1, 2)), pir_type((2,))]}}),
            pir_operator("1.add_n", (6,), {7: pir_type((-1, 2))}),
            pir_operator("1.fetch", (7,), {8: pir_type((-1, 2))}, [pir_attribute("col", "0.a_i32", 0)]),
        ]
    )
