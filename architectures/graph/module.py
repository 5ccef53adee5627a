"""A graph as a `torch.fx.GraphModule`: real layers where there are parameters, functions of the table elsewhere."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .form import Graph, GraphError, Node
from .operators import (
    LAYERS,
    OPERATORS,
    SEVERAL_RESULTS,
    Dropout,
    mistake,
    signature,
    torch_dtype,
)

# How Paddle's structured names spell the last part of a tensor's name, where it differs from PyTorch's.
SPELLINGS = {"running_mean": "_mean", "running_var": "_variance"}
_LSTM_LEAF = re.compile(r"(weight|bias)_(ih|hh)_l(\d+)(_reverse)?")

# The key of `node.meta` at which a node of the module says which value of the graph it computes.
VALUE = "value"


@dataclass(frozen=True)
class Origin:
    """Where a tensor of the module comes from.

    Attributes:
        variable: of the graph.
        transposed: whether Paddle stores it the other way round.
    """

    variable: str
    transposed: bool = False


def graph_to_module(graph: Graph) -> fx.GraphModule:
    """The network as a module in evaluation mode, without values (on the meta device).

    `load_state_dict(…, assign=True)` gives it some.

    Its state dict has the structured names where they are known (`_mean` as `running_mean`, an LSTM's as `nn.LSTM` has
    them), and names made of the variables' otherwise.

    Raises:
        GraphError: the graph has operators or attributes that the table does not know, or names that clash.
    """
    check_operators(graph)
    try:
        return _Writer(graph, lay_out(graph)).write().eval()
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise GraphError("graph", f"cannot be built as a PyTorch module: {error}") from error


def check_operators(graph: Graph) -> None:
    """Raise GraphError where the graph has operators or attributes that the table does not know."""
    for node in graph.nodes:
        problem = mistake(node)
        if problem:
            raise GraphError("graph", problem)


def module_keys(graph: Graph) -> dict[str, str]:
    """Variable → key in the module's state dict."""
    return {origin.variable: key for key, origin in lay_out(graph).origins.items()}


def owners(graph: Graph) -> dict[str, str]:
    """Key in the module's state dict → what it belongs to: the path of a layer; the key itself where it is no layer's,
    but the network's own parameter."""
    layout = lay_out(graph)
    own = set(layout.plain.values())
    return {key: key if key in own else key.rpartition(".")[0] for key in layout.origins}


# ---- where tensors live ------------------------------------------------------------------------------------------


def layer_path(names: Mapping[str, str]) -> str | None:
    """The path of a module whose tensors have these structured names; None where they do not belong together.

    Args:
        names: of the tensors by their names in the module, for example `{"weight": "head.fc.weight"}`.
    """
    paths = set()
    for leaf, name in names.items():
        fitting = [spelled for spelled in spellings(leaf) if name.endswith(f".{spelled}")]
        paths.add(name.removesuffix(f".{fitting[0]}") if fitting else None)
    return paths.pop() if len(paths) == 1 else None


def spellings(leaf: str) -> tuple[str, ...]:
    """How structured names may end for a tensor that a module calls `leaf`."""
    match = _LSTM_LEAF.fullmatch(leaf)
    if match:
        kind, gate, layer, reverse = match.groups()
        return (f"{layer}.cell_{'bw' if reverse else 'fw'}.{kind}_{gate}", leaf)
    return (SPELLINGS.get(leaf, leaf),)


def attribute_name(variable: str) -> str:
    """A variable's name as that of an attribute."""
    return re.sub(r"\W", "_", variable, flags=re.ASCII)


def module_name(variable: str) -> str:
    """The name of a module after one of its variables: `conv2d_0` after `conv2d_0.w_0`."""
    return attribute_name(re.sub(r"\.[wb]_\d+$", "", variable))


# What makes two operators one module: type, attributes, and the variables of its tensors.
_Same = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Layout:
    """Which tensor of a graph lives where in its module.

    Attributes:
        layers: place of a node in the graph → path of the module that computes it.
        plain: variable → key of a parameter that the network itself has, for operators that are functions.
        origins: key of the state dict → where the tensor comes from; without the counters of batch norms.
    """

    layers: dict[int, str]
    plain: dict[str, str]
    origins: dict[str, Origin]


def lay_out(graph: Graph) -> Layout:
    """Decide where the tensors live.

    An operator becomes a module where the table has one for it, its tensors belong together by their names, and nothing
    else uses them; the same operator at several places is one module. Otherwise it is a function, and the network
    itself has its tensors.
    """
    candidates = {place: found for place, node in enumerate(graph.nodes) if (found := _candidate(graph, node))}
    users: dict[str, set[_Same | None]] = {}
    for place, node in enumerate(graph.nodes):
        for variable in node.reads:
            users.setdefault(variable, set()).add(_sameness(node) if place in candidates else None)
    owners: dict[str, _Same] = {}
    layers: dict[int, str] = {}
    origins: dict[str, Origin] = {}
    for place, path in candidates.items():
        node = graph.nodes[place]
        tensors, same = LAYERS[node.type].tensors(node), _sameness(node)
        alone = all(users[variable] == {same} for variable in tensors.values())
        if alone and owners.setdefault(path, same) == same:
            layers[place] = path
            transposed = LAYERS[node.type].transposed(node)
            for leaf, variable in tensors.items():
                origins[f"{path}.{leaf}"] = Origin(variable, transposed and leaf == "weight")
    held = {origin.variable for origin in origins.values()}
    plain = {
        variable: parameter.name or attribute_name(variable)
        for variable, parameter in graph.parameters.items()
        if variable not in held
    }
    return Layout(layers, plain, origins | {key: Origin(variable) for variable, key in plain.items()})


def _candidate(graph: Graph, node: Node) -> str | None:
    """Path of the module that a node could be."""
    layer = LAYERS.get(node.type)
    if layer is None or not layer.fits(node):
        return None
    tensors = layer.tensors(node)
    if not all(variable in graph.parameters for variable in tensors.values()):
        return None
    names = {leaf: graph.parameters[variable].name for leaf, variable in tensors.items()}
    known = {leaf: name for leaf, name in names.items() if name is not None}
    return layer_path(known) if known else module_name(next(iter(tensors.values())))


def _sameness(node: Node) -> _Same:
    return node.type, repr(sorted(node.attributes.items())), tuple(LAYERS[node.type].tensors(node).items())


# ---- writing the module ------------------------------------------------------------------------------------------


class WholeOperators(fx.Tracer):
    """Takes the functions of the table for operators, without looking into them; unpickling a module traces it."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(OPERATORS.values()))


class _Writer:
    """Writes a graph's nodes into a `torch.fx.Graph`, and puts modules and parameters where it refers to them."""

    def __init__(self, graph: Graph, layout: Layout) -> None:
        self.graph, self.layout = graph, layout
        self.root, self.traced = nn.Module(), fx.Graph(tracer_cls=WholeOperators)
        self.values: dict[str, fx.Node] = {}
        self._read = {value for node in graph.nodes for value in node.reads}.union(graph.outputs)

    def write(self) -> fx.GraphModule:
        with torch.device("meta"):
            self._place_tensors()
        for name in self.graph.inputs:
            self._name(name, self.traced.placeholder(attribute_name(name)))
        for variable, key in self.layout.plain.items():
            self.values[variable] = self.traced.get_attr(key)
        for place, node in enumerate(self.graph.nodes):
            self._write(node, self.layout.layers.get(place))
        results = tuple(self.values[name] for name in self.graph.outputs)
        self.traced.output(results[0] if len(results) == 1 else results)
        return fx.GraphModule(self.root, self.traced, class_name="PaddleGraph")

    def _place_tensors(self) -> None:
        shapes = {variable: parameter.shape for variable, parameter in self.graph.parameters.items()}
        built = {path: self.graph.nodes[place] for place, path in self.layout.layers.items()}
        for path, node in built.items():
            put(self.root, path, LAYERS[node.type].build(node, shapes))
        for variable, key in self.layout.plain.items():
            dtype = torch_dtype(self.graph.parameters[variable].dtype)
            if dtype.is_floating_point:
                put(self.root, key, nn.Parameter(torch.empty(shapes[variable])))
            else:
                put(self.root, key, torch.empty(shapes[variable], dtype=dtype))

    def _write(self, node: Node, path: str | None) -> None:
        several = node.type in SEVERAL_RESULTS
        parts: Iterable[tuple[int, ...]] = [(place,) for place in range(len(node.outputs))] if several else [()]
        if path is not None:
            layer = LAYERS[node.type]
            (data,) = (slot for slot in node.inputs if slot not in layer.slots and node.inputs[slot])
            result, parts = self._module(path, node, data), layer.outputs
        elif node.type == "dropout":
            path = attribute_name(node.outputs[0])
            put(self.root, path, Dropout(**node.attributes))
            result = self._module(path, node, "x")
        else:
            result = self._function(node)
        for name, part in zip(node.outputs, parts, strict=False):
            if name in self._read:
                value = result
                for place in part:
                    value = self.traced.create_node("call_function", operator.getitem, (value, place), name=name)
                self._name(name, value)

    def _name(self, name: str, value: fx.Node) -> None:
        self.values[name] = value
        value.meta[VALUE] = name

    def _module(self, path: str, node: Node, data: str) -> fx.Node:
        (source,) = node.inputs[data]
        return self.traced.create_node("call_module", path, (self.values[source],), name=node.outputs[0])

    def _function(self, node: Node) -> fx.Node:
        first, rest = arguments(self.graph, node, self.values)
        return self.traced.create_node("call_function", OPERATORS[node.type], first, rest, name=node.outputs[0])


def arguments(graph: Graph, node: Node, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the function of the table gets for a node: by place, and by name.

    Args:
        graph: the node's.
        values: by their names, whatever stands for them.
    """
    expected = signature(node.type)
    found: dict[str, Any] = dict(node.attributes)
    for slot, names in node.inputs.items():
        if names:
            given = [values[name] for name in names]
            found[slot] = given if expected.slots[slot] == "list" or len(given) > 1 else given[0]
    if expected.like:
        found["like"] = values[next(iter(graph.inputs))]
    leading = next(iter(expected.slots), None)
    return ((found.pop(leading),) if leading in found else ()), found


def put(root: nn.Module, path: str, thing: nn.Module | torch.Tensor) -> None:
    """Put a module, parameter or buffer at a path, with modules on the way as needed.

    Raises:
        KeyError: something else is there.
    """
    *ancestors, leaf = path.split(".")
    owner = root
    for name in ancestors:
        if name not in owner._modules:
            owner.add_module(name, nn.Module())
        owner = owner.get_submodule(name)
    if hasattr(owner, leaf):
        raise KeyError(f"{path!r} is taken")
    if isinstance(thing, nn.Module):
        owner.add_module(leaf, thing)
    elif isinstance(thing, nn.Parameter):
        owner.register_parameter(leaf, thing)
    else:
        owner.register_buffer(leaf, thing)
