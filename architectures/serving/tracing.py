"""A network as a graph of layers and functions (`torch.fx`): what rewrites ask of it, and how they change it."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..folding import fold
from ..layers import Hardsigmoid02

Layer = TypeVar("Layer", bound=nn.Module)
Function = Callable[..., object]
# What a network may return.
Output: TypeAlias = "Tensor | float | list[Output] | tuple[Output, ...] | dict[str, Output] | None"

ADDITIONS: tuple[Function, ...] = (operator.add, torch.add)
PRODUCTS: tuple[Function, ...] = (operator.mul, torch.mul)
# By type of layer or function: the name that oneDNN's calls have for it.
ACTIVATIONS: dict[type[nn.Module] | Function, str] = {
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "swish",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    F.relu: "relu",
    F.silu: "swish",
    F.hardswish: "hardswish",
    F.hardsigmoid: "hardsigmoid",
    torch.relu: "relu",
    torch.sigmoid: "sigmoid",
}
REFUSED = "the network refuses this input"


class _Tracer(fx.Tracer):
    """Traces down to the layers of `torch.nn`.

    Where a network looks at its input's size, that is to refuse it: tracing goes on as if the condition did not hold,
    and the graph asserts that it does not.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Hardsigmoid02) or super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: fx.Proxy) -> bool:
        passes = self.create_proxy("call_function", operator.not_, (obj,), {})
        self.create_proxy("call_function", torch._assert, (passes, REFUSED), {})
        return False


def trace(model: nn.Module) -> fx.GraphModule:
    """A copy of a network in evaluation mode, re-parameterised layers folded, as a graph of layers and functions.

    Raises:
        ValueError: its control flow depends on more than the sizes of its input.
    """
    model = copy.deepcopy(model).eval()
    fold(model)
    if isinstance(model, fx.GraphModule):
        return model
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"{type(model).__name__} cannot be traced by torch.fx: {error}") from error
    for node in graph.nodes:
        node.type = None  # an annotation; as text it would keep the module from being pickled
    return fx.GraphModule(model, graph)


class Network:
    """A traced network under rewriting.

    Attributes:
        module: layers and graph.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module

    @property
    def nodes(self) -> list[fx.Node]:
        """In execution order; the graph may change while one goes through them."""
        return list(self.module.graph.nodes)

    def layer(self, value: object) -> nn.Module | None:
        """The layer that computes a value; None where no layer does."""
        if isinstance(value, fx.Node) and value.op == "call_module":
            return self.module.get_submodule(str(value.target))
        return None

    def layers(self, *kinds: type[Layer]) -> list[tuple[fx.Node, Layer]]:
        """Calls of layers of some types, without those called at several places: these must stay as they are."""
        calls = [node for node in self.nodes if node.op == "call_module"]
        count = Counter(node.target for node in calls)
        return [
            (node, layer) for node in calls if isinstance(layer := self.layer(node), kinds) and count[node.target] == 1
        ]

    def activation(self, value: object) -> str | None:
        """oneDNN's name of the activation that computes a value; None where something else does."""
        if not isinstance(value, fx.Node) or len(value.all_input_nodes) != 1:
            return None
        layer = self.layer(value)
        if layer is not None:
            return ACTIVATIONS.get(type(layer))
        return ACTIVATIONS.get(value.target) if callable(value.target) else None

    def insert(self, before: fx.Node, layer: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Add a layer, and call it where `before` stands."""
        name = f"optimized_{len(self.module._modules)}_{type(layer).__name__.lower()}"
        self.module.add_module(name, layer.eval())
        with self.module.graph.inserting_before(before):
            return self.module.graph.call_module(name, inputs)

    def insert_function(self, before: fx.Node, function: Function, *arguments: fx.Node | float) -> fx.Node:
        """Call a function where `before` stands."""
        with self.module.graph.inserting_before(before):
            return self.module.graph.call_function(function, arguments)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Have all that read a value read another one; what nothing reads any more is gone."""
        old.replace_all_uses_with(new)
        self.module.graph.eliminate_dead_code()

    def finish(self) -> fx.GraphModule:
        """The module with its code generated and without layers that it does not call."""
        self.module.delete_all_unused_submodules()
        self.module.graph.lint()
        self.module.recompile()
        return self.module


# ---- single values -----------------------------------------------------------------------------------------------


def source(node: fx.Node) -> fx.Node:
    """The first value that a node reads."""
    return node.all_input_nodes[0]


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that reads a value; None where several do."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def calls(value: object, *functions: Function) -> bool:
    """Whether a value is computed by one of these functions."""
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target in functions


def operands(value: object, functions: tuple[Function, ...]) -> tuple[fx.Node, fx.Node] | None:
    """Both values from which one of these functions computes a value; None where that is not so."""
    if isinstance(value, fx.Node) and calls(value, *functions) and not value.kwargs:
        match value.args:
            case (fx.Node() as first, fx.Node() as second):
                return first, second
    return None


def summands(value: object) -> Iterator[tuple[fx.Node, fx.Node]]:
    """The two values that a value is the sum of, in both orders; nothing where it is no sum of two."""
    if pair := operands(value, ADDITIONS):
        yield pair
        yield pair[::-1]
