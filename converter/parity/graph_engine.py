"""The graph as a reference: it answers what the Paddle process answers, computed by PyTorch, so without Paddle."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import fx

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.converter.graph.build import build_module
from paddle2torch.converter.parity.capture import Recorder, constants_of, few_threads
from paddle2torch.converter.parity.reference import Precision, ReferenceOperator, ReferenceProgram

# Where the comparison of layers goes by Paddle's name of an operator.
PADDLE_NAMES = {"lstm": "rnn"}


class GraphReference:
    """A graph with its weights, to compare another network with.

    Args:
        graph: the network.
        tensors: by `graph.tensor_names()`, in Paddle's layout.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, np.ndarray]) -> None:
        self.module = build_module(graph, tensors=tensors)
        self._double: fx.GraphModule | None = None
        self.program = reference_program(graph)

    def run(self, inputs: np.ndarray, fetch: Sequence[str], precision: Precision = "single") -> dict[str, np.ndarray]:
        """Run the network and return some of its values.

        Args:
            inputs: float32 (N, 3, H, W).
            fetch: names of values of the graph.
            precision: "double" for the same network in float64.
        """
        recorder = Recorder(self._module(precision), frozenset(fetch))
        images = torch.from_numpy(inputs)
        with few_threads(), torch.inference_mode(), constants_of(precision):
            recorder.run(images.double() if precision == "double" else images)
        return {name: recorder.found[name] for name in fetch}

    def _module(self, precision: Precision) -> fx.GraphModule:
        if precision == "single":
            return self.module
        if self._double is None:
            self._double = copy.deepcopy(self.module).double()
        return self._double


def reference_program(graph: Graph) -> ReferenceProgram:
    """A graph as Paddle describes a program."""
    return ReferenceProgram(
        feeds=tuple(graph.inputs),
        fetches=graph.outputs,
        parameters={variable: parameter.shape for variable, parameter in graph.parameters.items()},
        operators=tuple(
            ReferenceOperator(PADDLE_NAMES.get(node.type, node.type), node.reads, node.outputs[0])
            for node in graph.nodes
        ),
    )
