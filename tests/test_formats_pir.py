"""`inference.json` of Paddle 3: names, attributes and types in the records of a `.pdmodel`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from paddle2torch.converter.formats.pdiparams import read_pdiparams
from paddle2torch.converter.formats.pdmodel import Operator, Variable
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from support.format_samples import blob, pir_attribute, pir_linear, pir_operator, pir_parameter, pir_program, pir_type


def test_a_program_becomes_records() -> None:
    read = read_pir(blob(pir_linear()))
    assert read.variables["x"] == Variable("x", "float32", (-1, 3), False)
    assert read.variables["4.0"] == Variable("4.0", "float32", (-1, 2), False)
    assert read.operators[1:4] == (
        Operator("pd_op.matmul", {"0": ("x",), "1": ("w",), "2": ("",)}, {"0": ("4.0",), "1": ("",)}, {}),
        Operator("builtin.combine", {"0": ("4.0",), "1": ("b",)}, {"0": ("5.0",)}, {}),
        Operator("pd_op.add_n", {"0": ("5.0",)}, {"0": ("6.0",)}, {}),
    )
    assert (read.feeds, read.fetches) == (("x",), ("6.0",))


def test_lists_of_tensors_have_no_type_of_their_own() -> None:
    assert read_pir(blob(pir_linear())).variables["5.0"] == Variable("5.0", None, None, False)


def test_parameters_are_sorted_by_name_without_those_that_no_file_holds() -> None:
    assert read_pir(blob(pir_linear())).parameters == (
        Variable("b", "float32", (2,), True),
        Variable("w", "float32", (3, 2), True),
    )


def test_all_parameters_are_stored_where_nothing_is_said() -> None:
    data = pir_program([pir_parameter(1, "b", (2,), stored=None), pir_parameter(2, "a", (), stored=None)])
    assert [each.name for each in read_pir(blob(data)).parameters] == ["a", "b"]


def test_fetches_follow_their_column() -> None:
    inputs = [
        pir_operator("1.data", (), {n: pir_type(())}, [pir_attribute("name", "0.a_str", f"x{n}")]) for n in (1, 2)
    ]
    outputs = [
        pir_operator("1.fetch", (n,), {n + 2: pir_type(())}, [pir_attribute("col", "0.a_i32", 2 - n)]) for n in (1, 2)
    ]
    read = read_pir(blob(pir_program([*inputs, *outputs])))
    assert (read.feeds, read.fetches) == (("x1", "x2"), ("x2", "x1"))


@pytest.mark.parametrize(
    ("element", "dtype"),
    [("bool", "bool"), ("i8", "int8"), ("ui8", "uint8"), ("i16", "int16"), ("i32", "int32"), ("i64", "int64"),
     ("f16", "float16"), ("bf16", "bfloat16"), ("f32", "float32"), ("f64", "float64")],
)  # fmt: skip
def test_element_types(element: str, dtype: str) -> None:
    (read,) = read_pir(blob(pir_program([pir_parameter(1, "v", (2,), element=element)]))).parameters
    assert read == Variable("v", dtype, (2,), True)


ATTRIBUTES = {
    "bool": ({"#": "0.a_bool", "D": True}, True),
    "int": ({"#": "0.a_i32", "D": -1}, -1),
    "long": ({"#": "0.a_i64", "D": 2**40}, 2**40),
    "float": ({"#": "0.a_f32", "D": 0.5}, 0.5),
    "float without fraction": ({"#": "0.a_f64", "D": 2}, 2.0),
    "infinity": ({"#": "0.a_f64", "VD": "INF"}, math.inf),
    "minus infinity": ({"#": "0.a_f32", "VD": "-INF"}, -math.inf),
    "complex": ({"#": "0.a_c64", "D": [1.0, -2.0]}, 1 - 2j),
    "string": ({"#": "0.a_str", "D": "a\nb"}, "a\nb"),
    "array": ({"#": "0.a_array", "D": [{"#": "0.a_i32", "D": 1}, {"#": "0.a_f32", "D": 0.5}]}, [1, 0.5]),
    "array of arrays": ({"#": "0.a_array", "D": [{"#": "0.a_array", "D": []}]}, [[]]),
    "integers": ({"#": "1.a_intarray", "D": [-1, 3]}, [-1, 3]),
    "scalar": ({"#": "1.a_scalar", "D": ["float32", 0.5]}, 0.5),
    "complex scalar": ({"#": "1.a_scalar", "D": ["complex64", 0.5, 1.0]}, 0.5 + 1j),
    "element type": ({"#": "1.a_dtype", "D": "float32"}, "float32"),
    "type": ({"#": "0.a_type", "D": {"#": "0.t_f32"}}, "float32"),
    "place": ({"#": "1.a_place", "D": [1, 0, ""]}, [1, 0, ""]),
    "none": ({"#": "NULL"}, None),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_plain_values(name: str) -> None:
    content, expected = ATTRIBUTES[name]
    (read,) = read_pir(blob(pir_program([pir_operator("1.any", (), {}, [{"N": name, "AT": content}])]))).operators
    assert read.attributes == {name: expected}
    assert type(read.attributes[name]) is type(expected)


@pytest.mark.parametrize("spelling", ["NaN", "NAN"])
def test_not_a_number(spelling: str) -> None:
    attribute = {"N": "value", "AT": {"#": "0.a_f64", "VD": spelling}}
    (read,) = read_pir(blob(pir_program([pir_operator("1.full", (), {}, [attribute])]))).operators
    assert math.isnan(read.attributes["value"])


def changed(change: Callable[[list[dict]], object]) -> bytes:
    """The linear program after a change to its operators."""
    content = json.loads(pir_linear())
    change(content["program"]["regions"][0]["blocks"][0]["ops"])
    return json.dumps(content).encode()


def with_attribute(content: object) -> bytes:
    return pir_program([pir_operator("1.any", (), {}, [{"N": "a", "AT": content}])])


def nested(depth: int) -> dict:
    content = {"#": "0.a_i32", "D": 1}
    for _ in range(depth):
        content = {"#": "0.a_array", "D": [content]}
    return content


def loops(depth: int) -> dict:
    """The body of a loop, with an operator in it that has a body of its own, and so on."""
    content = {}
    for _ in range(depth):
        inner = pir_operator("1.while", (), {}) | content
        content = {"regions": [{"#": "region_1", "blocks": [{"#": "block_1", "args": [], "ops": [inner]}]}]}
    return content


def test_the_bodies_of_loops_and_branches_are_read_apart() -> None:
    read = read_pir(blob(changed(lambda ops: ops[4].update(loops(2)))))
    assert [each.type for each in read.inner] == ["pd_op.while"] * 2
    assert [each.type for each in read.operators].count("pd_op.while") == 0


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_the_versions_of_the_form_read_alike(version: int) -> None:
    content = json.loads(pir_linear())
    content["base_code"]["version"] = version
    assert read_pir(blob(json.dumps(content).encode())) == read_pir(blob(pir_linear()))


REFUSED = {
    "nothing": (b"", "is empty, not an inference.json"),
    "a web page": (b"<html>", "is a web page"),
    "a program of Paddle 2": (b"\n\x10\x08\x00\x10" + b"\xff" * 9 + b"\x01\x1a", "is a Paddle program, not an inference"),
    "cut short": (pir_linear()[:-30], "is cut short or damaged"),
    "no UTF-8": (b'{"\xff": 1}', "is no JSON that Paddle writes"),
    "endless nesting": (b'{"a":' + b"[" * 100_000, "is no JSON that Paddle writes"),
    "a huge number": (b'{"a":' + b"9" * 100_000 + b"}", "is no JSON that Paddle writes"),
    "other JSON": (b'{"model": 1}', "'base_code' of the file is missing"),
    "another magic": (pir_program([], magic="onnx"), "its magic is not 'pir'"),
    "a list": (b"[{}]", "'base_code' of the file is missing"),
    "no block": (pir_program([], blocks=0), "0 blocks in the first"),
    "two blocks": (pir_program([], blocks=2), "2 blocks in the first"),
    "a loop of loops": (changed(lambda ops: ops[4].update(loops(50))), "loops and branches are nested too deeply"),
    "a body that is none": (changed(lambda ops: ops[4].update(regions={"a": 1})), "'regions' of an operator is missing"),
    "an operator that is none": (changed(lambda ops: ops.append(3)), "'#' of operator 8 is missing"),
    "an operator without operands": (changed(lambda ops: ops[4].pop("I")), r"'I' of operator 4 \(pd_op.matmul\)"),
    "a value from nowhere": (changed(lambda ops: ops[4]["I"].append({"%": 77})), "reads value 77, which nothing computes"),
    "a value from later": (changed(lambda ops: ops[4]["I"].append({"%": 7})), "reads value 7, which nothing computes"),
    "a value that is a truth": (changed(lambda ops: ops[4]["I"].append({"%": True})), "'%' of an operand of operator 4"),
    "a value twice": (changed(lambda ops: ops.insert(5, ops[4])), "value 5 .* is computed twice"),
    "a parameter twice": (pir_program([pir_parameter(n, "w", ()) for n in (1, 2)]), r"value 2 \(w\) is computed twice"),
    "a parameter without name": (changed(lambda ops: ops[0].update(A=[])), "a name is a NoneType"),
    "an input without name": (changed(lambda ops: ops[3].update(A=[])), "a name is a NoneType"),
    "a name with a line end": (changed(lambda ops: ops[0].update(A=["a\nb"])), r"a name is 'a\\nb'"),
    "flags that are none": (changed(lambda ops: ops[0].update(OA={"a": 1})), "flags of parameter 0 are not a list"),
    "a type without shape": (changed(lambda ops: ops[0]["O"]["TT"].update(D=[{}])), "the type of w has no shape"),
    "a shape of fractions": (changed(lambda ops: ops[0]["O"]["TT"].update(D=[{"#": "0.t_f32"}, [0.5]])), "has no shape"),
    "an unknown element": (pir_program([pir_parameter(1, "w", (), element="f4")]), "element type 't_f4', which is not known"),
    "an integer that is none": (with_attribute({"#": "0.a_i32", "D": "1"}), "content of a of operator 0 .* not that of a_i32"),
    "a number that is none": (with_attribute({"#": "0.a_f32", "VD": "ONE"}), "is no number"),
    "a number too large": (with_attribute({"#": "0.a_f32", "D": 10**400}), "not that of a_f32"),
    "an array that is none": (with_attribute({"#": "0.a_array", "D": 1}), "'D' of a of operator 0"),
    "an attribute that is none": (with_attribute(3), "'AT' of a of operator 0"),
    "deep arrays": (with_attribute(nested(50)), "is nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_damage_and_mix_ups_are_told_in_one_line(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(FormatError, match=message) as caught:
        read_pir(blob(data, "inference.json"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


PADDLE = """
import sys
import numpy as np
import paddle
from paddle import nn

class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3, bias_attr=False)
        self.norm = nn.BatchNorm2D(4)
        self.lstm = nn.LSTM(4, 5, direction="bidirectional")
        self.fc = nn.Linear(10, 7)

    def forward(self, image):
        features = nn.functional.hardswish(self.norm(self.conv(image))).mean(axis=2).transpose([0, 2, 1])
        return nn.functional.softmax(self.fc(self.lstm(features)[0]))

net = Net()
net.eval()
folder = sys.argv[1]
paddle.jit.save(net, folder + "/inference", input_spec=[paddle.static.InputSpec([None, 3, 32, None], "float32", "image")])
np.savez(folder + "/expected.npz", **{each.name: each.numpy() for each in net.state_dict().values()})
"""


@pytest.mark.skipif(find_spec("paddle") is None, reason="Paddle is not installed")
def test_what_paddle_saves_is_read(tmp_path: Path) -> None:
    (tmp_path / "save.py").write_text(PADDLE)  # Paddle wants to see the source of what it saves
    subprocess.run(
        [sys.executable, str(tmp_path / "save.py"), str(tmp_path)], check=True, capture_output=True, timeout=300
    )
    program = read_pir(Blob.open(tmp_path / "inference.json"))
    read = read_pdiparams(Blob.open(tmp_path / "inference.pdiparams"), program.parameters)
    expected = dict(np.load(tmp_path / "expected.npz"))
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
    types = [each.type for each in program.operators]
    assert {"pd_op.conv2d", "pd_op.batch_norm_", "pd_op.hardswish", "pd_op.rnn", "pd_op.softmax"} <= set(types)
    assert program.feeds == ("image",)
    assert program.variables[program.fetches[0]].shape == (-1, -1, 7)
