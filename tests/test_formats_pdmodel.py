"""`.pdmodel`: every attribute type, what is left out, what is refused, and new shapes for parameters."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from paddle2torch.converter.formats.pdmodel import Operator, Variable, _fields, read_pdmodel, rebuilt_pdmodel
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from support.format_samples import (
    attribute,
    blob,
    double,
    field,
    linear_program,
    operator,
    pir_linear,
    program,
    variable,
)


def test_a_program_becomes_records() -> None:
    read = read_pdmodel(blob(linear_program()))
    assert read.variables["feed"] == Variable("feed", None, None, True)
    assert read.variables["x"] == Variable("x", "float32", (-1, 3), False)
    assert read.operators[1] == Operator(
        "fc", {"Input": ("x",), "W": ("w",), "Bias": ("b",)}, {"Out": ("y",)}, {"axis": -1}
    )
    assert (read.feeds, read.fetches) == (("x",), ("y",))


def test_parameters_are_sorted_by_name_without_feed_and_fetch() -> None:
    assert [each.name for each in read_pdmodel(blob(linear_program())).parameters] == ["b", "w"]


def test_feeds_follow_their_column() -> None:
    feeds = [
        operator("feed", {"X": ["feed"]}, {"Out": [f"x{column}"]}, [attribute("col", 0, field(3, column))])
        for column in (1, 0)
    ]
    assert read_pdmodel(blob(program([], feeds))).feeds == ("x0", "x1")


def test_a_column_that_is_no_number_is_the_first() -> None:
    feeds = [
        operator("feed", {"X": ["feed"]}, {"Out": [name]}, [attribute("col", *column)])
        for name, column in (("b", (0, field(3, 1))), ("a", (2, field(5, "1"))))
    ]
    assert read_pdmodel(blob(program([], feeds))).feeds == ("a", "b")


def test_an_array_of_tensors_is_no_tensor() -> None:
    tensor_array = 13
    read = read_pdmodel(blob(program([variable("steps", (2,), kind=tensor_array)])))
    assert read.variables["steps"] == Variable("steps", None, None, True)
    assert read.parameters == ()


@pytest.mark.parametrize("read", [read_pdmodel, read_pir])
def test_programs_of_absurd_size_are_not_parsed(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[read.__module__], "MAX_PROGRAM_BYTES", 10)
    data = linear_program() if read is read_pdmodel else pir_linear()
    with pytest.raises(FormatError, match="refused: [0-9,]+ bytes or more, where a program has 10 at most"):
        read(blob(data))


@pytest.mark.parametrize("read", [read_pdmodel, read_pir])
def test_nor_are_programs_of_too_many_parts(read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes are an operator, which takes hundreds in memory."""
    module = sys.modules[read.__module__]
    data = linear_program() if read is read_pdmodel else pir_linear()
    monkeypatch.setattr(module, "MOST_OPERATORS", 2)
    with pytest.raises(FormatError, match="refused: [0-9]+ operators or more, where a program has 2 at most"):
        read(blob(data))
    monkeypatch.setattr(module, "MOST_FIELDS", 20)
    monkeypatch.setattr(module, "_FEW_BYTES", 0, raising=False)
    with pytest.raises(FormatError, match="refused: [0-9]+ (fields|values) or more, where a program has 20 at most"):
        read(blob(data))


FRAME = 5  # fields of a program without variables and operators: a block, its two numbers, a version and its number


@pytest.mark.parametrize(("data", "fields"), [
    (program([]), FRAME),
    (program([], [operator("", {}, {})] * 1000), FRAME + 2000),
    (program([], [operator("any", {}, {}, [attribute("packed", 3, field(6, bytes(500)))])]), FRAME + 6 + 500),
    (program([], [operator("any", {}, {}, [attribute("packed", 4, field(7, bytes(500)))])]), FRAME + 6 + 125),
    (program([], [operator("any", {"X": [""] * 300}, {})]), FRAME + 4 + 300),
    (field(99, "unknown") + double(98, 0.5), 2),
    (b"\xff" * 50, 1),
    (b"", 0),
])  # fmt: skip
def test_fields_are_counted_before_they_take_memory(data: bytes, fields: int) -> None:
    assert _fields(data, "Program") == fields


def test_no_more_is_counted_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[read_pdmodel.__module__], "MOST_FIELDS", 10)
    assert _fields(linear_program(), "Program") == 11


ATTRIBUTES = {
    "int": (attribute("int", 0, field(3, -7)), -7),
    "float": (attribute("float", 1, field(4, 0.5)), 0.5),
    "string": (attribute("string", 2, field(5, "grün")), "grün"),
    "ints": (attribute("ints", 3, field(6, 1), field(6, -1)), [1, -1]),
    "packed ints": (attribute("packed ints", 3, field(6, b"\x01\x02")), [1, 2]),
    "floats": (attribute("floats", 4, field(7, 0.25), field(7, 2.0)), [0.25, 2.0]),
    "strings": (attribute("strings", 5, field(8, "a"), field(8, "")), ["a", ""]),
    "bool": (attribute("bool", 6, field(10, 1)), True),
    "bools": (attribute("bools", 7, field(11, 0), field(11, 1)), [False, True]),
    "block": (attribute("block", 8, field(12, 2)), 2),
    "long": (attribute("long", 9, field(13, 2**40)), 2**40),
    "blocks": (attribute("blocks", 10, field(14, 1), field(14, 2)), [1, 2]),
    "longs": (attribute("longs", 11, field(15, -(2**40))), [-(2**40)]),
    "float64s": (attribute("float64s", 12, double(16, 0.1)), [0.1]),
    "var": (attribute("var", 13, field(17, "x")), "x"),
    "vars": (attribute("vars", 14, field(18, "x"), field(18, "y")), ["x", "y"]),
    "float64": (attribute("float64", 15, double(19, 0.1)), 0.1),
    "scalar bool": (attribute("scalar bool", 16, field(20, field(1, 1) + field(2, 1))), True),
    "scalar long": (attribute("scalar long", 16, field(20, field(1, 2) + field(3, -3))), -3),
    "scalar float": (attribute("scalar float", 16, field(20, field(1, 3) + double(4, 0.1))), 0.1),
    "scalar complex": (
        attribute("scalar complex", 16, field(20, field(1, 4) + field(5, double(1, 1.0) + double(2, -2.0)))),
        1 - 2j,
    ),
    "scalars": (attribute("scalars", 17, field(21, field(1, 2) + field(3, 4))), [4]),
    "absent value": (attribute("absent value", 0), 0),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_plain_values(name: str) -> None:
    encoded, expected = ATTRIBUTES[name]
    (read,) = read_pdmodel(blob(program([], [operator("any", {}, {}, [encoded])]))).operators
    assert read.attributes == {name: expected}
    assert type(read.attributes[name]) is type(expected)


REFUSED = {
    "no block": (program([], blocks=0), "has no block"),
    "cut short": (linear_program()[:-20], "cut short, damaged"),
    "an attribute without type": (program([], [operator("any", {}, {}, [field(1, "odd")])]), "cut short, damaged"),
    "a variable twice": (program([variable("w", (1,)), variable("w", (2,))]), "'w' stands in it twice"),
    "unknown attribute type": (
        program([], [operator("any", {}, {}, [attribute("odd", 99)])]), "attribute 'odd' has type 99"),
    "unknown kind of number": (
        program([], [operator("any", {}, {}, [attribute("odd", 16, field(20, field(1, 9)))])]), "a number has type 9"),
    "a name that is no text": (program([], [operator("any", {}, {b"\xff": []})]), r"a name is b'\\xff', which is not"),
    "a name with a line end": (program([variable("w\n", (1,))]), r"a name is b'w\\n', which is not"),
    "an attribute that is no text": (
        program([], [operator("any", {}, {}, [attribute("odd", 2, field(5, b"\xff"))])]), "attribute is not UTF-8"),
    "a web page": (b"<!DOCTYPE html><html>", "is a web page, not a .pdmodel"),
    "nothing": (b"", "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_network_is_refused_in_one_line(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(FormatError, match=message) as caught:
        read_pdmodel(blob(data, "model.pdmodel"))
    assert str(caught.value).startswith("model.pdmodel")
    assert "\n" not in str(caught.value)


def test_the_bodies_of_loops_and_branches_are_read_apart() -> None:
    body = field(1, 1) + field(2, 0) + field(4, operator("increment", {"X": ["i"]}, {"Out": ["i"]}))
    read = read_pdmodel(blob(linear_program() + field(1, body)))
    assert [each.type for each in read.operators] == ["feed", "fc", "fetch"]
    assert [each.type for each in read.inner] == ["increment"]
    assert "i" not in read.variables


def test_a_program_is_built_again_with_other_shapes_and_nothing_else_changes() -> None:
    data = linear_program()
    again = read_pdmodel(blob(rebuilt_pdmodel(blob(data), [0, 1, 2], {"w": (3, 300)})))
    read = read_pdmodel(blob(data))
    assert again.variables == read.variables | {"w": Variable("w", "float32", (3, 300), True)}
    assert (again.operators, again.pir) == (read.operators, False)


def test_released_programs_are_built_again_with_all_that_was_read(mirror: Path) -> None:
    archive = mirror / "PP-OCRv3/chinese/ch_PP-OCRv3_det_infer.tar"
    with tarfile.open(archive) as tar:
        data = tar.extractfile("ch_PP-OCRv3_det_infer/inference.pdmodel").read()
    released = Blob("inference.pdmodel", memoryview(data))
    read = read_pdmodel(released)
    assert (len(read.operators), len(read.parameters)) == (238, 288)
    again = read_pdmodel(blob(rebuilt_pdmodel(released, range(238))))
    assert (again.operators, again.parameters) == (read.operators, read.parameters)
