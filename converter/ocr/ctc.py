"""CTC probabilities to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLANK = 0


@dataclass(frozen=True)
class Reading:
    """What a recogniser reads in one picture.

    Attributes:
        classes: the class of each character.
        text: the characters; None where the labels are unknown.
        score: mean probability of the characters kept, 0 when there are none.
    """

    classes: tuple[int, ...]
    text: str | None
    score: float

    def __str__(self) -> str:
        return self.text if self.text is not None else f"classes {' '.join(map(str, self.classes))}"


def decode(probabilities: np.ndarray, labels: Sequence[str] | None = None) -> list[Reading]:
    """Greedy decoding: the best class of each step, repeats merged, blanks dropped.

    Args:
        probabilities: (N, T, classes); class 0 is the blank.
        labels: a text per class, the blank's first.
    """
    best, scores = probabilities.argmax(-1), probabilities.max(-1)
    kept = best != BLANK
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    return [_reading(best[row][kept[row]], scores[row][kept[row]], labels) for row in range(len(best))]


def _reading(classes: np.ndarray, scores: np.ndarray, labels: Sequence[str] | None) -> Reading:
    text = None if labels is None else "".join(labels[index] for index in classes)
    return Reading(tuple(classes.tolist()), text, float(scores.mean()) if len(scores) else 0.0)
