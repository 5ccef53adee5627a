"""Shapes without computing: what PyTorch's functions return, and what they refuse; and how large a network may be."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paddle2torch.architectures.graph.form import Graph, Node, Parameter
from paddle2torch.architectures.graph.operators import OPERATORS
from paddle2torch.converter.graph import shapes, trace
from paddle2torch.converter.graph.shapes import BudgetError, result_of, stand_in
from paddle2torch.converter.graph.trace import _arguments, _name, trace_graph, trace_module
from paddle2torch.converter.support.errors import FormatError

WEIGHTS = [torch.zeros(16, 5), torch.zeros(16, 4), torch.zeros(16), torch.zeros(16)]
WEIGHTS_2 = [*WEIGHTS, *WEIGHTS, *[torch.zeros(16, 8), *WEIGHTS[1:]] * 2]
STATE = torch.zeros(1, 3, 4)
X = torch.zeros(2, 6, 9, 8)
CALLS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "conv2d": (torch.conv2d, [X, torch.zeros(4, 3, 3, 2), torch.zeros(4), (2, 1), (1, 0), 2, 2]),
    "conv2d of the same size": (F.conv2d, [X, torch.zeros(4, 6, 3, 3), None, 1, "same", 2]),
    "conv2d of valid pixels": (F.conv2d, [X, torch.zeros(4, 6, 3, 3), None, 2, "valid"]),
    "conv_transpose2d": (
        torch.conv_transpose2d,
        [X, torch.zeros(6, 2, 3, 2), torch.zeros(4), (2, 3), 1, (1, 0), 2, (1, 2)],
    ),
    "linear": (F.linear, [torch.zeros(2, 3, 5), torch.zeros(4, 5), torch.zeros(4)]),
    "batch_norm": (F.batch_norm, [torch.zeros(2, 3, 5, 4), *[torch.zeros(3)] * 4]),
    "batch_norm of three axes": (F.batch_norm, [torch.zeros(2, 3, 5), *[torch.zeros(3)] * 4]),
    "layer_norm": (F.layer_norm, [torch.zeros(2, 3, 5), (3, 5), torch.zeros(3, 5), torch.zeros(3, 5)]),
    "prelu": (F.prelu, [X, torch.zeros(6)]),
    "softmax": (torch.softmax, [torch.zeros(2, 3, 4), -1]),
    "log_softmax": (torch.log_softmax, [torch.zeros(2, 3, 4), 0]),
    "relu": (torch.relu, [torch.zeros(2, 3, 4)]),
    "hardswish": (F.hardswish, [torch.zeros(2, 3, 4)]),
    "gelu": (F.gelu, [torch.zeros(2, 3, 4)]),
    "add": (torch.add, [torch.zeros(2, 3, 4), torch.zeros(3, 1)]),
    "add of integers": (torch.add, [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3)]),
    "floor_divide": (torch.floor_divide, [torch.zeros(2, 3, dtype=torch.int64) + 1, 2]),
    "greater": (torch.gt, [torch.zeros(2, 3, 4), 0.5]),
    "where": (torch.where, [torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, 3), torch.zeros(3)]),
    "clamp": (torch.clamp, [torch.zeros(2, 3), 0.0, 1.0]),
    "matmul": (torch.matmul, [torch.zeros(2, 1, 3, 5), torch.zeros(4, 5, 6)]),
    "matmul of a vector": (torch.matmul, [torch.zeros(2, 3, 5), torch.zeros(5)]),
    "matmul of vectors": (torch.matmul, [torch.zeros(5), torch.zeros(5)]),
    "max_pool2d": (F.max_pool2d, [X, (3, 2), 2, 1, 1, True]),
    "avg_pool2d": (F.avg_pool2d, [X, 3, None, (1, 0), False, False]),
    "adaptive_avg_pool2d": (F.adaptive_avg_pool2d, [X, (1, 2)]),
    "adaptive_max_pool2d": (F.adaptive_max_pool2d, [X, 3]),
    "interpolate by factors": (F.interpolate, [X, None, (1.5, 2.0)]),
    "interpolate to a size": (F.interpolate, [X, 7, None, "bilinear", False]),
    "pad": (F.pad, [X, (1, 2, 0, -1)]),
    "pad by reflection": (F.pad, [X, (1, 2, 3, 1), "reflect"]),
    "cat": (torch.cat, [[X, torch.zeros(2, 1, 9, 8)], 1]),
    "stack": (torch.stack, [[X, X, X], -1]),
    "mean": (torch.mean, [X, (2, -1), True]),
    "sum": (torch.sum, [X, 1]),
    "amax": (torch.amax, [X, (1, 3), False]),
    "prod": (torch.prod, [X, 2, True]),
    "argmax": (torch.argmax, [X, 1, True]),
    "argmax of all": (torch.argmax, [X]),
    "index_select": (torch.index_select, [X, 2, torch.zeros(4, dtype=torch.int64)]),
    "to": (torch.Tensor.to, [X, torch.int64]),
    "full_like": (torch.full_like, [X, 3.0]),
    "full": (torch.full, [(2, 3), 7]),
    "new_zeros": (torch.Tensor.new_zeros, [X.double(), 2, 3]),
    "arange": (torch.arange, [5]),
    "lstm": (torch.lstm, [torch.zeros(7, 3, 5), [STATE, STATE], WEIGHTS, True, 1, 0.0, False, False, False]),
    "lstm, first batch": (
        torch.lstm,
        [torch.zeros(3, 7, 5), [STATE, STATE], WEIGHTS[:2], False, 1, 0.0, False, False, True],
    ),
    "lstm, two layers and ways": (
        torch.lstm,
        [torch.zeros(7, 3, 5), [torch.zeros(4, 3, 4)] * 2, WEIGHTS_2, True, 2, 0.0, False, True, False],
    ),
    "a function without a rule": (torch.cumsum, [X, 1]),
}


def told(function: Callable[..., Any], given: list[Any]) -> list[torch.Tensor]:
    """What a trace takes for a function's results; tensors may be on the meta device."""
    result = result_of(_name(function), function, given, {}, _arguments(function, given, {}))
    return list(result) if isinstance(result, tuple) else [result]


def computed(function: Callable[..., Any], given: list[Any]) -> list[torch.Tensor]:
    result = function(*given)
    return list(result) if isinstance(result, tuple) else [result]


def on_meta(value: Any) -> Any:
    if isinstance(value, list):
        return [on_meta(each) for each in value]
    return value.to("meta") if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_shapes_and_types_are_those_that_computing_gives(case: str, place: str) -> None:
    function, given = CALLS[case]
    found = told(function, on_meta(given) if place == "meta" else given)
    expected = computed(function, given)
    assert [(tuple(each.shape), each.dtype) for each in found] == [(tuple(each.shape), each.dtype) for each in expected]
    assert {each.device.type for each in found} == {"cpu"}


def misfits(given: list[Any]) -> Iterator[list[Any]]:
    """The arguments with every tensor in turn of another size or number of axes, and with lists too short."""
    for place, each in enumerate(given):
        if isinstance(each, list):
            for changed in (each[:-1], *misfits(each)):
                yield [*given[:place], changed, *given[place + 1 :]]
        if isinstance(each, torch.Tensor):
            longer = torch.zeros(*each.shape[:-1], each.shape[-1] + 1, dtype=each.dtype)
            for wrong in (longer, each[None], each[..., :0] if each.dim() else each):
                yield [*given[:place], wrong, *given[place + 1 :]]


@pytest.mark.parametrize("case", CALLS)
def test_what_pytorch_refuses_is_refused(case: str) -> None:
    """And what it takes is taken, but for a few things that it takes and no network of ours gives."""
    function, given = CALLS[case]
    for changed in misfits(given):
        try:
            found = told(function, changed)
        except (ValueError, RuntimeError, IndexError, TypeError):
            continue
        assert function is not torch.lstm  # PyTorch does not check all that it is given, and may crash
        expected = computed(function, changed)
        assert [tuple(each.shape) for each in found] == [tuple(each.shape) for each in expected]


@pytest.mark.parametrize(("function", "given"), [
    (F.conv2d, [torch.zeros(1, 3, 2, 2), torch.zeros(4, 3, 3, 3)]),  # a kernel larger than the image
    (F.conv2d, [torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 3, 3), None, 0]),
    (F.conv2d, [torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 3, 3), None, 1, "sane"]),
    (F.conv2d, [torch.zeros(1, 3, 8, 8), torch.zeros(4, 1, 3, 3), None, 1, 0, 1, 3]),  # groups that do not divide
    (F.conv_transpose2d, [torch.zeros(1, 4, 8, 8), torch.zeros(4, 1, 3, 3), None, 1, 0, 0, 3]),
    (F.conv_transpose2d, [torch.zeros(1, 4, 8, 8), torch.zeros(4, 1, 3, 3), None, 1, 0, 2]),
    (F.max_pool2d, [X, 2, 1, 2]),
    (F.max_pool2d, [X, 10]),
    (F.pad, [X, (1, 2, 3)]),
    (F.pad, [X, (8, 0), "reflect"]),
    (F.interpolate, [X, (3, 0)]),
    (F.interpolate, [X, (3, 4, 5)]),
    (torch.softmax, [torch.zeros(2, 3), 2]),
    (torch.softmax, [torch.zeros(2, 3), -3]),
    (torch.cat, [[X, X[..., 1:]], 1]),
    (torch.stack, [[X, X[..., 1:]]]),
    (torch.mean, [X, 4]),
    (torch.index_select, [X, 4, torch.zeros(1, dtype=torch.int64)]),
])  # fmt: skip
def test_arguments_that_pytorch_refuses_are_refused(function: Callable[..., Any], given: list[Any]) -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        function(*given)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        told(function, given)


@pytest.mark.parametrize("kind", ["conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d"])
def test_sizes_of_windows_are_those_of_pytorch(kind: str) -> None:
    random, taken, refused = np.random.default_rng(0), 0, 0
    for _ in range(1500):
        pick = lambda low, high: tuple(map(int, random.integers(low, high, 2)))  # noqa: E731
        x, stride, padding, dilation = torch.zeros(1, 2, *pick(1, 9)), pick(0, 4), pick(-1, 4), pick(0, 4)
        ceil = bool(random.integers(2))
        function = getattr(F, kind)
        if kind == "conv2d":
            given = [x, torch.zeros(2, 2, *pick(1, 5)), None, stride, padding, dilation]
        elif kind == "conv_transpose2d":
            given = [x, torch.zeros(2, 2, *pick(1, 5)), None, stride, padding, pick(-1, 3), 1, dilation]
        else:
            given = [x, pick(1, 5), stride, padding, *([dilation] if kind == "max_pool2d" else []), ceil]
        try:
            expected = function(*given).shape
        except RuntimeError:
            with pytest.raises(ValueError):
                told(function, given)
            refused += 1
        else:
            assert told(function, given)[0].shape == expected, given[1:]
            taken += 1
    assert min(taken, refused) > 30


def test_stand_ins_take_no_memory() -> None:
    tracemalloc.start()
    each = stand_in((1, 3, 9000, 9000))
    assert told(F.relu, [each])[0].shape == each.shape
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert each.untyped_storage().nbytes() == 4


# ---- budgets -------------------------------------------------------------------------------------------------------


def graph(*nodes: Node, shape: tuple[int, ...] = (-1, 3, -1, -1), **parameters: tuple[int, ...]) -> Graph:
    """From `x` to the last node's value."""
    described = {name: Parameter(None, size, "float32") for name, size in parameters.items()}
    return Graph({"x": shape}, (nodes[-1].outputs[0],), nodes, described)


def node(kind: str, *given: str, slot: str = "x", to: str = "y", **attributes: Any) -> Node:
    slots = (
        {slot: given}
        if len(given) == 1 or kind in ("concat", "stack")
        else dict(zip("xy", ((each,) for each in given), strict=False))
    )
    return Node(kind, slots if given else {}, (to,), attributes)


def doubling(times: int) -> Iterator[Node]:
    for place in range(times):
        value = f"v{place - 1}" if place else "x"
        yield node("concat", value, value, to=f"v{place}", axis=3)


def counting(times: int, kind: str, start: int = 9) -> Iterator[Node]:
    """Sizes that grow: a number, and its product with or power of itself, again and again."""
    yield node("constant", to="n", values=[start], shape=[1], dtype="int64")
    for place in range(times):
        value = f"n{place - 1}" if place else "n"
        yield node(kind, value, value, to=f"n{place}")
    yield Node("reshape", {"x": ("x",), "shape": (f"n{times - 1}",)}, ("y",), {})


BOMBS = {
    "doubling": graph(*doubling(40)),
    "full": graph(Node("full", {}, ("y",), {"shape": [1, 3, 18000, 18000], "value": 1.0, "dtype": "float32"})),
    "full of sizes": graph(Node("full", {}, ("y",), {"shape": [10**9], "value": 1.0, "dtype": "int64"})),
    "full_batch": graph(Node("full_batch", {"x": ("x",)}, ("y",), {
        "shape": [1, 10**9], "value": 1.0, "dtype": "float32", "input_axis": 0, "output_axis": 0})),
    "tile": graph(node("tile", "x", repeats=[1, 1, 1000, 1900])),
    "expand": graph(node("expand", "x", shape=[10**9, -1, -1, -1])),
    "tile of a constant": graph(
        Node("constant", {}, ("c",), {"values": [1.0], "shape": [1], "dtype": "float32"}), node("tile", "c", repeats=[10**9])),
    "pad": graph(node("pad", "x", padding=[10**6] * 4)),
    "interpolate": graph(node("interpolate", "x", size=[10**5, 10**5], mode="nearest", align_corners=False)),
    "interpolate with aligned corners": graph(node("interpolate", "x", size=[10**9, 1], mode="nearest", align_corners=True)),
    "interpolate by a factor": graph(node("interpolate", "x", scale=[1e6, 1e6], mode="nearest", align_corners=False)),
    "outer sum": graph(
        node("full", to="a", shape=[10**6, 1], value=1.0, dtype="float32"), node("full", to="b", shape=[1, 10**6], value=1.0, dtype="float32"),
        node("add", "a", "b")),
    "outer product": graph(
        node("full", to="a", shape=[10**6, 1], value=1.0, dtype="float32"), node("full", to="b", shape=[1, 10**6], value=1.0, dtype="float32"),
        node("matmul", "a", "b")),
    "many axes": graph(node("unsqueeze", "x", axes=[0] * 100_000)),
    "powers": graph(*counting(3, "power")),
    "products": graph(*counting(200, "multiply")),
    "sums of lists": graph(
        node("constant", to="v0", values=[1], shape=[1], dtype="int64"),
        *(node("concat", f"v{n}", f"v{n}", to=f"v{n + 1}", axis=0) for n in range(40))),
    "factors": graph(
        node("shape", "x", to="s"), node("scale", "s", to="t", factor=1e300), Node("reshape", {"x": ("x",), "shape": ("t",)}, ("y",), {})),
    "pieces": graph(
        node("full", to="a", shape=[4 * 10**6, 1], value=1.0, dtype="float32"), Node("unbind", {"x": ("a",)}, ("y",), {"axis": 0})),
    "parts": graph(
        node("full", to="a", shape=[4 * 10**6, 1], value=1.0, dtype="float32"), Node("split", {"x": ("a",)}, ("y",), {"axis": 0, "parts": 4 * 10**6})),
    "axis": graph(node("full", to="a", shape=[3], value=1.0, dtype="float32"), node("add", "x", "a", axis=-(10**8))),
    "steps": graph(*(node("relu", f"v{n - 1}" if n else "x", to=f"v{n}") for n in range(20_000))),
    "places": graph(*(node("transpose", f"v{n - 1}" if n else "x", to=f"v{n}", axes=[0, 1, 3, 2]) for n in range(5000))),
    "cells": graph(Node("lstm", {"x": ("x",), "weights": ("p",) * 4}, ("y",), {
        "hidden_size": 1, "num_layers": 10**9, "bidirectional": False}), p=(4,)),
    "operands": graph(node("concat", *["x"] * 100_000, axis=1)),
    "operands of a stack": graph(node("stack", *["x"] * 100_000, axis=0)),
    "an input": graph(node("relu", "x"), shape=(1, 3, 10**6, 10**6)),
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_a_small_graph_that_is_huge_is_refused_at_once(case: str) -> None:
    bomb = BOMBS[case]
    size = next(iter(bomb.inputs.values()))[2:]
    started = time.process_time()
    tracemalloc.start()
    try:
        found = trace_graph(bomb, {}, (1, 3, *(each if each > 0 else 320 for each in size)), "small.tar")
        assert found.failure is not None
        assert len(found.failure) < 300
    except FormatError as error:
        assert str(error).startswith("small.tar: ")
        assert len(str(error)) < 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - started < 5
    assert peak < 256 << 20


def test_what_is_repeated_is_counted_before_it_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace.Operand, "rearranged", lambda *_: pytest.fail("its places were worked out"))
    with pytest.raises(FormatError, match="refused: it rearranges more elements"):
        trace_graph(BOMBS["tile"], {}, (1, 3, 320, 320))


def test_a_graph_that_returns_sizes_returns_no_tensor() -> None:
    assert trace_graph(graph(node("shape", "x")), {}, (1, 3, 4, 5)).failure == "it returns what is no tensor"


def test_what_is_too_large_is_told() -> None:
    with pytest.raises(
        FormatError, match=r"^small\.tar: refused: it computes a value of the sizes \[1, 3, 100000, 100000\]"
    ):
        trace_graph(BOMBS["interpolate"], {}, (1, 3, 320, 320), "small.tar")
    with pytest.raises(FormatError, match="refused: it takes more than 6,000 steps, which no network does"):
        trace_graph(BOMBS["steps"], {}, (1, 3, 320, 320))
    with pytest.raises(FormatError, match="refused: it rearranges more elements than any network does"):
        trace_graph(BOMBS["places"], {}, (1, 3, 320, 320))


def test_a_module_has_a_budget_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST_CALLS", 3)
    with pytest.raises(BudgetError):
        trace_module(nn.Sequential(*[nn.ReLU()] * 4), (1, 3))
    monkeypatch.setattr(shapes, "MOST_COMPUTED", 10)
    with pytest.raises(BudgetError, match="cumsum is given or makes more elements"):
        told(torch.cumsum, [X, 1])


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_of_graphs_all_have_rules(kind: str) -> None:
    """So that nothing of a graph is computed: neither memory nor time depend on sizes that it names."""
    large = stand_in((1, 4, 2048, 2048))
    flags = {
        "add": {}, "argmax": {"axis": 1, "keepdim": False, "dtype": "int64"}, "cast": {"dtype": "float16"},
        "clip": {"minimum": 0.0, "maximum": 1.0}, "concat": {"axis": 1}, "dropout": {"p": 0.5, "upscale": False},
        "elu": {"alpha": 1.0}, "expand": {"shape": [1, 4, 2048, 2048]}, "flatten": {"start": 1, "stop": -1}, "flip": {"axes": [2]},
        "full_like": {"value": 1.0, "dtype": None}, "gelu": {"approximate": False}, "hard_sigmoid": {"slope": 0.2, "offset": 0.5},
        "interpolate": {"size": [4, 4], "mode": "nearest", "align_corners": True}, "leaky_relu": {"slope": 0.1},
        "log_softmax": {"axis": 1}, "pad": {"padding": [1, 1]}, "pad_same": {"kernel": [3, 3], "stride": [2, 2]},
        "adaptive_pool2d": {"kind": "max", "size": [1, 1]},
        "pool2d": {"kind": "avg", "kernel": [3, 3], "stride": [2, 2], "padding": [0, 1, 0, 1], "ceil_mode": False, "exclusive": True},
        "reshape": {"shape": [0, -1]}, "scale": {"factor": 2.0, "bias": 1.0}, "slice": {"starts": [1], "ends": [9], "axes": [2], "squeezed": []},
        "softmax": {"axis": 1}, "softplus": {"beta": 1.0, "threshold": 20.0}, "split": {"axis": 1, "parts": 2}, "squeeze": {"axes": [0]},
        "stack": {"axis": 0}, "swish": {"beta": 1.5}, "tile": {"repeats": [1, 1, 1, 1]}, "transpose": {"axes": [0, 2, 3, 1]}, "unbind": {"axis": 1},
        "unsqueeze": {"axes": [0]}, **{name: {"axes": [2], "keepdim": True} for name in ("mean", "sum", "max", "min", "prod")},
    }  # fmt: skip
    others = {
        "conv2d": ([torch.zeros(2, 4, 3, 3)], {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}),
        "conv2d_transpose": ([torch.zeros(4, 2, 2, 2)], {
            "stride": [2, 2], "padding": [0, 0], "output_padding": [0, 0], "dilation": [1, 1], "groups": 1}),
        "batch_norm": ([torch.zeros(4)] * 4, {"epsilon": 1e-5, "momentum": 0.9}),
        "layer_norm": ([torch.zeros(2048)] * 2, {"axis": -1, "epsilon": 1e-5}),
        "linear": ([torch.zeros(2048, 8)], {"transposed": True}),
        "prelu": ([torch.zeros(4)], {}),
        "gather": ([torch.zeros(3, dtype=torch.int64)], {"axis": 1}),
        "where": ([large, large], {}),
        "full_batch": ([], {"shape": [1, 9], "value": 1.0, "dtype": "float32", "input_axis": 0, "output_axis": 0}),
    }  # fmt: skip
    if kind in ("shape", "full", "constant", "lstm"):  # nothing large is given to them
        return
    more, attributes = others.get(kind, ([], flags.get(kind, {})))
    if kind in ("matmul", "maximum", "minimum", "power", "remainder", "subtract", "multiply", "divide", "floor_divide", "add",
                "equal", "not_equal", "less_than", "less_equal", "greater_than", "greater_equal", "logical_and", "logical_or"):  # fmt: skip
        more = [large]

    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            given = [x, x] if kind in ("concat", "stack") else x
            return OPERATORS[kind](x > 0 if kind == "where" else given, *more, **attributes)

    found = trace_module(Network(), (1, 4, 2048, 2048))
    assert found.failure is None
