"""What a stretch of a traced network computes, in numbers: from given values, in double precision.

A stretch leads from some steps, the anchors, whose results are made up, to one operand behind them. Two spellings of
one computation give the same for all values; two computations show somewhere that they are two, if the values reach
both sides of every kink. So values are made up at several reaches, with the networks' own constants among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from paddle2torch.architectures.graph.operators import SAME
from paddle2torch.converter.graph.shapes import exchanged, flat, tensors_in
from paddle2torch.converter.graph.trace import Operand, Step, Trace, swapped
from paddle2torch.converter.support.interrupts import raise_pending

# Two spellings of one computation differ by some 1e-15 of the largest value.
EQUAL = 1e-9
# Above this no rounding of constants is the reason.
CONSTANTS_MATTER = 1e-4
# Where activations of the released networks bend, besides at their own constants.
KINKS = (0.0, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0)
REACHES = (1.0, 4.0, 16.0)
FARTHEST = 1e6
# Elements that may be computed for a stretch; those of released networks have some millions at most.
MOST_ELEMENTS = 2**25
# Constants of a stretch whose rounding is looked at one by one.
MOST_CONSTANTS = 64

# What a stretch starts from: the identity of a step → its name, which its counterpart in the other network shares.
Anchors = Mapping[int, str]


class CannotRunError(Exception):
    """A stretch has something that cannot be computed here; the text says what."""


@dataclass(frozen=True)
class Stretch:
    """Part of a network.

    Attributes:
        trace: of the network.
        end: what it leads to.
        anchors: what it starts from, besides the network's inputs and parameters.
    """

    trace: Trace
    end: Operand
    anchors: Anchors

    def steps(self) -> list[Step]:
        """Its own steps, each after those that it reads."""
        found: dict[int, Step] = {}
        waiting: list[tuple[Step, bool]] = [(step, False) for step in self._own([self.end])]
        while waiting:
            step, ready = waiting.pop()
            if ready:
                found.setdefault(id(step), step)
            elif id(step) not in found:
                waiting += [(step, True), *((each, False) for each in self._own(operands_of(step)))]
        return list(found.values())

    def _own(self, operands: Sequence[Operand]) -> list[Step]:
        sources = (each.source for each in operands)
        return [each for each in sources if isinstance(each, Step) and id(each) not in self.anchors]

    def constants(self) -> list[float]:
        """The numbers in its calls."""
        return [float(each) for step in self.steps() for each in _numbers(step)]


def operands_of(step: Step) -> list[Operand]:
    """The operands of a step as it is called."""
    if step.call is None:
        return []
    args, kwargs = step.call.arguments
    return [each for each in flat([list(args), list(kwargs.values())]) if isinstance(each, Operand)]


def _numbers(step: Step) -> list[Any]:
    if step.call is None:
        return []
    args, kwargs = step.call.arguments
    return [each for each in flat([list(args), list(kwargs.values())]) if type(each) in (int, float)]


@dataclass(frozen=True)
class Difference:
    """How far apart two stretches are.

    Attributes:
        error: the largest difference, relative to the first one's largest value, without what storing their constants
            in single precision may do to them; infinite where the two have other shapes.
        moved: whether the same values come out in another order, or under another shape.
    """

    error: float
    moved: bool = False

    @property
    def same(self) -> bool:
        """Whether both compute the same."""
        return self.error <= EQUAL


def difference(one: Stretch, other: Stretch) -> Difference:
    """Run two stretches on the same made-up values.

    A program's constants have single precision, and the network's may have double: one of the second stretch that
    single precision hardly tells from one of the first is taken to be that one.

    Raises:
        CannotRunError: one of them cannot be computed.
    """
    constants = [each for each in (*one.constants(), *other.constants()) if abs(each) <= FARTHEST]
    farthest = 2.0 * max(map(abs, constants), default=0.0)
    kinks = tuple(sorted({*KINKS, *constants}))
    known = tuple(one.constants())
    worst, moved, seen = 0.0, True, False
    for trial, reach in enumerate(dict.fromkeys((*REACHES, max(farthest, 1.0)))):
        given = _Given(trial, reach, kinks)
        expected, found = _run(one, given), _run(other, given, known)
        if expected.shape == found.shape:
            apart, size = _apart(expected, found)
            if size and EQUAL < apart / size < CONSTANTS_MATTER:
                allowed = _rounding(one, given, expected, ()) + _rounding(other, given, found, known)
                apart = max(0.0, apart - allowed)
        else:
            apart, size = math.inf, 1.0
        if size:
            seen, worst = True, max(worst, apart / size)
            moved = moved and _is_moved(expected, found)
    if not seen:
        raise CannotRunError("its values are no numbers, or zeros")
    return Difference(worst, moved and worst > EQUAL)


def _is_moved(expected: Tensor, found: Tensor) -> bool:
    if expected.numel() != found.numel():
        return False
    apart, size = _apart(expected.reshape(-1).sort().values, found.reshape(-1).sort().values)
    return apart <= EQUAL * size


def _apart(expected: Tensor, found: Tensor) -> tuple[float, float]:
    """The largest difference, and the largest value; of numbers alone, which have to be at the same places."""
    usable = expected.isfinite()
    if not torch.equal(usable, found.isfinite()):
        return math.inf, 1.0
    if not usable.any():
        return 0.0, 0.0
    size = float(expected[usable].abs().max())
    apart = float((expected[usable] - found[usable]).abs().max())
    return (apart, size) if size else (apart, float(apart > 0))


def _rounding(stretch: Stretch, given: _Given, result: Tensor, known: Sequence[float]) -> float:
    """By how much the result changes where its constants are others that single precision cannot tell from them."""
    count = sum(type(each) is float for step in stretch.steps() for each in _numbers(step))
    if count > MOST_CONSTANTS:
        return 0.0
    return sum(_apart(result, _run(stretch, given, known, changed))[0] for changed in range(count))


@dataclass(frozen=True)
class _Given:
    """Made-up values: the same for the same name, in the same trial.

    Attributes:
        trial: its number.
        reach: how far the values go on both sides of zero.
        kinks: values that are certain to be among them.
    """

    trial: int
    reach: float
    kinks: tuple[float, ...]

    def __call__(self, name: str, shape: Sequence[int]) -> Tensor:
        random = np.random.default_rng([crc32(name.encode()), self.trial])
        values = random.uniform(-self.reach, self.reach, tuple(shape))
        exact = random.random(values.shape) < 0.1
        values[exact] = random.choice(self.kinks, int(exact.sum()))
        if name.endswith("running_var"):
            values = np.abs(values) + 0.1
        return torch.from_numpy(values)


def _run(stretch: Stretch, given: _Given, known: Sequence[float] = (), changed: int | None = None) -> Tensor:
    """What a stretch leads to.

    Args:
        stretch: see there.
        given: values for its anchors, the network's inputs and parameters.
        known: constants to take where its own hardly differ.
        changed: which of its floating-point constants to change by what single precision loses.

    Raises:
        CannotRunError: it cannot be computed.
    """
    results: dict[int, tuple[Tensor, ...]] = {}
    left, constants = MOST_ELEMENTS, _Constants(known, changed)

    def value(operand: Operand) -> Tensor:
        source = operand.source
        if isinstance(source, str):
            tensor = _parameter(stretch.trace, operand, given)
        elif isinstance(source, int):
            tensor = given(f"input {source}", operand.shape)
        elif id(source) in stretch.anchors:
            tensor = given(f"{stretch.anchors[id(source)]} {operand.part}", operand.shape)
        else:
            tensor = results[id(source)][operand.part].reshape(operand.shape)
        return tensor if operand.places is None else tensor.reshape(-1)[operand.places]

    for step in stretch.steps():
        left -= sum(math.prod(shape) for shape in step.shapes)
        left -= sum(0 if each.places is None else each.places.numel() for each in operands_of(step))
        if left < 0:
            raise CannotRunError("it is larger than any stretch of a network")
        results[id(step)] = _called(step, value, constants)
    return value(stretch.end).double()


class _Constants:
    """Exchanges floating-point constants as they pass by; see `_run`."""

    def __init__(self, known: Sequence[float], changed: int | None) -> None:
        self._known, self._left = known, changed

    def __call__(self, constant: Any) -> Any:
        if type(constant) is not float:
            return constant
        constant = next((each for each in self._known if math.isclose(each, constant, rel_tol=SAME)), constant)
        if self._left is not None:
            self._left -= 1
        return constant * (1 + SAME) if self._left == -1 else constant


def _called(step: Step, value: Callable[[Operand], Tensor], constants: _Constants) -> tuple[Tensor, ...]:
    """The results of a step."""
    if step.call is None:
        if step.value is None:
            raise CannotRunError("it has a constant without a value")
        return (_precise(step.value),)
    call = step.call
    args, kwargs = exchanged(exchanged(call.arguments, float, constants), Operand, value)
    if call.in_place:
        args = (args[0].clone(), *args[1:])
    try:
        with torch.no_grad():
            found = tensors_in(call.function(*args, **kwargs))
    except Exception as error:  # what PyTorch raises at values that it was not traced with
        raise_pending(error)
        raise CannotRunError(f"{step.kind} cannot be computed in double precision") from error
    first, *others = map(_precise, found)
    return (swapped(first) if call.turned else first, *others)


def _precise(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _parameter(trace: Trace, operand: Operand, given: _Given) -> Tensor:
    """A parameter, the same in either network however it lies in memory."""
    shape = operand.shape
    if operand.source in trace.turned:
        return given(str(operand.source), shape[::-1]).permute(*range(len(shape))[::-1])
    return given(str(operand.source), shape)
