"""What there is to know of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from paddle2torch.architectures.records import Preprocessing


@dataclass(frozen=True)
class Value:
    """An input or output of a network.

    Attributes:
        name: what exported files call it.
        axes: those of varying size → name.
        meaning: what it is, where there are several.
    """

    name: str
    axes: Mapping[int, str]
    meaning: str = ""


@dataclass(frozen=True)
class Batch:
    """The size of a batch of sample images.

    Attributes:
        count: images.
        width, height: of each, in pixels; a fixed size of the network's wins over it.
    """

    count: int
    width: int
    height: int = 64

    def shape(self, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
        """(N, 3, H, W) of the batch for a network with this preprocessing."""
        size = preprocessing.size
        width = size.width if size.mode in ("stretch", "crop") else None
        return self.count, 3, size.height or self.height, width or self.width


@dataclass(frozen=True)
class Answer:
    """What two implementations say about one image.

    Attributes:
        reference: the reference's answer, for people to read.
        candidate: the candidate's.
        agrees: whether they are the same (texts, classes), or nearly (maps).
        overlap: intersection over union of the thresholded maps; detectors only.
        undecided: whether the reference's rounding alone changes its answer, so that only double precision can tell.
    """

    reference: str
    candidate: str
    agrees: bool
    overlap: float | None = None
    undecided: bool = False


class Task(ABC):
    """A task.

    Attributes:
        name: "det", "rec" or "cls".
        title: what a network for it is called.
        inputs, outputs: in the network's order.
        preprocessing: how an image usually becomes the input, where nothing tells.
        samples: batches of rendered text to compare networks on. Odd widths show where a stride or a pooling rounds the
            other way.
        noise: a batch of random pixels for the same.
        small: a small batch that every network of the task takes.
        traced, exported: the batch with which a network is exported, and those on which the file is compared, all
            unlike it. Two images are traced: one could be taken for a constant.
        labelled: whether classes have labels.
        reads: whether a dictionary of characters tells the labels.
        pipeline: the Hugging Face Hub's name for the task.
        tag: a further one on the Hub.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    inputs: ClassVar[tuple[Value, ...]]
    outputs: ClassVar[tuple[Value, ...]]
    preprocessing: ClassVar[Preprocessing]
    samples: ClassVar[tuple[Batch, ...]]
    noise: ClassVar[Batch]
    small: ClassVar[Batch]
    traced: ClassVar[Batch]
    exported: ClassVar[tuple[Batch, ...]]
    labelled: ClassVar[bool] = True
    reads: ClassVar[bool] = False
    pipeline: ClassVar[str]
    tag: ClassVar[str]

    def several(self, count: int, derived: bool) -> tuple[Value, ...] | None:
        """The outputs of a network that returns several; None where no network of this task does.

        Args:
            count: of them.
            derived: whether the others are computed from the first.
        """
        return None

    @abstractmethod
    def parameters_of(self, output: tuple[int, ...]) -> dict[str, Any] | None:
        """What the shape of a network's output tells of it; None where no network of this task has such an output."""

    @abstractmethod
    def render(self, index: int, height: int, width: int) -> np.ndarray:
        """A sample image, uint8 (`height`, `width`, 3), RGB; another one for each index, the same at every call."""

    @abstractmethod
    def compare(self, reference: np.ndarray, candidate: np.ndarray, labels: Sequence[str] | None) -> list[Answer]:
        """What two outputs of the same shape mean, per image.

        Args:
            reference, candidate: the network's output as each implementation has it.
            labels: a text per class, where known.
        """

    def labels_of(self, parameters: Mapping[str, Any]) -> list[str] | None:
        """The labels that need no dictionary; None where only a dictionary or nothing tells them."""
        return None

    @abstractmethod
    def describe_output(self, parameters: Mapping[str, Any]) -> str:
        """The output, for a model card."""

    @abstractmethod
    def describe_labels(self, name: str, missing: str | None) -> str | None:
        """How the output is understood, for a model card.

        Args:
            name: of the model.
            missing: why the labels are not known, where they are not.
        """
