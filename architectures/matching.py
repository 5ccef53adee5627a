"""Which architecture has these tensors? Answered from names and shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .network import OCRModel
from .registry import Architecture, Size

Shape = tuple[int, ...]

# PyTorch's batch norms count their batches; Paddle's do not, and evaluation never reads the counter.
COUNTER = "num_batches_tracked"
# How many tensors a message names before it only counts the rest.
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Expected:
    """What a module wants of one tensor.

    Attributes:
        shape: in the module.
        owner: class name of the module that has it, for example "Linear".
    """

    shape: Shape
    owner: str


def expected_tensors(architecture: Architecture, parameters: Mapping[str, Any]) -> dict[str, Expected]:
    """Every tensor of the module's state dict, batch-norm counters included, in the module's order."""
    settled = architecture.settle(parameters)
    return _expected(architecture, tuple((name, _hashable(value)) for name, value in settled.items()))


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


def empty_network(architecture: Architecture, parameters: Mapping[str, Any]) -> OCRModel:
    """The network on PyTorch's meta device, in evaluation mode: to be looked at, not to be changed.

    The last one is kept: what recognises, maps and compares a model asks for it one after the other, and making it
    takes longer than looking at it.
    """
    settled = architecture.settle(parameters)
    return _empty(architecture, tuple((name, _hashable(value)) for name, value in settled.items()))


@lru_cache(maxsize=1)
def _empty(architecture: Architecture, parameters: tuple[tuple[str, Any], ...]) -> OCRModel:
    return architecture.build_empty(dict(parameters)).eval()


@lru_cache(maxsize=64)
def _expected(architecture: Architecture, parameters: tuple[tuple[str, Any], ...]) -> dict[str, Expected]:
    model = _empty(architecture, parameters)
    owners = {path: type(module).__name__ for path, module in model.named_modules()}
    return {
        key: Expected(tuple(tensor.shape), owners[key.rpartition(".")[0]]) for key, tensor in model.state_dict().items()
    }


# ---- tensors against those that are wanted -----------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """How a set of tensors matches those that a module wants.

    Attributes:
        matched: names present with the right shape.
        missing: names that the module has and the set has not (without batch-norm counters and optional branches).
        unexpected: names that the set has and the module has not.
        mismatched: name → (shape in the set, shape in the module).
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, tuple[Shape, Shape]]

    @property
    def exact(self) -> bool:
        """Whether the set is exactly what the module wants."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def total(self) -> int:
        """The names of the set and of the module together."""
        return len(self.matched) + len(self.missing) + len(self.unexpected) + len(self.mismatched)

    @property
    def score(self) -> float:
        """The share of all names that match in shape."""
        return len(self.matched) / self.total if self.total else 0.0

    def problems(self) -> dict[str, list[str]]:
        """What is wrong → the tensors of which it is, for a message; empty where nothing is."""
        found = {
            "missing": list(self.missing),
            "left over": list(self.unexpected),
            "of another shape": [f"{key} {list(a)} ≠ {list(b)}" for key, (a, b) in self.mismatched.items()],
        }
        return {what: names for what, names in found.items() if names}


def match(shapes: Mapping[str, Shape], expected: Mapping[str, Expected], optional: tuple[str, ...] = ()) -> Match:
    """Compare tensors, under module names and in PyTorch's layout, with those that a module wants.

    Args:
        shapes: name → shape.
        expected: see `expected_tensors`.
        optional: prefixes of what may be missing.
    """
    return Match(
        matched=tuple(key for key, shape in shapes.items() if key in expected and expected[key].shape == shape),
        missing=tuple(
            key
            for key in expected
            if key not in shapes and not key.endswith(COUNTER) and not (optional and key.startswith(optional))
        ),
        unexpected=tuple(key for key in shapes if key not in expected),
        mismatched={
            key: (shape, expected[key].shape)
            for key, shape in shapes.items()
            if key in expected and expected[key].shape != shape
        },
    )


def count(problems: Mapping[str, list[str]]) -> str:
    """In a clause: how many tensors have which problem."""
    return ", ".join(f"{len(names)} {what}" for what, names in problems.items())


def shorten(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = len(listed) - SHOWN
    return ", ".join(listed[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# ---- and against all architectures -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """How well a set of tensors fits an architecture.

    Attributes:
        architecture: which.
        parameters: what the shapes say of its parameters, and what was given; defaults elsewhere.
        match: of the tensors with those of the network with these parameters.
    """

    architecture: Architecture
    parameters: dict[str, Any]
    match: Match


ShapesFor = Callable[[Architecture], Mapping[str, Shape]]
"""The tensors as an architecture would have them: under its module's names and in PyTorch's layout."""


def infer_parameters(architecture: Architecture, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The parameters that names and shapes tell."""
    told = {
        name: parameter.told_by.told(shapes)
        for name, parameter in architecture.parameters.items()
        if parameter.told_by is not None
    }
    return {name: value for name, value in told.items() if value is not None}


def fit(architecture: Architecture, shapes: Mapping[str, Shape], parameters: Mapping[str, Any] | None = None) -> Fit:
    """Compare a set of tensors, under module names and in PyTorch's layout, with an architecture.

    Args:
        architecture: which.
        shapes: name → shape.
        parameters: given ones win over those that the shapes tell.
    """
    settled = {**infer_parameters(architecture, shapes), **(parameters or {})}
    return Fit(architecture, settled, match(shapes, expected_tensors(architecture, settled), architecture.optional))


def rank(
    candidates: Iterable[Architecture], shapes_for: ShapesFor, parameters: Mapping[str, Any] | None = None
) -> list[Fit]:
    """The fit of every candidate, best first."""
    fits = [fit(candidate, shapes_for(candidate), parameters) for candidate in candidates]
    return sorted(fits, key=lambda each: -each.match.score)


def exact_fits(
    candidates: Iterable[Architecture], shapes_for: ShapesFor, parameters: Mapping[str, Any] | None = None
) -> list[Fit]:
    """The candidates, one usually, that have exactly these tensors.

    Few networks are built: where a tensor is missing whose size tells a parameter, no fit is exact.
    """
    found = []
    for candidate in candidates:
        shapes = shapes_for(candidate)
        sizes = [each.told_by for each in candidate.parameters.values() if isinstance(each.told_by, Size)]
        if all(size.told(shapes) is not None for size in sizes):
            found.append(fit(candidate, shapes, parameters))
    return [each for each in found if each.match.exact]
