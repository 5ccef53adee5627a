"""The graph form: from programs, to JSON and back, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from paddle2torch.architectures.graph.form import Graph, GraphError, graph_from_json, graph_to_json
from paddle2torch.converter.formats.pdmodel import Operator, Program, Variable
from paddle2torch.converter.graph.program import UncoveredError, graph_from_program
from support.graphs import embedded

CONV = {"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1}


def program(*operators: Operator, **shapes: tuple[int, ...]) -> Program:
    """A `.pdmodel` program from x to y; variables that begin with p are parameters."""
    names = {"x", *shapes, *(name for each in operators for slot in each.outputs.values() for name in slot)}
    variables = {
        name: Variable(name, "float32", shapes.get(name, (-1, 3, -1, -1)), name.startswith("p")) for name in names
    }
    ends = Operator("feed", {}, {"Out": ("x",)}, {}), Operator("fetch", {"X": ("y",)}, {}, {})
    return Program(variables, (ends[0], *operators, ends[1]))


def unary(kind: str, source: str, target: str, **attributes: Any) -> Operator:
    return Operator(kind, {"X": (source,)}, {"Out": (target,)}, attributes)


def conv(source: str, target: str, **attributes: Any) -> Operator:
    slots = {"Input": (source,), "Filter": ("p_weight",)}
    return Operator("conv2d", slots, {"Output": (target,)}, CONV | attributes)


def add(first: str, second: str, target: str, axis: int = -1) -> Operator:
    return Operator("elementwise_add", {"X": (first,), "Y": (second,)}, {"Out": (target,)}, {"axis": axis})


def types(graph: Graph) -> list[str]:
    return [node.type for node in graph.nodes]


# ---- from a program ----------------------------------------------------------------------------------------------


def test_all_uncovered_operators_are_listed_at_once_with_counts() -> None:
    bad = program(
        unary("fft_c2r", "x", "a"),
        unary("fft_c2r", "a", "b"),
        conv("b", "c", data_format="NHWC"),
        unary("relu6", "c", "d", threshold=5.0),
        unary("dead_end", "d", "e"),
        unary("relu", "d", "y"),
        p_weight=(3, 3, 1, 1),
    )
    with pytest.raises(UncoveredError) as caught:
        graph_from_program(bad)
    assert caught.value.uncovered == {
        "fft_c2r": 2,
        "conv2d with data_format=NHWC": 1,
        "relu6 with threshold=5.0": 1,
        "dead_end": 1,
    }
    assert (
        "5 operators that cannot be turned into PyTorch: conv2d with data_format=NHWC (1), dead_end (1), fft_c2r (2)"
        in str(caught.value)
    )


def test_missing_attributes_are_told_not_raised() -> None:
    with pytest.raises(UncoveredError, match="pool2d with an attribute or operand that is missing or odd"):
        graph_from_program(program(unary("pool2d", "x", "y", ksize=[2, 2], pooling_type="avg")))


def test_a_computed_axis_is_refused() -> None:
    concat = Operator("concat", {"X": ("x", "x"), "AxisTensor": ("a",)}, {"Out": ("y",)}, {"axis": 0})
    with pytest.raises(UncoveredError, match="concat with a computed axis"):
        graph_from_program(
            program(unary("shape", "x", "s"), Operator("shape", {"Input": ("x",)}, {"Out": ("a",)}, {}), concat)
        )


def test_what_does_nothing_and_what_nobody_reads_is_gone() -> None:
    graph = graph_from_program(
        program(
            unary("assign", "x", "a"),
            unary("relu", "a", "b"),
            unary("exp", "b", "unread"),
            unary("scale", "b", "y", scale=1.0, bias=0.0, bias_after_scale=True),
        )
    )
    assert types(graph) == ["relu"]
    assert graph.outputs == ("b",)


@pytest.mark.parametrize(("layer", "bias", "axis"), [
    (conv("x", "a"), (3,), 1),
    (Operator("matmul_v2", {"X": ("x",), "Y": ("p_weight",)}, {"Out": ("a",)}, {}), (3,), -1),
    (Operator("matmul_v2", {"X": ("x",), "Y": ("p_weight",)}, {"Out": ("a",)}, {}), (3,), 3),
])  # fmt: skip
def test_a_sum_with_a_parameter_per_channel_becomes_the_bias(layer: Operator, bias: tuple[int, ...], axis: int) -> None:
    weight = (3, 3, 1, 1) if layer.type == "conv2d" else (4, 3)
    (node,) = graph_from_program(program(layer, add("a", "p_bias", "y", axis), p_weight=weight, p_bias=bias)).nodes
    assert node.inputs["bias"] == ("p_bias",)
    assert node.outputs == ("y",)


@pytest.mark.parametrize(("shape", "axis"), [((3,), -1), ((3,), 2), ((3, 1), 1), ((2,), 1)])
def test_other_sums_stay_sums(shape: tuple[int, ...], axis: int) -> None:
    graph = graph_from_program(
        program(conv("x", "a"), add("a", "p_bias", "y", axis), p_weight=(3, 3, 1, 1), p_bias=shape)
    )
    assert types(graph) == ["conv2d", "add"]


def test_a_sum_of_a_value_that_others_read_stays_a_sum() -> None:
    graph = graph_from_program(
        program(conv("x", "a"), add("a", "p_bias", "b", 1), add("a", "b", "y"), p_weight=(3, 3, 1, 1), p_bias=(3,))
    )
    assert types(graph) == ["conv2d", "add", "add"]


def test_a_variable_that_is_written_again_is_two_values() -> None:
    graph = graph_from_program(program(unary("relu", "x", "a"), unary("exp", "a", "a"), unary("tanh", "a", "y")))
    relu, exp, tanh = graph.nodes
    assert exp.inputs["x"] == relu.outputs
    assert tanh.inputs["x"] == exp.outputs
    assert len({*relu.outputs, *exp.outputs}) == 2


def test_both_dialects_give_the_same_operators() -> None:
    legacy, pir = embedded("legacy").graph(), embedded("pir").graph()
    assert legacy.operators() == pir.operators()
    assert [(node.type, node.attributes) for node in legacy.nodes] == [
        (node.type, node.attributes) for node in pir.nodes
    ]


# ---- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["legacy", "pir"])
def test_json_brings_the_graph_back(dialect: str) -> None:
    graph = embedded(dialect).graph()
    assert graph_from_json(json.loads(json.dumps(graph_to_json(graph)))) == graph


def change(path: str, value: Any) -> Callable[[Any], None]:
    """Sets what stands at a path such as `nodes.0.type`."""

    def apply(data: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            data = data[int(step)] if isinstance(data, list) else data[step]
        data[int(last) if isinstance(data, list) else last] = value

    return apply


@pytest.mark.parametrize(("damage", "message"), [
    (change("format", "other"), "'other' version 1 where 'paddle2torch-graph' version 1 was expected"),
    (change("version", 2), "version 2 where .* convert the model again, or update"),
    (change("nodes", {}), "is no graph of this converter"),
    (change("nodes.0.type", 5), "is no graph of this converter"),
    (change("nodes.0.attributes", {"stride": {"a": 1}}), "is no graph of this converter"),
    (change("nodes.0.inputs", {"x": ["nowhere"]}), "reads the value 'nowhere', which nothing computes before it"),
    (change("nodes.1.outputs", ["x"]), "the value 'x' is computed twice"),
    (change("outputs", ["nowhere"]), "the network's output reads the value 'nowhere'"),
    (change("parameters", None), "is no graph of this converter"),
    (lambda data: data.pop("inputs"), "'inputs' is missing"),
    (lambda data: next(iter(data["parameters"].values())).update(name="a/b"), "'a/b' cannot be the name of a tensor"),
    (lambda data: next(iter(data["parameters"].values())).update(shape=[-1]), r"has type 'float32', shape \(-1,\)"),
])  # fmt: skip
def test_damaged_graphs_are_refused_with_the_reason(damage: Callable[[Any], None], message: str) -> None:
    data = copy.deepcopy(graph_to_json(embedded("legacy").graph()))
    damage(data)
    with pytest.raises(GraphError, match=message):
        graph_from_json(data, "model.json")


@pytest.mark.parametrize("data", [None, [], 3, {}, "graph"])
def test_other_json_is_refused(data: object) -> None:
    with pytest.raises(GraphError, match=r"model\.json: is no graph"):
        graph_from_json(data, "model.json")
