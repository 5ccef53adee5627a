"""What was converted, seen from what comes after: a network of the registry, or a program's graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import nn

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.architectures.records import GRAPH, Preprocessing
from paddle2torch.architectures.registry import Architecture, Task
from paddle2torch.converter.graph.build import build_module


class Network(Protocol):
    """A network without its weights.

    Attributes:
        name: of the architecture, or "graph".
        task: what it is for.
        summary: one line for a person.
        design: where it comes from.
        parameters: what tells it from others of its name.
        preprocessing: how an image becomes its input.
        optional: prefixes of modules that evaluation does not use.
        graph: the network itself, where that is a program's graph.
    """

    @property
    def name(self) -> str: ...
    @property
    def task(self) -> Task: ...
    @property
    def summary(self) -> str: ...
    @property
    def design(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def optional(self) -> tuple[str, ...]: ...
    @property
    def graph(self) -> Graph | None: ...

    def build_empty(self) -> nn.Module:
        """The module, for `load_state_dict(…, assign=True)`."""


@dataclass(frozen=True)
class NamedNetwork:
    """A network of the registry; see `Network`."""

    architecture: Architecture
    parameters: dict[str, Any]
    preprocessing: Preprocessing
    graph: ClassVar[None] = None

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def task(self) -> Task:
        return self.architecture.task

    @property
    def summary(self) -> str:
        return self.architecture.summary

    @property
    def design(self) -> str:
        return self.architecture.source

    @property
    def optional(self) -> tuple[str, ...]:
        return self.architecture.optional

    def build_empty(self) -> nn.Module:
        return self.architecture.build_empty(self.parameters)


@dataclass(frozen=True)
class GraphNetwork:
    """A program's graph; see `Network`.

    Attributes:
        file: the program's, for messages.
    """

    graph: Graph
    file: str
    task: Task
    parameters: dict[str, Any]
    preprocessing: Preprocessing
    name: ClassVar[str] = GRAPH
    design: ClassVar[str] = "the model's own program"
    optional: ClassVar[tuple[str, ...]] = ()

    @property
    def summary(self) -> str:
        return f"{sum(self.graph.operators().values())} operators of the model's own program"

    def build_empty(self) -> nn.Module:
        return build_module(self.graph, self.file)
