"""The module of a graph with its weights, from Paddle's arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import fx

from paddle2torch.architectures.graph.form import Graph, GraphError
from paddle2torch.architectures.graph.module import graph_to_module, lay_out
from paddle2torch.architectures.matching import COUNTER, shorten
from paddle2torch.converter.formats.tensors import as_tensors
from paddle2torch.converter.support.boundary import boundary
from paddle2torch.converter.support.errors import FormatError, MappingError


def build_module(
    graph: Graph, file: str = "the graph", tensors: Mapping[str, np.ndarray] | None = None
) -> fx.GraphModule:
    """`graph_to_module`, with the errors of this package and, where they are given, the weights.

    Args:
        graph: the network.
        file: what to call it in messages.
        tensors: by `graph.tensor_names()`, in Paddle's layout; those that the graph does not read are passed over.
            Without them the module has no numbers.

    Raises:
        FormatError: the graph has operators or attributes that the table does not know, or names that clash.
        MappingError: tensors are missing or of another shape.
    """
    with boundary(file, "a network"):
        try:
            module = graph_to_module(graph)
        except GraphError as error:
            raise FormatError(file, error.problem) from error
    if tensors is not None:
        counters = {key: torch.zeros((), dtype=torch.long) for key in module.state_dict() if key.endswith(COUNTER)}
        module.load_state_dict(_state(graph, tensors) | counters, strict=True, assign=True)
    return module


def _state(graph: Graph, tensors: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The tensors under the module's keys, in its layout; floats as float32."""
    names = graph.tensor_names()
    found = {variable: tensors[name].shape for variable, name in names.items() if name in tensors}
    wrong = [
        f"{names[variable]} {list(found[variable]) if variable in found else '(missing)'} → {list(parameter.shape)}"
        for variable, parameter in graph.parameters.items()
        if found.get(variable) != parameter.shape
    ]
    if wrong:
        raise MappingError(f"{len(wrong)} tensors do not fit the graph: {shorten(wrong)}")
    arrays = {}
    for key, origin in lay_out(graph).origins.items():
        array = tensors[names[origin.variable]]
        arrays[key] = array.T if origin.transposed else array
    # A module of its own memory: training it must not change the arrays that were read.
    return {key: tensor.clone() for key, tensor in as_tensors(arrays).items()}
