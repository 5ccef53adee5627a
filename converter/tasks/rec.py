"""Recognition: what a line of text says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddle2torch.architectures.preprocessing import RECOGNITION_48
from paddle2torch.converter.mapping.labels import BLANK
from paddle2torch.converter.ocr.ctc import decode
from paddle2torch.converter.ocr.rendering import render_line
from paddle2torch.converter.tasks.task import Answer, Batch, Task, Value

LINES = ("Parity 2.6", "TORCH & 47", "37,50 EUR")
DECODING = """`labels.txt` has a line for every class, the first line for class 0. Class 0 is the CTC blank, written
`{blank}`. To read: the likeliest class of every step, repetitions merged, then blanks left out. Lines end in `\\n` and
nowhere else, and a label may be a space:

```python
from pathlib import Path

labels = Path("{place}/labels.txt").read_text(encoding="utf-8").split("\\n")
classes = torch.unique_consecutive(output[0].argmax(-1))
text = "".join(labels[index] for index in classes.tolist() if index != 0)
```"""
NO_DICTIONARY = """There is no `labels.txt`, because the characters of the classes are not known: {reason}. Class 0 is
the CTC blank; the others are the characters of the dictionary that the model was trained with, in its order."""


class Recognition(Task):
    """A recogniser returns probabilities (N, T, classes)."""

    name = "rec"
    title = "recogniser"
    inputs = (Value("x", {0: "batch", 3: "width"}),)
    outputs = (Value("probabilities", {0: "batch", 1: "steps"}),)
    preprocessing = RECOGNITION_48
    samples = (Batch(1, 320), Batch(3, 213))
    noise = Batch(2, 171)
    small = Batch(2, 100)
    traced = Batch(2, 96)
    exported = (Batch(1, 320), Batch(3, 213), Batch(1, 107))
    reads = True
    pipeline = "image-to-text"
    tag = "text-recognition"

    def parameters_of(self, output: tuple[int, ...]) -> dict[str, Any] | None:
        return {"classes": output[-1]} if len(output) == 3 else None

    def render(self, index: int, height: int, width: int) -> np.ndarray:
        return render_line(LINES[index], height, width)

    def compare(self, reference: np.ndarray, candidate: np.ndarray, labels: Sequence[str] | None) -> list[Answer]:
        pairs = zip(decode(reference, labels), decode(candidate, labels), strict=True)
        return [Answer(str(a), str(b), a.classes == b.classes) for a, b in pairs]

    def describe_output(self, parameters: Mapping[str, Any]) -> str:
        classes = parameters["classes"]
        return f"float32 `(N, T, {classes})`: for every step from left to right the probabilities of {classes} classes."

    def describe_labels(self, name: str, missing: str | None) -> str:
        if missing is not None:
            return NO_DICTIONARY.format(reason=missing)
        return DECODING.format(blank=BLANK, place=name)


TASK = Recognition()
