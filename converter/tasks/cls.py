"""Classification: which way a line or a page is turned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddle2torch.architectures.preprocessing import CLASSIFICATION
from paddle2torch.converter.ocr.rendering import render_line
from paddle2torch.converter.tasks.rec import LINES
from paddle2torch.converter.tasks.task import Answer, Batch, Task, Value

# Clockwise angles in degrees, by the number of classes.
ANGLES = {2: ["0", "180"], 4: ["0", "90", "180", "270"]}
DIRECTIONS = """`labels.txt` has a line for every class, the first line for class 0: the angle in degrees by which the
text is turned."""


class Classification(Task):
    """A classifier returns probabilities (N, classes)."""

    name = "cls"
    title = "angle classifier"
    inputs = (Value("x", {0: "batch", 3: "width"}),)
    outputs = (Value("probabilities", {0: "batch"}),)
    preprocessing = CLASSIFICATION
    samples = (Batch(2, 192), Batch(3, 141))
    noise = Batch(2, 192)
    small = Batch(2, 192)
    traced = Batch(2, 96)
    exported = (Batch(1, 192), Batch(3, 141), Batch(1, 320))
    pipeline = "image-classification"
    tag = "text-direction"

    def parameters_of(self, output: tuple[int, ...]) -> dict[str, Any] | None:
        return {"classes": output[-1]} if len(output) == 2 else None

    def render(self, index: int, height: int, width: int) -> np.ndarray:
        """Upright and upside down in turn: the classifier is to be shown both."""
        return np.rot90(render_line(LINES[index], height, width), 2 * (index % 2))

    def compare(self, reference: np.ndarray, candidate: np.ndarray, labels: Sequence[str] | None) -> list[Answer]:
        answers = []
        for row, other in zip(reference, candidate, strict=True):
            first, second = int(row.argmax()), int(other.argmax())
            names = labels if labels is not None else [f"class {index}" for index in range(len(row))]
            answers.append(
                Answer(f"{names[first]} ({row[first]:.4f})", f"{names[second]} ({other[second]:.4f})", first == second)
            )
        return answers

    def labels_of(self, parameters: Mapping[str, Any]) -> list[str] | None:
        return ANGLES.get(parameters["classes"])

    def describe_output(self, parameters: Mapping[str, Any]) -> str:
        return f"float32 `(N, {parameters['classes']})`: the probability of every direction."

    def describe_labels(self, name: str, missing: str | None) -> str:
        return DIRECTIONS


TASK = Classification()
