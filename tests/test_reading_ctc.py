"""Probabilities to text."""

from __future__ import annotations

import numpy as np
import pytest

from paddle2torch.converter.ocr.ctc import decode


def probabilities(classes: list[int], scores: list[float] | None = None) -> np.ndarray:
    """(1, T, 4) with these classes as the best ones."""
    array = np.zeros((1, len(classes), 4), np.float32)
    array[0, range(len(classes)), classes] = scores or [1.0] * len(classes)
    return array


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        pytest.param([0, 1, 1, 0, 2], "ab", id="repeats are merged"),
        pytest.param([1, 0, 1], "aa", id="a blank separates equal characters"),
        pytest.param([3, 3, 1, 2, 2, 0], "cab", id="no blank needed between others"),
        pytest.param([0, 0], "", id="blanks alone are no text"),
    ],
)
def test_greedy_decoding(classes: list[int], text: str) -> None:
    (reading,) = decode(probabilities(classes), ["blank", "a", "b", "c"])
    assert reading.text == text


def test_the_score_is_the_mean_of_the_kept_characters() -> None:
    (reading,) = decode(probabilities([1, 1, 0, 2], [0.5, 0.9, 0.8, 0.7]), ["blank", "a", "b", "c"])
    assert reading.score == pytest.approx(0.6)


def test_without_labels_the_classes_stand_for_themselves() -> None:
    (reading,) = decode(probabilities([0, 3, 3, 1]))
    assert (reading.classes, reading.text, str(reading)) == ((3, 1), None, "classes 3 1")
