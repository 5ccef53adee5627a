"""Detection: where on a page there is text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddle2torch.architectures.preprocessing import DETECTION
from paddle2torch.converter.ocr.rendering import render_page
from paddle2torch.converter.tasks.task import Answer, Batch, Task, Value

PAGE = (
    "Paddle and Torch read 1984",
    "Total 37,50 EUR (incl. 19%)",
    "The quick brown fox jumps",
    "over the lazy dog",
    "0123456789",
)
MAP_THRESHOLD = 0.3  # as upstream's DB post-processing
MAP_AGREEMENT = 0.999  # intersection over union of the thresholded maps
AREA = {0: "batch", 2: "height", 3: "width"}


# Of PP-OCRv4's server detector, in its program's order; see `paddle2torch.architectures.pfhead.BothMaps`.
BOTH_MAPS = (
    Value("cbn_maps", AREA, "the refined map, from which PaddleOCR's inference takes its boxes"),
    Value("maps", AREA, "the mean of the refined map and of the one before refinement"),
)


class Detection(Task):
    """A detector returns maps (N, 1, H, W)."""

    name = "det"
    title = "detector"
    inputs = (Value("x", AREA),)
    outputs = (Value("maps", AREA),)
    preprocessing = DETECTION
    samples = (Batch(1, 480, 320), Batch(2, 352, 256))
    noise = Batch(1, 224, 160)
    small = Batch(2, 96, 64)
    traced = Batch(2, 96, 64)
    exported = (Batch(1, 480, 320), Batch(3, 224, 160), Batch(1, 64, 256))
    labelled = False
    pipeline = "object-detection"
    tag = "text-detection"

    def several(self, count: int, derived: bool) -> tuple[Value, ...] | None:
        if count == len(BOTH_MAPS) and derived:
            return BOTH_MAPS
        first = Value("maps_1", AREA, "the map that PaddleOCR's inference takes, as it is the first")
        return (first, *(Value(f"maps_{place}", AREA, "another map") for place in range(2, count + 1)))

    def parameters_of(self, output: tuple[int, ...]) -> dict[str, Any] | None:
        return {} if len(output) == 4 and output[1] == 1 else None

    def render(self, index: int, height: int, width: int) -> np.ndarray:
        return render_page(PAGE[index:] + PAGE[:index], height, width)

    def compare(self, reference: np.ndarray, candidate: np.ndarray, labels: Sequence[str] | None) -> list[Answer]:
        answers = []
        for row, other in zip(reference > MAP_THRESHOLD, candidate > MAP_THRESHOLD, strict=True):
            union = int((row | other).sum())
            overlap = int((row & other).sum()) / union if union else 1.0
            answers.append(Answer(_covered(row), _covered(other), overlap >= MAP_AGREEMENT, overlap))
        return answers

    def describe_output(self, parameters: Mapping[str, Any]) -> str:
        return "float32 `(N, 1, H, W)`: for every pixel the probability that it belongs to text."

    def describe_labels(self, name: str, missing: str | None) -> None:
        return None


def _covered(mask: np.ndarray) -> str:
    return f"text on {mask.mean():.2%} of the image"


TASK = Detection()
