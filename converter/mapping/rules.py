"""The one engine that turns Paddle's tensors into a module's state dict, and back.

What differs between architectures is data in the registry: name templates and what to ignore. Everything else follows
from the target module itself: which tensors it wants, in which shape, and, through the type of the module that owns a
tensor, whether Paddle stores it transposed. Both directions are strict: every target is filled exactly
once, every source is used or ignored for a reason that is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.matching import COUNTER, Expected, Shape, count, expected_tensors, match, shorten
from paddle2torch.architectures.registry import Architecture, Rename
from paddle2torch.converter.formats.tensors import as_tensors
from paddle2torch.converter.support.errors import MappingError

if TYPE_CHECKING:
    import torch

# What a placeholder of a name template stands for.
PLACEHOLDERS = {"n": r"\d+", "m": r"\d+", "kind": "weight|bias", "gate": "ih|hh", "rest": ".+"}
# Module types whose weight Paddle stores as [in, out] where PyTorch has [out, in].
TRANSPOSED_OWNERS = frozenset({"Linear"})
# What every batch norm of every architecture calls its statistics; applied after the architecture's own templates.
LEAVES: tuple[Rename, ...] = (("<rest>._mean", "<rest>.running_mean"), ("<rest>._variance", "<rest>.running_var"))


# ---- names -------------------------------------------------------------------------------------------------------


@cache
def _compile(template: str) -> re.Pattern[str]:
    """A template as an anchored pattern; a placeholder that comes twice must stand for the same text."""
    pattern, seen = "", set()
    for literal, name in re.findall(r"([^<]*)(?:<(\w+)>)?", template):
        pattern += re.escape(literal)
        if name:
            pattern += f"(?P={name})" if name in seen else f"(?P<{name}>{PLACEHOLDERS[name]})"
            seen.add(name)
    return re.compile(pattern)


def _apply(name: str, table: Iterable[tuple[str, str]]) -> str:
    """The name as the first template that matches it says, or unchanged."""
    for source, target in table:
        found = _compile(source).fullmatch(name)
        if found:
            for placeholder, text in found.groupdict().items():
                target = target.replace(f"<{placeholder}>", text)
            return target
    return name


def module_name(structured: str, renames: Iterable[Rename]) -> str:
    """Paddle's structured name → the module's key."""
    return _apply(_apply(structured, renames), LEAVES)


def structured_name(key: str, renames: Iterable[Rename]) -> str:
    """The module's key → Paddle's structured name, as an inference tarball spells it."""
    backwards = [(target, source) for source, target in LEAVES]
    return _apply(_apply(key, backwards), [(target, source) for source, target in renames])


def in_torch_layout(shape: Shape, wanted: Expected | None) -> Shape:
    """The shape that a tensor of this shape in Paddle has in the module."""
    return shape[::-1] if wanted is not None and wanted.owner in TRANSPOSED_OWNERS else shape


# ---- Paddle → PyTorch --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """Where each tensor goes, before any is touched.

    Attributes:
        sources: module key → the structured names that fill it; several only where a checkpoint spells one parameter
            in several ways.
        ignored: structured name → why it is left out.
    """

    sources: dict[str, list[str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


def assign(names: Iterable[str], architecture: Architecture) -> Assignment:
    """Rename, and sort out what the architecture ignores."""
    assignment = Assignment()
    for name in names:
        reason = next((entry.reason for entry in architecture.ignored if name.startswith(entry.prefix)), None)
        if reason is not None:
            assignment.ignored[name] = reason
        else:
            assignment.sources.setdefault(module_name(name, architecture.renames), []).append(name)
    return assignment


@dataclass(frozen=True)
class Mapped:
    """A complete state dict, and the record of how it came about.

    Attributes:
        state: every tensor of the module, in the module's order.
        origins: module key → structured name in Paddle; what is missing here was made, not read.
        ignored: structured name → why it was left out.
        initialised: keys that the source lacks and that were drawn from a fixed seed.
        widened: module key → the narrower data type it was stored in.
        narrowed: module key → the wider data type that it was rounded from.
        folded: module key → the structured names that were folded into it.
    """

    state: dict[str, torch.Tensor]
    origins: dict[str, str]
    ignored: dict[str, str]
    initialised: tuple[str, ...]
    widened: dict[str, str]
    narrowed: dict[str, str] = field(default_factory=dict)
    folded: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def used(self) -> set[str]:
        """The structured names of all tensors of the source that went into the state dict."""
        return {*self.origins.values(), *(name for names in self.folded.values() for name in names)}


@dataclass(frozen=True)
class Plan:
    """A mapping that was checked, before any tensor is copied.

    Attributes:
        tensors, architecture, parameters: see `to_torch`.
        expected: what the module wants.
        ignored, initialised, origins: see `Mapped`.
    """

    tensors: Mapping[str, np.ndarray]
    architecture: Architecture
    parameters: Mapping[str, Any]
    expected: dict[str, Expected]
    ignored: dict[str, str]
    initialised: tuple[str, ...]
    origins: dict[str, str]


def to_torch(tensors: Mapping[str, np.ndarray], architecture: Architecture, parameters: Mapping[str, Any]) -> Mapped:
    """Turn Paddle's tensors into the state dict of an architecture.

    Args:
        tensors: structured name → array, in Paddle's layout.
        architecture: whose module is to have them.
        parameters: of the architecture.

    Raises:
        MappingError: see `plan`. No tensor has been copied then.
    """
    return execute(plan(tensors, architecture, parameters))


def plan(tensors: Mapping[str, np.ndarray], architecture: Architecture, parameters: Mapping[str, Any]) -> Plan:
    """Decide which tensor goes where, for `execute`; arguments as for `to_torch`.

    Raises:
        MappingError: a tensor is missing, left over, of another shape or not a number, or two spellings of one
            parameter differ; the message lists them all.
    """
    expected = expected_tensors(architecture, parameters)
    assignment = assign(tensors, architecture)
    optional = tuple(
        prefix for prefix in architecture.optional if not any(key.startswith(prefix) for key in assignment.sources)
    )
    _check(tensors, assignment, expected, optional, architecture)

    initialised = tuple(key for key in expected if key.startswith(optional)) if optional else ()
    origins = {key: assignment.sources[key][-1] for key in expected if key in assignment.sources}
    return Plan(tensors, architecture, parameters, expected, assignment.ignored, initialised, origins)


def execute(plan: Plan) -> Mapped:
    """The state dict that a plan leads to."""
    import torch

    from paddle2torch.architectures.seeding import seeded

    stored = {key: plan.tensors[name] for key, name in plan.origins.items()}
    read = as_tensors(
        {key: array.T if plan.expected[key].owner in TRANSPOSED_OWNERS else array for key, array in stored.items()}
    )
    drawn = seeded(plan.architecture, plan.parameters, plan.initialised) if plan.initialised else {}
    state = {}
    for key in plan.expected:
        if key in read:
            state[key] = read[key]
        elif key in drawn:
            state[key] = drawn[key]
        else:
            state[key] = torch.zeros((), dtype=torch.long)  # a batch norm's counter
    other = {key: array.dtype for key, array in stored.items() if array.dtype != np.float32}
    widened = {key: str(dtype) for key, dtype in other.items() if dtype.itemsize < 4}
    narrowed = {key: str(dtype) for key, dtype in other.items() if dtype.itemsize > 4}
    return Mapped(state, plan.origins, plan.ignored, plan.initialised, widened, narrowed)


def _check(
    tensors: Mapping[str, np.ndarray],
    assignment: Assignment,
    expected: Mapping[str, Expected],
    optional: tuple[str, ...],
    architecture: Architecture,
) -> None:
    """Everything that must hold before the first tensor is copied."""
    layout = {
        key: in_torch_layout(tensors[sources[-1]].shape, expected.get(key))
        for key, sources in assignment.sources.items()
    }
    found = match(layout, expected, optional)
    spellings = [sources for sources in assignment.sources.values() if len(sources) > 1]
    wrong = {
        "missing": [structured_name(key, architecture.renames) for key in found.missing],
        "left over": [name for key in found.unexpected for name in assignment.sources[key]],
        "of another shape": [
            f"{assignment.sources[key][-1]} {list(tensors[assignment.sources[key][-1]].shape)} → {key} {list(wanted)}"
            for key, (_, wanted) in found.mismatched.items()
        ],
        "not floating-point": [
            f"{name} ({tensors[name].dtype})"
            for key, sources in assignment.sources.items()
            for name in sources
            if key in expected and tensors[name].dtype.kind != "f"
        ],
        "two spellings of one parameter that differ": [
            f"{first} ≠ {other}"
            for first, *others in spellings
            for other in others
            if not np.array_equal(tensors[first], tensors[other], True)
        ],
    }
    problems = {what: names for what, names in wrong.items() if names}
    if problems:
        lines = [f"the tensors do not fit {architecture.name}: {count(problems)}; nothing was written"]
        lines += [f"  {what}: {shorten(names)}" for what, names in problems.items()]
        raise MappingError("\n".join(lines))


# ---- PyTorch → Paddle --------------------------------------------------------------------------------------------


def to_paddle(
    state: Mapping[str, torch.Tensor], architecture: Architecture, parameters: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The inverse of `to_torch`: structured name → array in Paddle's layout, batch-norm counters left out.

    Args:
        state: a complete state dict of the architecture.
        architecture: whose module has it.
        parameters: of the architecture.

    Raises:
        MappingError: the state dict is not exactly the architecture's.
    """
    expected = expected_tensors(architecture, parameters)
    problems = match({key: tuple(tensor.shape) for key, tensor in state.items()}, expected).problems()
    if problems:
        listed = shorten(name for names in problems.values() for name in names)
        raise MappingError(
            f"the state dict is not that of {architecture.name}: {count(problems)} ({listed}); nothing was written"
        )
    tensors = {}
    for key, wanted in expected.items():
        if not key.endswith(COUNTER):
            array = state[key].detach().cpu().float().numpy()
            array = array.T if wanted.owner in TRANSPOSED_OWNERS else array
            tensors[structured_name(key, architecture.renames)] = np.ascontiguousarray(array)
    return tensors
