"""Does a hand-written network compute what the graph that its weights came with says? Answered without running it.

Both are traced (see `trace`), and compared from one operator with parameters to the next: its own attributes, and
everything that happens between it and the operators with parameters before it. So a difference is told where it is,
and does not drag along all that follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.architectures.graph.operators import SAME
from paddle2torch.architectures.records import Preprocessing
from paddle2torch.converter.graph.trace import Operand, Step, Trace, trace_graph, trace_module
from paddle2torch.converter.support.boundary import boundary
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.tasks import find_task

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum"})

# How many differences a message lists before it only counts the rest.
SHOWN = 8


@dataclass(frozen=True)
class Mismatch:
    """Something that the module does otherwise than the graph.

    Attributes:
        path: of the module.
        attribute: for example `stride`; "operation" where the two do different things.
        graph: what the graph has.
        module: what the module has.
    """

    path: str
    attribute: str
    graph: object
    module: object

    def __str__(self) -> str:
        return f"{self.path or '(the network)'}: {self.attribute} is {self.module} where the graph has {self.graph}"


def input_shape(task: str, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """A shape (N, 3, H, W) that every network of this preprocessing takes."""
    return find_task(task).small.shape(preprocessing)


def require_conformity(
    graph: Graph, model: nn.Module, keys: Mapping[str, str], shape: tuple[int, ...], file: str = "the graph"
) -> None:
    """Check as `check_conformity` does, and raise where it finds something.

    Raises:
        MappingError: the module differs from the graph; the message lists in what.
    """
    differences = check_conformity(graph, model, keys, shape, file)
    if differences:
        shown = "".join(f"\n  {difference}" for difference in differences[:SHOWN])
        more = f"\n  and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise MappingError(
            f"{file}: the network does not compute what the released graph says, in {len(differences)} places; "
            f"nothing was written; --as-graph converts the graph itself{shown}{more}"
        )


def check_conformity(
    graph: Graph, model: nn.Module, keys: Mapping[str, str], shape: tuple[int, ...], file: str = "the graph"
) -> list[Mismatch]:
    """Compare a module with the graph that its weights came with.

    Args:
        graph: of the released program.
        model: in evaluation mode, with or without values (on the meta device); it is left as it is.
        keys: the graph's variables → keys of the module's state dict.
        shape: of an input that both take, see `input_shape`.
        file: what to call the graph in messages.

    Returns:
        What differs, in the graph's order; empty where the module computes what the graph says.

    Raises:
        FormatError: the graph has operators that the table does not know, or is far larger than any network's.
        MappingError: the graph takes no input of this shape.
    """
    expected = trace_graph(graph, keys, shape, file)
    if expected.failure is not None:
        raise MappingError(f"the released graph takes no input of {list(shape)}: {expected.failure}")
    with boundary(file, "a network"):  # one that is deeper than any, say
        return compare_traces(expected, trace_module(model, shape))


def compare_traces(graph: Trace, module: Trace) -> list[Mismatch]:
    """Compare the traces of a graph, which came to its end, and of a module, whose parameters have the same keys."""
    return list(dict.fromkeys(_Comparison(graph, module).differences()))


class _Comparison:
    """One comparison; it remembers which pairs it has compared."""

    def __init__(self, graph: Trace, module: Trace) -> None:
        self.graph, self.module = graph, module
        self._compared: dict[tuple[int, int, int, int], list[Mismatch]] = {}

    def differences(self) -> Iterator[Mismatch]:
        expected, found = _by_keys(self.graph.steps), _by_keys(self.module.steps)
        for keys, steps in expected.items():
            others = found.get(keys, [])
            if len(steps) == len(others):
                for step, other in zip(steps, others, strict=True):
                    yield from self._steps(step, other)
            elif self.module.failure is None:
                yield Mismatch(_owner(keys), "uses", len(steps), len(others))
        for keys in found.keys() - expected.keys():
            yield Mismatch(_owner(keys), "uses", 0, len(found[keys]))
        if self.module.failure is not None:
            yield from self._last_step()
            where = self.module.steps[-1].where if self.module.steps else ""
            yield Mismatch(where, "result", "a result", f"an error ({self.module.failure})")
        elif len(self.graph.outputs) != len(self.module.outputs):
            yield Mismatch("", "outputs", len(self.graph.outputs), len(self.module.outputs))
        else:
            for wanted, given in zip(self.graph.outputs, self.module.outputs, strict=True):
                yield from self._operands(wanted, given, "", "output")

    def _last_step(self) -> list[Mismatch]:
        """What is wrong with the step at which the module gave up, from which nothing leads on.

        Its counterpart is the step of the graph that reads the same and resembles it most.
        """
        if not self.module.steps or self.module.steps[-1].keys:
            return []
        last = self.module.steps[-1]
        rivals = [step for step in self.graph.steps if not step.keys and len(step.operands) == len(last.operands)]
        rivals = [step for step in rivals if not self._pairs(step, last, list(last.operands.values()))]
        return min((list(self._steps(step, last)) for step in rivals), key=len, default=[])

    def _steps(self, one: Step, other: Step) -> Iterator[Mismatch]:
        """Compare what two steps do, and what they do it with."""
        if one.kind != other.kind or len(one.operands) != len(other.operands):
            yield Mismatch(other.where, "operation", describe(one), describe(other))
        for name in one.attributes.keys() | other.attributes.keys() if one.kind == other.kind else ():
            expected, found = one.attributes.get(name), other.attributes.get(name)
            if not alike(expected, found):
                yield Mismatch(other.where, name, plain(expected), plain(found))
        if len(one.operands) != len(other.operands):
            return
        straight = self._pairs(one, other, list(other.operands.values()))
        if straight and one.kind == other.kind and one.kind in COMMUTATIVE:
            straight = min(straight, self._pairs(one, other, list(other.operands.values())[::-1]), key=len)
        yield from straight

    def _pairs(self, one: Step, other: Step, others: Sequence[Operand]) -> list[Mismatch]:
        labels = list(one.operands)
        return [
            difference
            for label, a, b in zip(labels, one.operands.values(), others, strict=True)
            for difference in self._operands(a, b, other.where, label)
        ]

    def _operands(self, one: Operand, other: Operand, path: str, label: str) -> list[Mismatch]:
        """Compare two operands, back to the operators with parameters before them."""
        place = (id(one.source), one.part, id(other.source), other.part)
        if place not in self._compared:
            self._compared[place] = []  # a network has no circles, but a broken comparison should end too
            self._compared[place] = list(self._sources(one, other, path, label))
        found = list(self._compared[place])
        if not found and not one.same_places(other):
            found.append(Mismatch(path, f"order of the elements of {label}", arranged(one), arranged(other)))
        return found

    def _sources(self, one: Operand, other: Operand, path: str, label: str) -> Iterator[Mismatch]:
        a, b = one.source, other.source
        if isinstance(a, Step) and isinstance(b, Step) and not a.keys and not b.keys:
            yield from self._steps(a, b)
        elif isinstance(a, Step) and isinstance(b, Step) and a.keys == b.keys:
            if one.part != other.part:
                yield Mismatch(path, label, f"result {one.part} of {_owner(a.keys)}", f"result {other.part}")
        elif a != b or isinstance(a, Step):
            yield Mismatch(path, label, describe(a), describe(b))


def _by_keys(steps: Sequence[Step]) -> dict[tuple[str, ...], list[Step]]:
    found: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        if step.keys:
            found.setdefault(step.keys, []).append(step)
    return found


def _owner(keys: Sequence[str]) -> str:
    return keys[0].rpartition(".")[0]


def describe(source: Step | int | str) -> str:
    """What made a tensor, for people."""
    if isinstance(source, str):
        return source
    if isinstance(source, int):
        return "the network's input"
    if source.keys:
        return f"{source.kind} ({_owner(source.keys)})"
    return source.kind


def arranged(operand: Operand) -> str:
    """How the elements of an operand are arranged, for people: the sizes, and where the first ones stand."""
    if operand.places is None:
        return f"{list(operand.shape)} as they are"
    first = operand.places.reshape(-1)[:4].tolist()
    return f"{list(operand.places.shape)} from places {first} …"


def alike(one: Any, other: Any) -> bool:
    """Whether two attributes are the same; numbers may differ by what float32 loses."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=SAME)
    return type(one) is type(other) and one == other


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """An attribute for people: floats without the noise of float32."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value
