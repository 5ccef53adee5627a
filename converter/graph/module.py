"""A graph as a `torch.fx.GraphModule`: real layers where there are parameters, functions of the table elsewhere."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from converter.errors import FormatError, MappingError
from converter.graph.form import Graph, Node
from converter.graph.operators import LAYERS, OPERATORS, Dropout, Layer, mistake, signature

COUNTER = "num_batches_tracked"

# How Paddle's structured names spell the last part of a tensor's name, where it differs from PyTorch's.
SPELLINGS = {"running_mean": "_mean", "running_var": "_variance"}
_LSTM_LEAF = re.compile(r"(weight|bias)_(ih|hh)_l(\d+)(_reverse)?")

# The value of the graph that a node of the traced module computes: a key of `node.meta`.
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


def graph_to_module(graph: Graph, tensors: Mapping[str, np.ndarray] | None = None) -> fx.GraphModule:
    """The network as a module in evaluation mode.

    Its state dict has the structured names where they are known (`_mean` as `running_mean`, an LSTM's as `nn.LSTM` has
    them), and names made of the variables' otherwise.

    Args:
        graph: the network.
        tensors: by `graph.tensor_names()`, in Paddle's layout. Without them the module lies on the meta device, for
            `load_state_dict(…, assign=True)`.

    Raises:
        FormatError: the graph has operators or attributes that the table does not know, or names that clash.
        MappingError: tensors are missing or of another shape.
    """
    module = _Builder(graph).build()
    if tensors is not None:
        module.load_state_dict(module_state(graph, tensors), strict=True, assign=True)
    return module.eval()


def module_state(graph: Graph, tensors: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The state dict of the graph's module.

    Args:
        graph: the network.
        tensors: by `graph.tensor_names()`, in Paddle's layout; those that the graph does not read are passed over.

    Raises:
        MappingError: tensors are missing or of another shape.
    """
    names = graph.tensor_names()
    wrong = [
        f"{names[variable]} {list(tensors[names[variable]].shape) if names[variable] in tensors else '(missing)'}"
        f" → {list(parameter.shape)}"
        for variable, parameter in graph.parameters.items()
        if names[variable] not in tensors or tensors[names[variable]].shape != parameter.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise MappingError(f"{len(wrong)} tensors do not fit the graph: {', '.join(wrong[:6])}{more}")
    builder = _Builder(graph)
    state = {}
    for key, origin in builder.origins().items():
        array = tensors[names[origin.variable]]
        array = array.T if origin.transposed else array
        array = np.array(array, dtype=np.float32 if array.dtype.kind == "f" else None, order="C")
        state[key] = torch.from_numpy(array)
    counters = {f"{path}.{COUNTER}" for path, node in builder.paths() if node.type == "batch_norm"}
    return state | {key: torch.zeros((), dtype=torch.long) for key in counters}


def module_keys(graph: Graph) -> dict[str, str]:
    """Variable → key in the module's state dict."""
    return {origin.variable: key for key, origin in _Builder(graph).origins().items()}


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


class _Builder:
    """Builds one module: decides which tensor lives where, then writes the nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: dict[int, str] = {}
        """Position of a node → path of the module that computes it."""
        self._tensors: dict[str, tuple[Node, dict[str, str]]] = {}
        self._plain: dict[str, str] = {}
        self._place()

    def _place(self) -> None:
        taken: set[str] = set()
        for position, node in enumerate(self.graph.nodes):
            self._check(node)
            path = self._layer(node)
            if path is not None:
                self.layers[position] = path
                taken.update(LAYERS[node.type].tensors(node).values())
        for position, node in enumerate(self.graph.nodes):
            if position in self.layers:
                continue
            for variable in node.reads:
                if variable in self.graph.parameters and variable not in self._plain:
                    if variable in taken:
                        raise FormatError("graph", f"the parameter {variable!r} is used in ways that one module cannot have")
                    self._plain[variable] = self.graph.parameters[variable].name or attribute_name(variable)

    @staticmethod
    def _check(node: Node) -> None:
        problem = mistake(node)
        if problem:
            raise FormatError("graph", problem)

    def _layer(self, node: Node) -> str | None:
        """Path of the module for a node; None where it must be a function."""
        layer = LAYERS.get(node.type)
        if layer is None or not layer.fits(node):
            return None
        tensors = layer.tensors(node)
        if not all(variable in self.graph.parameters for variable in tensors.values()):
            return None
        names = {leaf: self.graph.parameters[variable].name for leaf, variable in tensors.items()}
        known = {leaf: name for leaf, name in names.items() if name is not None}
        path = layer_path(known) if known else module_name(next(iter(tensors.values())))
        if path is None or (path in self._tensors and not self._same(path, node, tensors)):
            return None
        self._tensors[path] = (node, tensors)
        return path

    def _same(self, path: str, node: Node, tensors: dict[str, str]) -> bool:
        other, others = self._tensors[path]
        return (other.type, other.attributes, others) == (node.type, node.attributes, tensors)

    def paths(self) -> list[tuple[str, Node]]:
        """The modules, with the operator that each was made for."""
        return [(path, node) for path, (node, _) in self._tensors.items()]

    def origins(self) -> dict[str, Origin]:
        """Key of the state dict → where the tensor comes from; without the counters of batch norms."""
        origins = {}
        for path, (node, tensors) in self._tensors.items():
            transposed = LAYERS[node.type].transposed(node)
            for leaf, variable in tensors.items():
                origins[f"{path}.{leaf}"] = Origin(variable, transposed and leaf == "weight")
        return origins | {key: Origin(variable) for variable, key in self._plain.items()}

    def build(self) -> fx.GraphModule:
        root, traced = nn.Module(), fx.Graph()
        values: dict[str, fx.Node] = {}
        try:
            self._register(root)
            for name in self.graph.inputs:
                values[name] = traced.placeholder(attribute_name(name))
                values[name].meta[VALUE] = name
            for position, node in enumerate(self.graph.nodes):
                for variable in node.reads:
                    if variable in self._plain and variable not in values:
                        values[variable] = traced.get_attr(self._plain[variable])
                self._write(root, traced, values, position, node)
            results = tuple(values[name] for name in self.graph.outputs)
            traced.output(results[0] if len(results) == 1 else results)
            return fx.GraphModule(root, traced, class_name="PaddleGraph")
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
            raise FormatError("graph", f"cannot be built as a PyTorch module: {error}") from error

    def _register(self, root: nn.Module) -> None:
        shapes = {variable: parameter.shape for variable, parameter in self.graph.parameters.items()}
        with torch.device("meta"):
            for path, (node, _) in self._tensors.items():
                place(root, path, LAYERS[node.type].build(node, shapes))
            for variable, key in self._plain.items():
                parameter = self.graph.parameters[variable]
                tensor = torch.empty(parameter.shape, dtype=getattr(torch, parameter.dtype))
                place(root, key, nn.Parameter(tensor) if tensor.is_floating_point() else tensor)

    def _write(self, root: nn.Module, traced: fx.Graph, values: dict[str, fx.Node], position: int, node: Node) -> None:
        layer, path = None, self.layers.get(position)
        if path is not None:
            layer = LAYERS[node.type]
            (data,) = (slot for slot in node.inputs if slot not in layer.slots and node.inputs[slot])
            result = traced.create_node("call_module", path, (values[node.inputs[data][0]],), name=node.outputs[0])
        elif node.type == "dropout":
            path = attribute_name(node.outputs[0])
            place(root, path, Dropout(**node.attributes))
            result = traced.create_node("call_module", path, (values[node.inputs["x"][0]],), name=node.outputs[0])
        else:
            result = self._call(traced, values, node)
        _name_outputs(traced, values, node, result, layer)

    def _call(self, traced: fx.Graph, values: dict[str, fx.Node], node: Node) -> fx.Node:
        expected = signature(node.type)
        arguments: dict[str, Any] = {}
        for slot, names in node.inputs.items():
            if names:
                given = [values[name] for name in names]
                arguments[slot] = given if expected.slots[slot] == "list" or len(given) > 1 else given[0]
        arguments |= node.attributes
        if expected.like:
            arguments["like"] = values[next(iter(self.graph.inputs))]
        leading = next(iter(expected.slots), None)
        first = (arguments.pop(leading),) if leading in arguments else ()
        return traced.create_node("call_function", OPERATORS[node.type], first, arguments, name=node.outputs[0])


def _name_outputs(
    traced: fx.Graph, values: dict[str, fx.Node], node: Node, result: fx.Node, layer: Layer | None
) -> None:
    """Give each output its value: the result itself, or a part of it."""
    parts = layer.outputs if layer else tuple((place,) for place in range(len(node.outputs)))
    if parts[0] == () or len(parts) == 1 and node.type not in ("split", "unbind", "lstm"):
        values[node.outputs[0]] = result
        result.meta[VALUE] = node.outputs[0]
        return
    for name, part in zip(node.outputs, parts, strict=False):
        value = result
        for place_ in part:
            value = traced.create_node("call_function", operator.getitem, (value, place_), name=name)
        values[name] = value
        value.meta[VALUE] = name


def place(root: nn.Module, path: str, thing: nn.Module | torch.Tensor) -> None:
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
