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

from paddle2torch.architectures.recognise import COUNTER, Expected, expected_tensors
from paddle2torch.architectures.registry import LEAVES, Architecture, Rename, get
from paddle2torch.converter.support.blob import copy_out
from paddle2torch.converter.support.errors import MappingError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]

# What a placeholder of a name template stands for.
PLACEHOLDERS = {"n": r"\d+", "m": r"\d+", "kind": "weight|bias", "gate": "ih|hh", "rest": ".+"}
# Module types whose weight Paddle stores as [in, out] where PyTorch has [out, in].
TRANSPOSED_OWNERS = frozenset({"Linear"})
# How many tensors a message names before it only counts the rest.
SHOWN = 6
SEED = 0


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
        match = _compile(source).fullmatch(name)
        if match:
            return re.sub(r"<(\w+)>", lambda placeholder, found=match: found[placeholder[1]], target)
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
    """A complete state dict, and the account of how it came about.

    Attributes:
        state: every tensor of the module, in the module's order.
        origins: module key → structured name in Paddle; what is missing here was made, not read.
        ignored: structured name → why it was left out.
        initialised: keys that the source lacks and that were drawn from a fixed seed.
        widened: module key → the narrower data type it was stored in.
    """

    state: dict[str, torch.Tensor]
    origins: dict[str, str]
    ignored: dict[str, str]
    initialised: tuple[str, ...]
    widened: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """A mapping that was checked, before any tensor is copied.

    Attributes:
        tensors, name, parameters: see `to_torch`.
        expected: what the module wants.
        ignored, initialised: see `Mapped`.
        origins: see `Mapped`.
    """

    tensors: Mapping[str, np.ndarray]
    name: str
    parameters: Mapping[str, Any]
    expected: dict[str, Expected]
    ignored: dict[str, str]
    initialised: tuple[str, ...]
    origins: dict[str, str]


def to_torch(tensors: Mapping[str, np.ndarray], name: str, parameters: Mapping[str, Any]) -> Mapped:
    """Turn Paddle's tensors into the state dict of an architecture.

    Args:
        tensors: structured name → array, in Paddle's layout.
        name: the architecture.
        parameters: its parameters.

    Raises:
        MappingError: see `plan`. No tensor has been copied then.
    """
    return carried_out(plan(tensors, name, parameters))


def plan(tensors: Mapping[str, np.ndarray], name: str, parameters: Mapping[str, Any]) -> Plan:
    """Decide which tensor goes where, for `carried_out`; arguments as for `to_torch`.

    Raises:
        MappingError: a tensor is missing, left over, of another shape or not a number, or two spellings of one
            parameter differ; the message lists them all.
    """
    architecture = get(name)
    expected = expected_tensors(name, parameters)
    assignment = assign(tensors, architecture)
    optional = tuple(
        prefix for prefix in architecture.optional if not any(key.startswith(prefix) for key in assignment.sources)
    )
    _check(tensors, assignment, expected, optional, architecture)

    initialised = tuple(key for key in expected if key.startswith(optional)) if optional else ()
    origins = {key: assignment.sources[key][-1] for key in expected if key in assignment.sources}
    return Plan(tensors, name, parameters, expected, assignment.ignored, initialised, origins)


def carried_out(plan: Plan) -> Mapped:
    """The state dict that a plan leads to."""
    import torch

    stored = {key: plan.tensors[name] for key, name in plan.origins.items()}
    copies = copy_out(
        {key: array.T if plan.expected[key].owner in TRANSPOSED_OWNERS else array for key, array in stored.items()}
    )
    drawn = _seeded(plan.name, plan.parameters, plan.initialised) if plan.initialised else {}
    state = {}
    for key in plan.expected:
        if key in copies:
            state[key] = torch.from_numpy(copies[key])
        elif key in drawn:
            state[key] = drawn[key]
        else:
            # Paddle's batch norm does not count batches; PyTorch's default momentum never reads the counter.
            state[key] = torch.zeros((), dtype=torch.long)
    widened = {key: str(array.dtype) for key, array in stored.items() if array.dtype != np.float32}
    return Mapped(state, plan.origins, plan.ignored, plan.initialised, widened)


def _check(
    tensors: Mapping[str, np.ndarray],
    assignment: Assignment,
    expected: Mapping[str, Expected],
    optional: tuple[str, ...],
    architecture: Architecture,
) -> None:
    """Everything that must hold before the first tensor is copied."""
    missing = [
        structured_name(key, architecture.renames)
        for key in expected
        if key not in assignment.sources and not key.endswith(COUNTER) and not (optional and key.startswith(optional))
    ]
    left_over, shapes, differing, kinds = [], [], [], []
    for key, sources in assignment.sources.items():
        if key not in expected:
            left_over += sources
            continue
        for source in sources:
            array = tensors[source]
            shape = in_torch_layout(array.shape, expected[key])
            if shape != expected[key].shape:
                shapes.append(f"{source} {list(array.shape)} → {key} {list(expected[key].shape)}")
            if array.dtype.kind != "f":
                kinds.append(f"{source} ({array.dtype})")
        first = tensors[sources[0]]
        differing += [
            f"{sources[0]} ≠ {other}" for other in sources[1:] if not np.array_equal(first, tensors[other], True)
        ]
    problems = [
        ("missing", missing),
        ("left over", left_over),
        ("of another shape", shapes),
        ("not floating-point", kinds),
        ("two spellings of one parameter that differ", differing),
    ]
    found = [(what, names) for what, names in problems if names]
    if found:
        counts = ", ".join(f"{len(names)} {what}" for what, names in found)
        lines = [f"the tensors do not fit {architecture.name}: {counts}; nothing was written"]
        lines += [f"  {what}: {shorten(names)}" for what, names in found]
        raise MappingError("\n".join(lines))


def shorten(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _seeded(name: str, parameters: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """PyTorch's usual initialisation of some tensors, the same at every conversion."""
    import torch

    from paddle2torch.architectures.hollow import create_hollow

    model = create_hollow(name, parameters)
    owners = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    state = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for path in owners:
            module = model.get_submodule(path).to_empty(device="cpu")
            module.reset_parameters()
            state |= {f"{path}.{leaf}": tensor for leaf, tensor in module.state_dict().items()}
    return state


# ---- PyTorch → Paddle --------------------------------------------------------------------------------------------


def to_paddle(state: Mapping[str, torch.Tensor], name: str, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `to_torch`: structured name → array in Paddle's layout, batch-norm counters left out.

    Args:
        state: a complete state dict of the architecture.
        name: the architecture.
        parameters: its parameters.

    Raises:
        MappingError: the state dict is not exactly the architecture's.
    """
    architecture = get(name)
    expected = expected_tensors(name, parameters)
    wanted = {key for key in expected if not key.endswith(COUNTER)}
    given = {key for key in state if not key.endswith(COUNTER)}
    wrong = sorted(key for key in wanted & given if tuple(state[key].shape) != expected[key].shape)
    if wanted != given or wrong:
        raise MappingError(
            f"the state dict is not that of {name}: {len(wanted - given)} tensors missing, {len(given - wanted)} left "
            f"over, {len(wrong)} of another shape ({shorten(sorted(wanted ^ given) + wrong)}); nothing was written"
        )
    tensors = {}
    for key, wanted_tensor in expected.items():
        if not key.endswith(COUNTER):
            array = state[key].detach().cpu().float().numpy()
            array = array.T if wanted_tensor.owner in TRANSPOSED_OWNERS else array
            tensors[structured_name(key, architecture.renames)] = np.ascontiguousarray(array)
    return tensors
