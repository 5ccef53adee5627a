"""Structured names for the tensors of an inference model that came without its `.info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddle2torch.architectures.registry import Architecture
from paddle2torch.converter.graph.pairing import names_from_graph
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.sources import Source, with_names


def named(
    source: Source, architecture: Architecture | None = None, parameters: Mapping[str, Any] | None = None
) -> Source:
    """The source with its tensors under structured names.

    An inference model without its `.info` (Paddle 3 writes none) gets them from the graph: its operators are paired
    with those of a network of the registry.

    Args:
        source: any; one whose names are known is returned as it is.
        architecture: which network, where that is known.
        parameters: of the architecture, where they are known.

    Raises:
        MappingError: no network fits, or several do, or operators cannot be told apart.
        FormatError: the program is inconsistent.
    """
    if source.named_by is not None or source.program is None:
        return source
    graph = graph_from_program(source.program, file=source.path.name)
    pairing = names_from_graph(graph, source.path.name, architecture, parameters)
    return with_names(source, pairing.names, "graph")
