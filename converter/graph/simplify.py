"""The same graph with less in it: no operator that does nothing, biases where they belong, nothing unused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from paddle2torch.architectures.graph.form import Graph, Node, reachable

Rank = Callable[[str], int | None]


def simplify(graph: Graph, rank: Rank) -> Graph:
    """Drop what does nothing, make matrix products with a parameter `linear`, and move biases into their operators.

    Args:
        graph: as refined from a program.
        rank: the number of axes of a value, None where it is not known.
    """
    graph = with_biases(with_linear(without_identities(graph)), rank)
    return without_unused(graph)


def without_identities(graph: Graph) -> Graph:
    """Without operators whose output is their input."""
    same: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        node = _renamed(node, same)
        if _is_identity(node):
            same[node.outputs[0]] = node.inputs["x"][0]
        else:
            nodes.append(node)
    outputs = tuple(same.get(value, value) for value in graph.outputs)
    return replace(graph, nodes=tuple(nodes), outputs=outputs)


def _is_identity(node: Node) -> bool:
    return node.type == "scale" and node.attributes.get("factor") == 1.0 and not node.attributes.get("bias")


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    inputs = {slot: tuple(names.get(value, value) for value in values) for slot, values in node.inputs.items()}
    return replace(node, inputs=inputs)


def with_linear(graph: Graph) -> Graph:
    """Matrix products with a parameter as `linear`."""

    def changed(node: Node) -> Node:
        if node.type != "matmul" or node.attributes.get("transpose_x"):
            return node
        (weight,) = node.inputs["y"]
        if node.inputs["x"][0] in graph.parameters or len(_parameter_shape(graph, weight)) != 2:
            return node
        transposed = not node.attributes.get("transpose_y", False)
        return Node("linear", {"x": node.inputs["x"], "weight": (weight,)}, node.outputs, {"transposed": transposed})

    return replace(graph, nodes=tuple(changed(node) for node in graph.nodes))


def _parameter_shape(graph: Graph, value: str) -> tuple[int, ...]:
    return graph.parameters[value].shape if value in graph.parameters else ()


def with_biases(graph: Graph, rank: Rank) -> Graph:
    """Sums of a convolution or linear layer and a parameter as the layer's bias; the layer then computes the sum."""
    readers = graph.consumers()
    makers = {value: node for node in graph.nodes for value in node.outputs}
    merged: dict[int, Node] = {}  # by the identity of the sum's node
    absorbed: set[int] = set()
    for layer in graph.nodes:
        if layer.type not in ("conv2d", "conv2d_transpose", "linear") or layer.inputs.get("bias"):
            continue
        (value,) = layer.outputs
        following = readers.get(value, [])
        if len(following) != 1 or value in graph.outputs or following[0].type != "add":
            continue
        (total,) = following
        bias = _bias(graph, layer, total, makers, rank)
        if bias is not None:
            merged[id(total)] = Node(layer.type, {**layer.inputs, "bias": (bias,)}, total.outputs, layer.attributes)
            absorbed.add(id(layer))
    nodes = tuple(merged.get(id(node), node) for node in graph.nodes if id(node) not in absorbed)
    return replace(graph, nodes=nodes)


def _bias(graph: Graph, layer: Node, total: Node, makers: Mapping[str, Node], rank: Rank) -> str | None:
    """The parameter that `total` adds to each of the layer's channels, if that is what it does."""
    if total.inputs["x"] != layer.outputs:
        return None
    (value,) = total.inputs["y"]
    axis = total.attributes.get("axis", -1)
    weight = _parameter_shape(graph, layer.inputs["weight"][0])
    if not weight:
        return None
    if layer.type == "linear":
        channels = weight[1] if layer.attributes["transposed"] else weight[0]
        fitting: tuple[int, ...] = (-1, (rank(layer.outputs[0]) or 0) - 1)
    else:
        channels, fitting = _channels(layer, weight), (1,)
    if _parameter_shape(graph, value) == (channels,):
        return value if axis in fitting else None
    if layer.type == "linear" or axis not in (-1, 0):
        return None
    maker = makers.get(value)
    if maker is not None and maker.type == "reshape" and "shape" in maker.attributes:
        (inner,) = maker.inputs["x"]
        if _parameter_shape(graph, inner) == (channels,) and _is_per_channel(maker.attributes["shape"], channels):
            return inner
    return None


def _channels(layer: Node, weight: tuple[int, ...]) -> int:
    return weight[0] if layer.type == "conv2d" else weight[1] * layer.attributes["groups"]


def _is_per_channel(shape: list[int], channels: int) -> bool:
    return len(shape) == 4 and shape[1] in (-1, channels) and math.prod(shape[:1] + shape[2:]) == 1


def without_unused(graph: Graph) -> Graph:
    """Only the nodes and parameters on which the outputs depend."""
    nodes = reachable(graph.nodes, graph.outputs)
    read = {value for node in nodes for value in node.reads}.union(graph.outputs)
    parameters = {variable: each for variable, each in graph.parameters.items() if variable in read}
    return replace(graph, nodes=tuple(nodes), parameters=parameters)
