"""What an architecture is, and the table of all of them.

An architecture is backbone × neck × head for a task. Each of the three is a `Part`, which knows its module, the
parameters by which networks differ, what its tensors are called in Paddle, and which keys of a PaddleOCR configuration
mean it. A file in `families/` registers the architectures of one backbone; all files there are found by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from torch import nn

from .network import OCRModel
from .records import Preprocessing, Task

Rename = tuple[str, str]
Agrees = Callable[[Any, Mapping[str, Any]], bool]
ROLES = ("backbone", "neck", "head")


# ---- what a weight tells of a parameter --------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """The size of a tensor's axis.

    Attributes:
        key: of the tensor in the module's state dict.
        axis: of the tensor, in PyTorch's layout.
    """

    key: str
    axis: int

    def told(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """The value, or None where the tensor is not there."""
        return shapes[self.key][self.axis] if len(shapes.get(self.key, ())) > self.axis else None


@dataclass(frozen=True)
class Count:
    """How many entries of a pattern there are, as of branches or blocks.

    Attributes:
        pattern: key of the state dict in which `<n>` stands for the entry's number.
    """

    pattern: str

    def told(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """The count, or None where there is no entry."""
        expression = re.compile(r"\d+".join(map(re.escape, self.pattern.split("<n>"))))
        return sum(1 for key in shapes if expression.fullmatch(key)) or None


@dataclass(frozen=True)
class Present:
    """Whether the state dict has a tensor.

    Attributes:
        key: of the tensor.
    """

    key: str

    def told(self, shapes: Mapping[str, tuple[int, ...]]) -> bool | None:
        """Always an answer."""
        return self.key in shapes


@dataclass(frozen=True)
class Absent(Present):
    """Whether the state dict lacks a tensor; see `Present`."""

    def told(self, shapes: Mapping[str, tuple[int, ...]]) -> bool | None:
        """Always an answer."""
        return self.key not in shapes


# ---- parts and architectures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """A value by which networks of one architecture differ; an argument of its part's module.

    Attributes:
        default: of the released models.
        told_by: what tells it in a state dict, where the weights tell it.
        config: key below `Architecture` at which a PaddleOCR configuration gives it.
        absent: what a configuration without that key means, where that is not the default.
        choices: all values, where there are few and the layers, or how they are connected, depend on it. A program
            tells which, even where no name of a tensor is known.
        read: turns what a configuration gives into the value, where it is not simply of the default's type; raises
            ValueError, KeyError or TypeError where it cannot.
    """

    default: Any
    told_by: Size | Count | Present | None = None
    config: str | None = None
    absent: Any = None
    choices: tuple[Any, ...] = ()
    read: Callable[[Any], Any] | None = None

    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The values among which a program can tell, the default first."""
        choices = (False, True) if isinstance(self.default, bool) else self.choices
        return (self.default, *(value for value in choices if value != self.default))


@dataclass(frozen=True)
class Ignored:
    """Source tensors that conversion leaves out on purpose.

    Attributes:
        prefix: of their names in Paddle.
        reason: why, for the user.
    """

    prefix: str
    reason: str


@dataclass(frozen=True, eq=False)
class Part:
    """A backbone, neck or head. All names in it are full ones, "backbone.…", "neck.…" or "head.…".

    Attributes:
        build: makes the module; takes `in_channels` (but for a backbone), the arguments and the parameters. The
            module's `out_channels`, where it has them, are the next part's `in_channels`.
        arguments: that all models with this part share.
        parameters: argument → what is known of it.
        config: keys below `Architecture` in a PaddleOCR configuration → the value that means this part.
        fixed: further such keys, which change the network upstream → the values that this one has; None among them
            where the key may be absent.
        harmless: further such keys, which matter to training alone or which upstream does not read.
        agrees: further such keys, whose value the weights tell in another way → whether a value goes with the
            parameters.
        renames: (name in Paddle, name in the module) templates; the first that matches wins, a name that matches none
            stays. `<n>` and `<m>` stand for digits, `<kind>` and `<gate>` for the words of an LSTM parameter's name,
            `<rest>` for anything.
        ignored: source tensors to leave out.
        optional: module prefixes that inference models lack; they are then initialised from a fixed seed.
        one_row: tensors that are kernels one row high here, and square in other people's conversions.
    """

    build: Callable[..., nn.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    harmless: tuple[str, ...] = ()
    agrees: Mapping[str, Agrees] = field(default_factory=dict)
    renames: tuple[Rename, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    optional: tuple[str, ...] = ()
    one_row: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network.

    Attributes:
        name: as in `model_zoo.yaml`.
        task: "det", "rec" or "cls".
        summary: one line for a person.
        source: where the design comes from.
        backbone, neck, head: its parts; a classifier has no neck.
        preprocessing: how an image becomes the input, unless a model says otherwise.
    """

    name: str
    task: Task
    summary: str
    source: str
    backbone: Part
    head: Part
    preprocessing: Preprocessing
    neck: Part | None = None

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Role → part, in the order in which data pass them."""
        parts = zip(ROLES, (self.backbone, self.neck, self.head), strict=True)
        return {role: part for role, part in parts if part is not None}

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Those of all parts."""
        return {name: parameter for part in self.parts.values() for name, parameter in part.parameters.items()}

    @cached_property
    def config(self) -> dict[str, Any]:
        """What in a configuration means this architecture; None where a key must be absent or empty."""
        found = {key: value for part in self.parts.values() for key, value in part.config.items()}
        # The neck of a recogniser's head is a part of that head.
        has_neck = any(key.startswith("Neck.") for key in found)
        return found if has_neck else found | {"Neck.name": None}

    @cached_property
    def fixed(self) -> dict[str, tuple[Any, ...]]:
        """Those of all parts."""
        return {key: values for part in self.parts.values() for key, values in part.fixed.items()}

    @cached_property
    def harmless(self) -> frozenset[str]:
        """Those of all parts."""
        return frozenset(key for part in self.parts.values() for key in part.harmless)

    @cached_property
    def agrees(self) -> dict[str, Agrees]:
        """Those of all parts."""
        return {key: agrees for part in self.parts.values() for key, agrees in part.agrees.items()}

    @cached_property
    def renames(self) -> tuple[Rename, ...]:
        """Those of all parts, in their order."""
        return tuple(rename for part in self.parts.values() for rename in part.renames)

    @cached_property
    def ignored(self) -> tuple[Ignored, ...]:
        """Those of all parts."""
        return tuple(entry for part in self.parts.values() for entry in part.ignored)

    @cached_property
    def optional(self) -> tuple[str, ...]:
        """Those of all parts."""
        return tuple(prefix for part in self.parts.values() for prefix in part.optional)

    @cached_property
    def one_row(self) -> frozenset[str]:
        """Those of all parts."""
        return frozenset(key for part in self.parts.values() for key in part.one_row)

    def settle(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter: the given value, or the default.

        Raises:
            ValueError: a parameter that this architecture does not have.
        """
        unknown = parameters.keys() - self.parameters.keys()
        if unknown:
            has = ", ".join(self.parameters) or "none"
            raise ValueError(f"{self.name} has no parameter {', '.join(sorted(unknown))}; it has: {has}")
        return {name: parameters.get(name, parameter.default) for name, parameter in self.parameters.items()}

    def build(self, parameters: Mapping[str, Any] | None = None) -> OCRModel:
        """A freshly initialised network, in training mode.

        Args:
            parameters: where it differs from the default.

        Raises:
            ValueError: a parameter that this architecture does not have.
        """
        settled = self.settle(parameters or {})
        built: dict[str, nn.Module] = {}
        channels: dict[str, Any] = {}
        for role, part in self.parts.items():
            chosen = {name: settled[name] for name in part.parameters}
            built[role] = part.build(**channels, **part.arguments, **chosen)
            channels = {"in_channels": getattr(built[role], "out_channels", None)}
        return OCRModel(self.task, **built)

    def build_empty(self, parameters: Mapping[str, Any] | None = None) -> OCRModel:
        """The network on PyTorch's meta device: names and shapes without memory, for `load_state_dict(…, assign=True)`.

        Raises:
            ValueError: see `build`.
        """
        with torch.device("meta"):
            return self.build(parameters)


_table: dict[str, Architecture] = {}


def register(*given: Architecture) -> None:
    """Add architectures to the table.

    Raises:
        ValueError: a name is taken, or two parts of one have a parameter of one name.
    """
    for architecture in given:
        if architecture.name in _table:
            raise ValueError(f"there is an architecture {architecture.name} already")
        names = [name for part in architecture.parts.values() for name in part.parameters]
        if len(names) > len(set(names)):
            raise ValueError(f"{architecture.name}: two of its parts have a parameter of one name ({', '.join(names)})")
        _table[architecture.name] = architecture


@cache
def _load_families() -> None:
    families = importlib.import_module(".families", __package__)
    for module in sorted(each.name for each in pkgutil.iter_modules(families.__path__)):
        importlib.import_module(f"{families.__name__}.{module}")


def architectures() -> list[Architecture]:
    """All of them, by name."""
    _load_families()
    return sorted(_table.values(), key=lambda each: each.name)


def get(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ValueError: there is none; the message lists all.
    """
    _load_families()
    if name not in _table:
        raise ValueError(f"there is no architecture {name!r}; there are: {', '.join(list_models())}")
    return _table[name]


def list_models(task: Task | None = None) -> list[str]:
    """The names of all architectures, or of one task's ("det", "rec" or "cls")."""
    return [each.name for each in architectures() if task in (None, each.task)]


def create_model(name: str, **parameters: Any) -> OCRModel:
    """A freshly initialised network, in training mode.

    Args:
        name: an architecture, see `list_models`.
        **parameters: where it differs from the default, for example `classes=97`.

    Raises:
        ValueError: there is no such architecture, or it has no such parameter.
    """
    return get(name).build(parameters)
