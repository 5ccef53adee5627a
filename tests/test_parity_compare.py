"""Figures that mean something: differences, responses, answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paddle2torch.converter.parity.compare import compare_answers, compare_in_both_precisions, measure, response
from paddle2torch.converter.tasks import find_task


def test_both_errors_are_relative_to_the_reference() -> None:
    difference = measure(np.array([4.0, -8.0, 0.0, 0.0]), np.array([4.0, -8.4, 0.0, 0.2]))
    assert difference.max_error == pytest.approx(0.4 / 8)
    assert difference.mean_error == pytest.approx(0.6 / 12)
    assert difference.error == difference.max_error
    assert difference.problem is None


def test_a_small_error_everywhere_shows_in_the_mean() -> None:
    reference = np.full(1000, 0.01)
    reference[0] = 10
    difference = measure(reference, reference + 0.001)
    assert difference.error == difference.mean_error > 10 * difference.max_error


@pytest.mark.parametrize(
    ("reference", "candidate", "problem"),
    [
        pytest.param(np.zeros((2, 3)), np.zeros((3, 2)), "shape 3 x 2 where 2 x 3 was expected", id="another shape"),
        pytest.param(np.ones(2), np.array([1, math.nan]), "NaN or infinity in PyTorch's values", id="NaN in PyTorch"),
        pytest.param(
            np.array([math.inf, 1]), np.ones(2), "NaN or infinity in the reference's values", id="infinity in Paddle"
        ),
        pytest.param(np.full(2, math.nan), np.full(2, math.nan), "NaN", id="NaN in both is no agreement"),
    ],
)
def test_what_cannot_be_measured_is_an_infinite_error_with_a_reason(
    reference: np.ndarray, candidate: np.ndarray, problem: str
) -> None:
    difference = measure(reference, candidate)
    assert difference.error == math.inf
    assert problem in (difference.problem or "")


def test_a_reference_of_zeros_allows_no_difference() -> None:
    assert measure(np.zeros(3), np.zeros(3)).error == 0
    assert measure(np.zeros(3), np.array([0, 0, 1e-30])).error == math.inf


def test_the_response_is_the_part_that_a_blank_image_does_not_give() -> None:
    reference = np.array([1.0, 2.0, 4.0])
    assert response(reference, reference) == 0
    assert response(reference, np.array([1.0, 2.0, 3.0])) == 0.25
    assert response(np.array([1.0, math.nan]), np.zeros(2)) == 0


def text(*classes: int) -> np.ndarray:
    """(1, T, 5) probabilities that read as these classes."""
    array = np.full((1, len(classes), 5), 0.1)
    array[0, range(len(classes)), classes] = 0.6
    return array


def test_texts_agree_when_they_read_the_same() -> None:
    labels = ["blank", "a", "b", "c", "d"]
    (same,) = compare_answers(find_task("rec"), text(1, 1, 0, 2), text(1, 0, 0, 2), labels)
    (other,) = compare_answers(find_task("rec"), text(1, 0, 1), text(1, 1, 1), labels)
    assert (same.agrees, same.reference, same.candidate) == (True, "ab", "ab")
    assert (other.agrees, other.reference, other.candidate) == (False, "aa", "a")


def test_classes_agree_whatever_their_scores() -> None:
    reference, candidate = np.array([[0.6, 0.4], [0.6, 0.4]]), np.array([[0.9, 0.1], [0.49, 0.51]])
    same, other = compare_answers(find_task("cls"), reference, candidate, ["0", "180"])
    assert (same.agrees, same.reference, same.candidate) == (True, "0 (0.6000)", "0 (0.9000)")
    assert (other.agrees, other.candidate) == (False, "180 (0.5100)")


def text_map(count: int) -> np.ndarray:
    """(1, 1, 10, 200) with text on that many pixels."""
    array = np.zeros(2000)
    array[:count] = 0.31
    return array.reshape(1, 1, 10, 200)


@pytest.mark.parametrize(("count", "agrees"), [(1000, True), (1001, True), (1002, False)])
def test_maps_agree_when_they_overlap_by_999_in_1000(count: int, agrees: bool) -> None:
    (answer,) = compare_answers(find_task("det"), text_map(1000), text_map(count))
    assert answer.agrees is agrees
    assert answer.overlap == pytest.approx(1000 / count)


def test_maps_without_text_agree() -> None:
    (answer,) = compare_answers(find_task("det"), text_map(0), text_map(0))
    assert (answer.agrees, answer.overlap) == (True, 1.0)


def test_another_shape_is_no_agreement() -> None:
    wrong = (text(1, 2), text(1, 2)[:, :1])
    assert [answer.agrees for answer in compare_in_both_precisions(find_task("rec"), wrong, wrong)] == [False]


@pytest.mark.parametrize(
    ("single", "double", "agrees", "undecided"),
    [
        pytest.param(((1, 2), (1, 2)), ((1, 2), (1, 2)), True, False, id="all the same"),
        pytest.param(((1, 3), (1, 2)), ((1, 2), (1, 2)), True, True, id="Paddle's rounding made another text"),
        pytest.param(((1, 2), (1, 3)), ((1, 2), (1, 2)), False, False, id="PyTorch's rounding is no excuse"),
        pytest.param(((1, 3), (1, 2)), ((1, 2), (1, 4)), False, True, id="double precision disagrees"),
        pytest.param(((1, 2), (1, 2)), ((1, 2), (1, 4)), False, False, id="double precision alone disagrees"),
    ],
)
def test_answers_are_compared_in_both_precisions(
    single: tuple[tuple[int, ...], ...], double: tuple[tuple[int, ...], ...], agrees: bool, undecided: bool
) -> None:
    (answer,) = compare_in_both_precisions(
        find_task("rec"), tuple(text(*each) for each in single), tuple(text(*each) for each in double)
    )
    assert (answer.agrees, answer.undecided) == (agrees, undecided)
