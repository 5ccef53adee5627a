"""Does a hand-written network compute what the graph that its weights came with says?

Both are traced (see `trace`), and compared from one operator with parameters to the next: its own attributes, and
everything that happens between it and the operators with parameters before it. So a difference is told where it is,
and does not drag along all that follows.

Structure proposes, values decide. Where the two are not written alike, that stretch, and nothing else, is run both ways
in double precision (see `stretches`): one that gives the same is a rewriting, and no mismatch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import nn

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.architectures.graph.operators import SAME
from paddle2torch.architectures.records import Preprocessing
from paddle2torch.converter.graph.stretches import EQUAL, CannotRunError, Difference, Stretch, difference
from paddle2torch.converter.graph.trace import Operand, Step, Trace, trace_graph, trace_module
from paddle2torch.converter.support.boundary import boundary
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.tasks import find_task

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum"})
# Steps whose attributes may make no difference at the sizes that are tried, and one at others.
WINDOWS = frozenset({"avg_pool2d", "max_pool2d"})
# Widths to try stretches at besides, beyond the first: an odd one, which not every network takes, and one that all do
# whose width is free.
ODDLY, EVENLY = 37, 32

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
        error: how far apart the results are in double precision, relative to the graph's largest; None where that was
            not, or could not be, measured.
        decided: whether no values can excuse it.
    """

    path: str
    attribute: str
    graph: object
    module: object
    error: float | None = field(default=None, compare=False)
    decided: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        text = f"{_place(self.path)}: {self.attribute} is {self.module} where the graph has {self.graph}"
        if self.error is None:
            return text
        apart = f"differ by {self.error:.1e}" if math.isfinite(self.error) else "have other shapes, or are no numbers"
        return f"{text}; the results {apart}"


@dataclass(frozen=True)
class Rewriting:
    """A stretch that module and graph write in two ways, and compute alike.

    Attributes:
        path: of the module.
        graph: the first thing that the graph does otherwise.
        module: what the module does in its place.
        error: how far apart the results are in double precision, relative to the graph's largest.
    """

    path: str
    graph: str
    module: str
    error: float

    def __str__(self) -> str:
        return f"{_place(self.path)}: {self.module} where the graph has {self.graph}"


@dataclass(frozen=True)
class Conformity:
    """What a comparison has found.

    Attributes:
        mismatches: what differs, in the graph's order; empty where the module computes what the graph says.
        rewritings: what is written in two ways.
    """

    mismatches: tuple[Mismatch, ...]
    rewritings: tuple[Rewriting, ...]

    def __bool__(self) -> bool:
        return not self.mismatches


def input_shape(task: str, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """A shape (N, 3, H, W) that every network of this preprocessing takes."""
    return find_task(task).small.shape(preprocessing)


def require_conformity(
    graph: Graph, model: nn.Module, keys: Mapping[str, str], shape: tuple[int, ...], file: str = "the graph"
) -> tuple[Rewriting, ...]:
    """Check as `check_conformity` does, and raise where it finds a mismatch.

    Returns:
        What is written in two ways, and computed alike.

    Raises:
        MappingError: the module differs from the graph; the message lists in what.
    """
    found = check_conformity(graph, model, keys, shape, file)
    if not found:
        differences = found.mismatches
        shown = "".join(f"\n  {mismatch}" for mismatch in differences[:SHOWN])
        more = f"\n  and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise MappingError(
            f"{file}: the network does not compute what the released graph says, in {len(differences)} places; "
            f"nothing was written; --as-graph converts the graph itself{shown}{more}"
        )
    return found.rewritings


def check_conformity(
    graph: Graph, model: nn.Module, keys: Mapping[str, str], shape: tuple[int, ...], file: str = "the graph"
) -> Conformity:
    """Compare a module with the graph that its weights came with.

    Args:
        graph: of the released program.
        model: in evaluation mode, with or without values (on the meta device); it is left as it is.
        keys: the graph's variables → keys of the module's state dict.
        shape: of an input that both take, see `input_shape`.
        file: what to call the graph in messages.

    Raises:
        FormatError: the graph has operators that the table does not know, or is far larger than any network's.
        MappingError: the graph takes no input of this shape.
    """
    expected = trace_graph(graph, keys, shape, file)
    if expected.failure is not None:
        raise MappingError(f"the released graph takes no input of {list(shape)}: {expected.failure}")

    def others() -> Iterator[tuple[Trace, Trace]]:
        for more, if_taken in ((ODDLY, True), (EVENLY, False)):
            sizes = (shape[0] + 1, *shape[1:3], shape[3] + more)
            traced = trace_graph(graph, keys, sizes, file)
            found = trace_module(model, sizes) if traced.failure is None else None
            if found is not None and not (if_taken and found.failure):
                yield traced, found

    with boundary(file, "a network"):  # one that is deeper than any, say
        return compare_traces(expected, trace_module(model, shape), others)


def compare_traces(
    graph: Trace, module: Trace, others: Callable[[], Iterable[tuple[Trace, Trace]]] = lambda: ()
) -> Conformity:
    """Compare the traces of a graph and of a module, whose parameters have the same keys.

    Args:
        graph: which came to its end.
        module: at the same shape.
        others: makes traces of both at other shapes, which is asked for only where the two are not written alike.
    """
    return _Comparison(graph, module, others).result()


class _Both:
    """Traces of graph and module at one shape.

    Attributes:
        graph, module: see there.
        named: name → the steps with parameters that are each other's counterparts, since they read the same ones; in
            the graph's order.
        anchors: of stretches, see there.
    """

    def __init__(self, graph: Trace, module: Trace) -> None:
        self.graph, self.module = graph, module
        self.named: dict[str, tuple[Step, Step]] = {}
        self.anchors: dict[int, str] = {}
        expected, found = _by_keys(graph.steps), _by_keys(module.steps)
        counts = {keys: len(steps) for keys, steps in expected.items() if len(steps) == len(found.get(keys, ()))}
        for step in graph.steps:
            if step.keys in counts:
                place = expected[step.keys].index(step)
                self.named[f"{step.keys} {place}"] = step, found[step.keys][place]

    def anchor(self, name: str) -> None:
        """Have stretches start from the two steps of this name, where there are such."""
        for step in self.named.get(name, ()):
            self.anchors[id(step)] = name

    def difference(self, one: Operand, other: Operand) -> Difference:
        """How far apart two operands are; see `paddle2torch.converter.graph.stretches.difference` for errors."""
        return difference(Stretch(self.graph, one, self.anchors), Stretch(self.module, other, self.anchors))


@dataclass(frozen=True)
class _End:
    """Where a stretch ends: an operand of a step with parameters, or an output.

    Attributes:
        name: of the step; None for an output.
        place: which operand, or which output.
    """

    name: str | None
    place: int

    def operands(self, both: _Both) -> tuple[Operand, Operand]:
        """In graph and module.

        Raises:
            CannotRunError: one of them has no such end.
        """
        try:
            if self.name is None:
                return both.graph.outputs[self.place], both.module.outputs[self.place]
            one, other = both.named[self.name]
            return list(one.operands.values())[self.place], list(other.operands.values())[self.place]
        except (KeyError, IndexError):
            raise CannotRunError("one of the two does not come so far") from None


class _Comparison:
    """One comparison; it remembers which pairs it has compared."""

    def __init__(
        self, graph: Trace, module: Trace, others: Callable[[], Iterable[tuple[Trace, Trace]]] = lambda: ()
    ) -> None:
        self.graph, self.module, self._others = graph, module, others
        self._both = _Both(graph, module)
        self._compared: dict[tuple[int, int, int, int], list[Mismatch]] = {}
        self._mismatches: list[Mismatch] = []
        self._rewritings: list[Rewriting] = []
        # Of steps with parameters that are no anchors: what is wrong with them if the values behind them are.
        self._loose: dict[tuple[str, ...], list[Mismatch]] = defaultdict(list)
        # The errors of the stretches that such steps are in; None where one could not be run.
        self._errors: dict[tuple[str, ...], list[float | None]] = defaultdict(list)

    def result(self) -> Conformity:
        """Compare all."""
        self._leave_unpaired()
        for name, (step, other) in self._both.named.items():
            self._layer(name, step, other)
        if self.module.failure is not None:
            self._mismatches += self._last_step()
            where = self.module.steps[-1].where if self.module.steps else ""
            self._mismatches.append(Mismatch(where, "result", "a result", f"an error ({self.module.failure})"))
        elif len(self.graph.outputs) != len(self.module.outputs):
            self._mismatches.append(Mismatch("", "outputs", len(self.graph.outputs), len(self.module.outputs)))
        else:
            for place, (wanted, given) in enumerate(zip(self.graph.outputs, self.module.outputs, strict=True)):
                self._settle(_End(None, place), list(self._operands(wanted, given, "", "output")))
        for keys, pending in self._loose.items():
            errors = self._errors[keys]
            measured = [each for each in errors if each is not None]
            if not errors or None in errors or max(measured) > EQUAL:
                error = max(measured, default=None)
                self._mismatches += [replace(mismatch, error=error) for mismatch in pending]
        return Conformity(tuple(dict.fromkeys(self._mismatches)), tuple(dict.fromkeys(self._rewritings)))

    def _leave_unpaired(self) -> None:
        expected, found = _by_keys(self.graph.steps), _by_keys(self.module.steps)
        for keys in dict.fromkeys([*expected, *found]):
            counts = len(expected.get(keys, ())), len(found.get(keys, ()))
            if counts[0] != counts[1] and (self.module.failure is None or keys not in expected):
                self._loose[keys].append(Mismatch(_owner(keys), "uses", *counts))

    def _layer(self, name: str, one: Step, other: Step) -> None:
        """Compare two steps with parameters; those that do the same start new stretches."""
        own = list(self._own(one, other))
        alike = one.kind == other.kind and len(one.operands) == len(other.operands)
        pairs = zip(one.operands.items(), other.operands.values(), strict=True) if alike else ()
        ends = [
            (_End(name, place), list(self._operands(a, b, other.where, label)))
            for place, ((label, a), b) in enumerate(pairs)
        ]
        if not alike or (own and any(found for _, found in ends)):
            # Written in another way altogether, perhaps, as a padding may be: what comes of it decides.
            self._loose[one.keys] += [*own, *(each for _, found in ends for each in found)]
            return
        if own:
            error = self._error_of(one, other)
            self._mismatches += [replace(mismatch, error=error) for mismatch in own]
        moved = [found for end, found in ends if self._settle(end, found, may_move=not own)]
        if moved:
            self._loose[one.keys] += [each for found in moved for each in found]
        else:
            for both in (self._both, *self.__dict__.get("_more", ())):
                both.anchor(name)

    def _settle(self, end: _End, found: list[Mismatch], may_move: bool = False) -> bool:
        """Whether the mismatches before an end are mismatches is for the values to say.

        Returns:
            Whether the values are the same but for their order, and that `may` be; then nothing is settled.
        """
        if not found:
            return False
        measured = self._measured(end)
        if measured is not None and measured.moved and may_move:
            return True
        same = measured is not None and measured.same and not any(each.decided for each in found)
        error = None if measured is None or (measured.same and not same) else measured.error
        for keys in self._loose_before(end):
            self._errors[keys].append(error)
        if measured is not None and same:
            first = found[0]
            self._rewritings.append(Rewriting(first.path, str(first.graph), str(first.module), measured.error))
        else:
            # A layer that differs from itself is told of by what is wrong with it.
            self._mismatches += [replace(each, error=error) for each in found if each.graph != each.module]
        return False

    @cached_property
    def _more(self) -> list[_Both]:
        """Traces at other shapes, with the anchors that there are so far."""
        more = [_Both(*pair) for pair in self._others()]
        for name in dict.fromkeys(self._both.anchors.values()):
            for both in more:
                both.anchor(name)
        return more

    def _measured(self, end: _End) -> Difference | None:
        """How far apart the values at an end are, at every shape; None where that cannot be said."""
        if self.module.failure is not None:
            return None
        try:
            found = [both.difference(*end.operands(both)) for both in (self._both, *self._more)]
        except CannotRunError:
            return None
        worst = max(found, key=lambda each: each.error)
        return replace(worst, moved=worst.moved and all(each.moved or each.same for each in found))

    def _error_of(self, one: Step, other: Step) -> float | None:
        """How far apart the results of two steps are for the same operands."""
        if not one.shapes or not other.shapes:
            return None
        try:
            return self._both.difference(Operand(one, one.shapes[0]), Operand(other, other.shapes[0])).error
        except CannotRunError:
            return None

    def _loose_before(self, end: _End) -> Iterator[tuple[str, ...]]:
        if not self._loose:
            return
        one, other = end.operands(self._both)
        for trace, operand in ((self.graph, one), (self.module, other)):
            for step in Stretch(trace, operand, self._both.anchors).steps():
                if step.keys:
                    yield step.keys

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

    def _own(self, one: Step, other: Step) -> Iterator[Mismatch]:
        """Compare what two steps do."""
        if one.kind != other.kind or len(one.operands) != len(other.operands):
            yield Mismatch(other.where, "operation", describe(one), describe(other))
        for name in one.attributes.keys() | other.attributes.keys() if one.kind == other.kind else ():
            expected, found = one.attributes.get(name), other.attributes.get(name)
            if not alike(expected, found):
                decided = one.kind in WINDOWS
                yield Mismatch(other.where, name, plain(expected), plain(found), decided=decided)

    def _steps(self, one: Step, other: Step) -> Iterator[Mismatch]:
        """Compare what two steps do, and what they do it with."""
        yield from self._own(one, other)
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
        elif isinstance(a, Step) and isinstance(b, Step) and self._are_anchors(a, b):
            if one.part != other.part:
                yield Mismatch(path, label, f"result {one.part} of {_owner(a.keys)}", f"result {other.part}")
        elif a != b or isinstance(a, Step):
            yield Mismatch(path, label, describe(a), describe(b))

    def _are_anchors(self, one: Step, other: Step) -> bool:
        """Whether two steps with parameters are known to do the same, or what they do otherwise is told already."""
        name = self._both.anchors.get(id(one))
        return name is not None and name == self._both.anchors.get(id(other))


def _by_keys(steps: Sequence[Step]) -> dict[tuple[str, ...], list[Step]]:
    found: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        if step.keys:
            found.setdefault(step.keys, []).append(step)
    return found


def _place(path: str) -> str:
    return path or "(the network)"


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
