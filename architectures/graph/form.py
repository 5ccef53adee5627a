"""The small graph form: operators, what they read and write, their attributes, the parameters. Plain data throughout.

The vocabulary is that of `operators`: one name per operator, one name per attribute, whichever dialect of Paddle the
graph was written in. The form is all that is stored of a network, as JSON; no code travels with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = "paddle2torch-graph"
VERSION = 1

# The path of a tensor in a module: what follows must be harmless as attribute names.
_KEY = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_DTYPES = frozenset(
    [
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    ]
)


class GraphError(ValueError):
    """A graph is damaged, or has what the table of operators does not know.

    Args:
        file: what the user knows it by.
        problem: what is wrong, and what to do.
    """

    def __init__(self, file: str, problem: str) -> None:
        self.file, self.problem = file, problem
        super().__init__(f"{file}: {problem}")


@dataclass(frozen=True)
class Node:
    """An operator of the graph.

    Attributes:
        type: its name in the vocabulary, for example `conv2d`.
        inputs: slot → the values in it; a slot holds several only where the operator takes a list, as `concat` does.
        outputs: the values it computes.
        attributes: name → None, bool, int, float, str, or a list of those.
    """

    type: str
    inputs: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def reads(self) -> tuple[str, ...]:
        """All values that it reads."""
        return tuple(value for slot in self.inputs.values() for value in slot)


@dataclass(frozen=True)
class Parameter:
    """A tensor that comes with the network.

    Attributes:
        name: its structured name, for example `backbone.conv1.conv.weight`; None where that is not known.
        shape: in Paddle's layout.
        dtype: for example `float32`.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Graph:
    """A network.

    Attributes:
        inputs: name → shape, -1 for sizes that are known only at run time.
        outputs: the values that the network returns.
        nodes: in execution order; a value is computed once, before it is read.
        parameters: variable → tensor.
    """

    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    parameters: dict[str, Parameter]

    def operators(self) -> Counter[str]:
        """How many there are of each type."""
        return Counter(node.type for node in self.nodes)

    def tensor_names(self) -> dict[str, str]:
        """Variable → the name under which `graph_to_module` wants its tensor: the structured one where known."""
        return {variable: parameter.name or variable for variable, parameter in self.parameters.items()}

    def consumers(self) -> dict[str, list[Node]]:
        """Value → the nodes that read it."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.reads):
                readers.setdefault(value, []).append(node)
        return readers

    def renamed(self, names: Mapping[str, str]) -> Graph:
        """The same graph with the structured names of some parameters (variable → name) set."""
        parameters = {
            variable: Parameter(names.get(variable, parameter.name), parameter.shape, parameter.dtype)
            for variable, parameter in self.parameters.items()
        }
        return Graph(self.inputs, self.outputs, self.nodes, parameters)


def reachable(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """The nodes on which the outputs depend, in the same order."""
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.reads)
            found.append(node)
    return found[::-1]


# ---- JSON --------------------------------------------------------------------------------------------------------


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """The graph as plain data, for `json.dumps`."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "inputs": {name: list(shape) for name, shape in graph.inputs.items()},
        "outputs": list(graph.outputs),
        "parameters": {
            variable: {"name": parameter.name, "shape": list(parameter.shape), "dtype": parameter.dtype}
            for variable, parameter in graph.parameters.items()
        },
        "nodes": [
            {
                "type": node.type,
                "inputs": {slot: list(values) for slot, values in node.inputs.items()},
                "outputs": list(node.outputs),
                "attributes": node.attributes,
            }
            for node in graph.nodes
        ],
    }


def graph_from_json(data: Any, file: str = "graph") -> Graph:
    """The graph that `graph_to_json` wrote, checked: every value is computed before it is read, and only once.

    Whether the operators exist and take these attributes is for `graph_to_module` to say.

    Args:
        data: what `json.loads` returned.
        file: what to call it in messages.

    Raises:
        GraphError: it is something else, damaged, or of a later version.
    """
    try:
        return _read(data, file)
    except (KeyError, TypeError, AttributeError) as error:
        raise GraphError(
            file, f"is no graph of this converter: {_reason(error)} is missing or of another type"
        ) from error


def _reason(error: Exception) -> str:
    return repr(error.args[0]) if isinstance(error, KeyError) else "a part"


def _read(data: Any, file: str) -> Graph:
    if data["format"] != FORMAT or data["version"] != VERSION:
        raise GraphError(
            file,
            f"is {data['format']!r} version {data['version']!r} where {FORMAT!r} version {VERSION} was expected; "
            "convert the model again, or update paddle2torch",
        )
    graph = Graph(
        inputs={_text(name): _sizes(shape) for name, shape in data["inputs"].items()},
        outputs=_texts(data["outputs"]),
        nodes=tuple(
            Node(
                type=_text(node["type"]),
                inputs={_text(slot): _texts(values) for slot, values in node["inputs"].items()},
                outputs=_texts(node["outputs"]),
                attributes={_text(name): _plain(value) for name, value in node["attributes"].items()},
            )
            for node in _list(data["nodes"])
        ),
        parameters={
            _text(variable): Parameter(
                name=None if entry["name"] is None else _text(entry["name"]),
                shape=_sizes(entry["shape"]),
                dtype=_text(entry["dtype"]),
            )
            for variable, entry in data["parameters"].items()
        },
    )
    check_graph(graph, file)
    return graph


def check_graph(graph: Graph, file: str) -> None:
    """Every value is computed once and before it is read; names of parameters can be paths in a module.

    Raises:
        GraphError: otherwise.
    """
    known: set[str] = set()

    def define(names: Iterable[str]) -> None:
        for name in names:
            if name in known:
                raise GraphError(file, f"the value {name!r} is computed twice; the graph is damaged")
            known.add(name)

    def read(names: Iterable[str], reader: str) -> None:
        for name in names:
            if name not in known:
                raise GraphError(file, f"{reader} reads the value {name!r}, which nothing computes before it")

    define(graph.inputs)
    define(graph.parameters)
    for node in graph.nodes:
        read(node.reads, f"the operator {node.type}")
        define(node.outputs)
    read(graph.outputs, "the network's output")
    for variable, parameter in graph.parameters.items():
        if parameter.name is not None and not _KEY.fullmatch(parameter.name):
            raise GraphError(file, f"{parameter.name!r} cannot be the name of a tensor in a module")
        if parameter.dtype not in _DTYPES or any(size < 0 for size in parameter.shape):
            raise GraphError(file, f"parameter {variable!r} has type {parameter.dtype!r}, shape {parameter.shape}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _list(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise TypeError(values)
    return values


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(value) for value in _list(values))


def _sizes(values: Any) -> tuple[int, ...]:
    if not all(type(value) is int for value in _list(values)):
        raise TypeError(values)
    return tuple(values)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(value)
    return value
