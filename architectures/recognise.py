"""Which architecture has these tensors? Answered from names and shapes alone."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .registry import ARCHITECTURES, Architecture, make_parts

Shape = tuple[int, ...]

COUNTER = "num_batches_tracked"
# Of parts, a few kilobytes each: all that the architectures have, and heads for the classes of many languages.
MOST_OUTLINES = 64


@dataclass(frozen=True, slots=True)
class Expected:
    """What a module wants of one tensor.

    Attributes:
        shape: in the module.
        owner: class name of the module that has it, for example "Linear".
    """

    shape: Shape
    owner: str


@dataclass(frozen=True)
class Fit:
    """How well a set of tensors fits an architecture.

    Attributes:
        architecture: name.
        parameters: what the shapes say of its parameters; defaults elsewhere.
        matched: names present with the right shape.
        missing: names the module has and the set has not (without batch-norm counters and optional branches).
        unexpected: names the set has and the module has not.
        mismatched: name → (shape in the set, shape in the module).
    """

    architecture: str
    parameters: dict[str, Any]
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, tuple[Shape, Shape]]

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def score(self) -> float:
        """Share of the names, of the set and of the module together, that match in shape."""
        total = len(self.matched) + len(self.missing) + len(self.unexpected) + len(self.mismatched)
        return len(self.matched) / total if total else 0.0


@dataclass(frozen=True)
class _Outline:
    """What is kept of a part: what it wants, and what it hands on."""

    tensors: dict[str, Expected]
    out_channels: Any


def expected_tensors(name: str, parameters: Mapping[str, Any]) -> dict[str, Expected]:
    """Every tensor of the module's state dict, batch-norm counters included, in the module's order."""
    from .hollow import hashable

    parts = make_parts(name, parameters, lambda target, arguments: _outline(target, hashable(arguments)))
    return {f"{part}.{key}": wanted for part, outline in parts.items() for key, wanted in outline.tensors.items()}


@lru_cache(maxsize=MOST_OUTLINES)
def _outline(target: str, arguments: tuple[tuple[str, Any], ...]) -> _Outline:
    from .hollow import shared_part

    part = shared_part(target, dict(arguments))
    owners = {prefix: type(module).__name__ for prefix, module in part.named_modules()}
    tensors = {
        key: Expected(tuple(tensor.shape), owners[key.rpartition(".")[0]]) for key, tensor in part.state_dict().items()
    }
    return _Outline(tensors, getattr(part, "out_channels", None))


def infer_parameters(architecture: Architecture, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The parameters that the shapes tell, as far as the named tensors are there."""
    found = {}
    for name, parameter in architecture.parameters.items():
        if parameter.inferred_from:
            key, axis = parameter.inferred_from
            if len(shapes.get(key, ())) > axis:
                found[name] = shapes[key][axis]
    return found


def fit(architecture: Architecture, shapes: Mapping[str, Shape], parameters: Mapping[str, Any] | None = None) -> Fit:
    """Compare a set of tensors, under module names and in PyTorch's layout, with an architecture.

    Args:
        shapes: name → shape.
        parameters: given ones win over those that the shapes tell.
    """
    settled = {**infer_parameters(architecture, shapes), **(parameters or {})}
    expected = expected_tensors(architecture.name, settled)
    matched = tuple(key for key, shape in shapes.items() if key in expected and expected[key].shape == shape)
    return Fit(
        architecture=architecture.name,
        parameters=settled,
        matched=matched,
        missing=tuple(
            key
            for key in expected
            if key not in shapes and not key.endswith(COUNTER) and not key.startswith(architecture.optional)
        ),
        unexpected=tuple(key for key in shapes if key not in expected),
        mismatched={
            key: (shape, expected[key].shape)
            for key, shape in shapes.items()
            if key in expected and expected[key].shape != shape
        },
    )


def may_fit(architecture: Architecture, names: Container[str]) -> bool:
    """Whether the tensors are there by which an architecture's parameters are told; without them no fit is exact.

    A quick look: the other architectures' networks need not be made.
    """
    return all(
        parameter.inferred_from[0] in names for parameter in architecture.parameters.values() if parameter.inferred_from
    )


def exact_fits(shapes: Mapping[str, Shape]) -> list[Fit]:
    """The architectures, one usually, that have exactly these tensors; see `recognise`."""
    fits = (fit(architecture, shapes) for architecture in ARCHITECTURES.values() if may_fit(architecture, shapes))
    return [each for each in fits if each.exact]


def recognise(shapes: Mapping[str, Shape]) -> list[Fit]:
    """All architectures, the best fit first, for tensors under module names and in PyTorch's layout."""
    return sorted((fit(architecture, shapes) for architecture in ARCHITECTURES.values()), key=lambda f: -f.score)
