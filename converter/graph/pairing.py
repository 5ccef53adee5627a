"""Names from the graph alone: which of a network's tensors is which of a program's, told by how they are connected.

A program without its `.info` has variables like `conv2d_7.w_0`. Its operators with parameters are matched with those of
a hand-written network by what they are, the shapes of their parameters, and their neighbours: first the operators that
feed them and that they feed, then the neighbours' neighbours, until nothing more can be told apart. Activations and
strides play no part; whether those agree is for `conformity` to say. What cannot be told apart is refused, not guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.architectures.matching import empty_network, infer_parameters
from paddle2torch.architectures.registry import Architecture, Size, architectures
from paddle2torch.converter.graph.conformity import check_conformity, input_shape
from paddle2torch.converter.graph.trace import Operand, Step, Trace, trace_graph, trace_module
from paddle2torch.converter.graph.variants import variants
from paddle2torch.converter.mapping.rules import structured_name
from paddle2torch.converter.support.boundary import boundary
from paddle2torch.converter.support.errors import MappingError

Look = Callable[[Step], object]


@dataclass(frozen=True)
class Pairing:
    """What a graph's variables are.

    Attributes:
        architecture: the network that the graph is.
        parameters: that kernels and shapes tell.
        names: variable → structured name.
        keys: variable → key of the network's state dict.
    """

    architecture: Architecture
    parameters: dict[str, Any]
    names: dict[str, str]
    keys: dict[str, str]


def names_from_graph(
    graph: Graph, file: str, architecture: Architecture | None = None, parameters: Mapping[str, Any] | None = None
) -> Pairing:
    """Name a graph's variables by pairing its operators with those of a network of the registry.

    Args:
        graph: of a program.
        file: for messages.
        architecture: which network, where that is known; every one is tried otherwise.
        parameters: given ones win over those that the shapes tell.

    Raises:
        MappingError: no network fits, or several do, or some operators of the network cannot be told apart.
    """
    with boundary(file, "a network"):  # one that is deeper than any, say
        return _named(graph, file, [architecture] if architecture else list(architectures()), dict(parameters or {}))


def _named(graph: Graph, file: str, candidates: list[Architecture], given: dict[str, Any]) -> Pairing:
    graph_traces: dict[tuple[int, ...], Trace] = {}
    fitting, ambiguous = [], []
    for entry in candidates:
        shape = input_shape(entry.task, entry.preprocessing)
        if shape not in graph_traces:
            graph_traces[shape] = trace_graph(graph, {}, shape, file)
        try:
            found = _pairing(graph_traces[shape], entry, shape, given)
        except AmbiguousError as error:
            ambiguous.append(f"{entry.name} ({error})")
            continue
        if found is not None:
            fitting.append(found)
    if len(fitting) > 1:  # they may differ in what pairing does not look at
        fitting = [pairing for pairing in fitting if _conforms(graph, pairing)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(pairing.architecture.name for pairing in fitting)
        raise MappingError(f"{file}: {names} are connected like this program; say which it is with --architecture")
    if ambiguous:
        raise MappingError(
            f"{file}: without its .info the tensors cannot be named: some operators of {', '.join(ambiguous)} cannot "
            "be told apart; get the .pdiparams.info, which comes with the model's tarball"
        )
    raise MappingError(
        f"{file}: without its .info the tensors cannot be named: none of the {len(candidates)} networks is connected "
        "like this program; get the .pdiparams.info, or convert the graph itself with --as-graph"
    )


def _conforms(graph: Graph, pairing: Pairing) -> bool:
    entry = pairing.architecture
    model = empty_network(entry, pairing.parameters)
    return bool(check_conformity(graph, model, pairing.keys, input_shape(entry.task, entry.preprocessing)))


class AmbiguousError(Exception):
    """Operators that cannot be told apart; the text names some."""


def _pairing(graph: Trace, entry: Architecture, shape: tuple[int, ...], given: dict[str, Any]) -> Pairing | None:
    """The pairing with one network; None where it is not this one."""
    if graph.failure is not None or not given.keys() <= entry.parameters.keys():
        return None
    sizes = _sizes(graph)
    for variant in variants(entry, sizes.values(), given):
        # What the sizes of some tensors tell comes first: those tensors are found without looking at sizes.
        rough = pair_keys(graph, _module_trace(entry, variant, shape), _kernel, strict=False)
        if rough is None:
            continue
        told = infer_parameters(entry, {key: sizes[variable] for variable, key in rough.items()})
        # Of tensors that cannot be told apart without sizes none is known, so that nothing follows from their absence.
        told = {name: value for name, value in told.items() if isinstance(entry.parameters[name].told_by, Size)}
        settled = variant | told | given
        module = _module_trace(entry, settled, shape)
        keys = pair_keys(graph, module, _shapes, strict=True) if module.failure is None else None
        if keys is not None:
            names = {variable: structured_name(key, entry.renames) for variable, key in keys.items()}
            return Pairing(entry, settled, names, keys)
    return None


def _module_trace(entry: Architecture, parameters: Mapping[str, Any], shape: tuple[int, ...]) -> Trace:
    return trace_module(empty_network(entry, parameters), shape)


def _sizes(trace: Trace) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter, in PyTorch's layout."""
    operands = (each for step in trace.steps for each in step.operands.values())
    return {each.source: each.shape for each in operands if isinstance(each.source, str)}


def _is_key(operand: Operand) -> bool:
    return isinstance(operand.source, str)


def _kernel(step: Step) -> object:
    """What an operator is, whatever the number of its channels."""
    return step.kind, tuple((label, each.shape[2:]) for label, each in step.operands.items() if _is_key(each))


def _shapes(step: Step) -> object:
    """What an operator is, with the shapes of its parameters."""
    return step.kind, tuple((label, each.shape) for label, each in step.operands.items() if _is_key(each))


# ---- matching ----------------------------------------------------------------------------------------------------


def pair_keys(one: Trace, other: Trace, look: Look, strict: bool) -> dict[str, str] | None:
    """Pair the parameters of two networks: key in the one → key in the other; None where they are connected otherwise.

    Args:
        one: a network.
        other: another, thought to be the same.
        look: what there is to see of an operator by itself.
        strict: whether to refuse operators that cannot be told apart; they are left out otherwise.

    Raises:
        AmbiguousError: see there.
    """
    first, second = _Net(one), _Net(other)
    if len(first.steps) != len(second.steps):
        return None
    colours = _coloured([first, second], look)
    if Counter(colours[0]) != Counter(colours[1]):
        return None
    counts = Counter(colours[0])
    pairs: dict[str, str] = {}
    unclear: list[str] = []
    partner = dict(zip(colours[1], second.steps, strict=True))
    for colour, step in zip(colours[0], first.steps, strict=True):
        if counts[colour] > 1:
            unclear += step.keys[:1]
            continue
        for label, operand in step.operands.items():
            theirs = partner[colour].operands[label].source
            if isinstance(operand.source, str) and isinstance(theirs, str):
                pairs[operand.source] = theirs
    if strict and unclear:
        raise AmbiguousError(f"those of {', '.join(unclear[:4])}" + (" and more" if len(unclear) > 4 else ""))
    return pairs


class _Net:
    """The operators with parameters on which a network's outputs depend, and which feeds which.

    What a neighbour is to an operator is told as a pair: whether it comes before or after, and as which operand.
    """

    def __init__(self, trace: Trace) -> None:
        self._before: dict[int, frozenset[int]] = {}
        self._by_identity = {id(step): step for step in trace.steps}
        self.ends = frozenset(place for operand in trace.outputs for place in self._sources(operand))
        wanted = self._upstream(self.ends)
        self.steps = [step for step in trace.steps if id(step) in wanted]
        self.neighbours: dict[int, list[tuple[str, int]]] = {id(step): [] for step in self.steps}
        for step in self.steps:
            for label, operand in step.operands.items():
                for source in () if _is_key(operand) else self._sources(operand):
                    self.neighbours[id(step)].append((f"before:{label}", source))
                    if source:
                        self.neighbours[source].append((f"after:{label}", id(step)))

    def _sources(self, operand: Operand) -> frozenset[int]:
        """The operators with parameters nearest before an operand; 0 stands for the network's input."""
        step = operand.source
        if not isinstance(step, Step):
            return frozenset() if isinstance(step, str) else frozenset({0})
        if step.keys:
            return frozenset({id(step)})
        if id(step) not in self._before:
            self._before[id(step)] = frozenset().union(*map(self._sources, step.operands.values()))
        return self._before[id(step)]

    def _upstream(self, ends: frozenset[int]) -> set[int]:
        found, waiting = set(), [end for end in ends if end]
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                operands = self._by_identity[place].operands.values()
                waiting += [source for operand in operands for source in self._sources(operand) if source]
        return found


def _coloured(nets: list[_Net], look: Look) -> list[list[int]]:
    """A colour for each operator of each net, the same where neither they nor their surroundings can be told apart."""
    palette: dict[object, int] = {}

    def colour(sight: object) -> int:
        return palette.setdefault(sight, len(palette))

    colours = [{id(step): colour((look(step), id(step) in net.ends)) for step in net.steps} for net in nets]
    while True:
        palette.clear()
        finer = [
            {
                place: colour((own, tuple(sorted((label, of.get(near, -1)) for label, near in net.neighbours[place]))))
                for place, own in of.items()
            }
            for net, of in zip(nets, colours, strict=True)
        ]
        settled = all(len(set(a.values())) == len(set(b.values())) for a, b in zip(finer, colours, strict=True))
        colours = finer
        if settled:
            return [[of[id(step)] for step in net.steps] for net, of in zip(nets, colours, strict=True)]
