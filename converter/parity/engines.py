"""What a network is compared with: the program run by Paddle itself, and the same program run by PyTorch as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from paddle2torch.converter.parity.reference import PaddleWorker, Precision, ReferenceProgram

if TYPE_CHECKING:
    from paddle2torch.converter.parity.programs import PreparedProgram

Values = dict[str, np.ndarray]


class Engine(Protocol):
    """Runs one program.

    Attributes:
        name: as sentences have it.
        program: its operators and their values.
    """

    name: str
    program: ReferenceProgram

    def submit(self, inputs: np.ndarray, fetch: Sequence[str], precision: Precision) -> Future[Values]:
        """Run the program on a batch, float32 (N, 3, H, W); the named values, once they are there."""
        ...


class PaddleEngine:
    """Paddle, in its own process.

    Args:
        prepared: the program and its weights.
        worker: a running Paddle process.
        folder: an empty folder for the program's files, which must last as long as this object.

    Raises:
        PaddleError: Paddle is missing or refuses the program.
        OutputError: the folder cannot be written.
    """

    name = "Paddle"

    def __init__(self, prepared: PreparedProgram, worker: PaddleWorker, folder: Path) -> None:
        self._worker, self._prepared = worker, prepared
        prepared.write(folder)
        self.program = worker.load(folder, prepared.form)

    def submit(self, inputs: np.ndarray, fetch: Sequence[str], precision: Precision) -> Future[Values]:
        """See `Engine`; Paddle works while the caller does."""
        self._prepared.require_bounded(inputs)
        return self._worker.submit(inputs, fetch, precision)


class GraphEngine:
    """PyTorch, with the program's graph in place of a network written by hand.

    Args:
        prepared: the program and its weights.

    Raises:
        MappingError: tensors are missing or of another shape.
    """

    name = "the graph"

    def __init__(self, prepared: PreparedProgram) -> None:
        from paddle2torch.converter.parity.graph_engine import GraphReference

        self._prepared = prepared
        self._reference = GraphReference(prepared.graph, prepared.arrays)
        self.program = self._reference.program

    def submit(self, inputs: np.ndarray, fetch: Sequence[str], precision: Precision) -> Future[Values]:
        """See `Engine`; the values are there when this returns."""
        self._prepared.require_bounded(inputs)
        future: Future[Values] = Future()
        future.set_result(self._reference.run(inputs, fetch, precision))
        return future
