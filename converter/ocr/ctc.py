"""CTC probabilities to text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle2torch.architectures.records import Direction

BLANK = 0
# What keeps its order in a line that is read from right to left, as upstream has it.
_RUN = re.compile(r"[a-zA-Z0-9 :*./%+-]+|.", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What a recogniser reads in one image.

    Attributes:
        classes: the class of each character, from left to right.
        text: the characters in the order in which they are read; None where the labels are unknown.
        score: mean probability of the characters kept, 0 when there are none.
    """

    classes: tuple[int, ...]
    text: str | None
    score: float

    def __str__(self) -> str:
        return self.text if self.text is not None else f"classes {' '.join(map(str, self.classes))}"


def decode(
    probabilities: np.ndarray, labels: Sequence[str] | None = None, direction: Direction = "left_to_right"
) -> list[Reading]:
    """Greedy decoding: the best class of each step, repeats merged, blanks dropped.

    Args:
        probabilities: (N, T, classes); class 0 is the blank.
        labels: a text per class, the blank's first.
        direction: in which the text is read.
    """
    best, scores = probabilities.argmax(-1), probabilities.max(-1)
    kept = best != BLANK
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    return [_reading(best[row][kept[row]], scores[row][kept[row]], labels, direction) for row in range(len(best))]


def turn_round(text: str) -> str:
    """What is read from right to left, of what stands there from left to right; runs of Latin letters, digits and signs
    between them keep their order."""
    return "".join(reversed(_RUN.findall(text)))


def _reading(classes: np.ndarray, scores: np.ndarray, labels: Sequence[str] | None, direction: Direction) -> Reading:
    text = None if labels is None else "".join(labels[index] for index in classes)
    if text is not None and direction == "right_to_left":
        text = turn_round(text)
    return Reading(tuple(classes.tolist()), text, float(scores.mean()) if len(scores) else 0.0)
