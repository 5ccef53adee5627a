"""How far two results are apart: arrays by their largest and mean relative difference, answers by what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from paddle2torch.converter.tasks import Answer, Task


@dataclass(frozen=True)
class Deviation:
    """A candidate array against its reference.

    Attributes:
        max_error: max|a - b| / max|a|, a the reference; infinite where a figure would mean nothing.
        mean_error: mean|a - b| / mean|a|; likewise.
        problem: why there is no figure: another shape, or values that are not finite.
    """

    max_error: float
    mean_error: float
    problem: str | None = None

    @property
    def error(self) -> float:
        """The larger of the two."""
        return max(self.max_error, self.mean_error)


def measure(reference: np.ndarray, candidate: np.ndarray) -> Deviation:
    """Compare two arrays that should be equal."""
    if reference.shape != candidate.shape:
        return _unmeasured(f"shape {_plain(candidate.shape)} where {_plain(reference.shape)} was expected")
    for array, owner in ((reference, "the reference"), (candidate, "PyTorch")):
        if not np.isfinite(array).all():
            return _unmeasured(f"NaN or infinity in {owner}'s values")
    apart, size = np.abs(reference - candidate), np.abs(reference)
    return Deviation(
        _ratio(float(apart.max()), float(size.max())),
        _ratio(float(apart.mean(dtype=np.float64)), float(size.mean(dtype=np.float64))),
    )


def measure_all(reference: Sequence[np.ndarray], candidate: Sequence[np.ndarray]) -> Deviation:
    """Compare outputs that should be equal one by one; the worst counts."""
    if len(reference) != len(candidate):
        return _unmeasured(f"{len(candidate)} outputs where {len(reference)} were expected")
    return max(map(measure, reference, candidate), key=lambda difference: difference.error)


def _unmeasured(problem: str) -> Deviation:
    return Deviation(math.inf, math.inf, problem)


def _ratio(difference: float, scale: float) -> float:
    """Relative difference; a reference of nothing but zeros allows none."""
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0.0 else math.inf


def _plain(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def response(reference: np.ndarray, blank: np.ndarray) -> float:
    """How much of a result is owed to the image: max|a - b| / max|a|, b the answer to blank images.

    Values that are not finite owe nothing to it.
    """
    if not np.isfinite(reference).all():
        return 0.0
    return _ratio(float(np.abs(reference - blank).max()), float(np.abs(reference).max()))


def compare_in_both_precisions(
    task: Task,
    single: tuple[np.ndarray, np.ndarray],
    double: tuple[np.ndarray, np.ndarray],
    labels: Sequence[str] | None = None,
) -> list[Answer]:
    """The answers in single precision, which must agree, as must those in double precision.

    One exception: where Paddle in single precision contradicts Paddle in double precision, rounding makes the answer,
    and that of double precision counts. (Seen with generated weights, on noise.)

    Args:
        task: of the network.
        single: final output of Paddle and of PyTorch.
        double: the same in double precision.
        labels: a text per class, where known.
    """
    as_used, exact = compare_answers(task, *single, labels), compare_answers(task, *double, labels)
    if single[0].shape != single[1].shape:
        return as_used
    wavering = compare_answers(task, single[0], double[0], labels)
    return [
        replace(
            used,
            agrees=precise.agrees and (used.agrees or not own.agrees),
            undecided=not own.agrees,
        )
        for used, precise, own in zip(as_used, exact, wavering, strict=True)
    ]


def compare_answers(
    task: Task, reference: np.ndarray, candidate: np.ndarray, labels: Sequence[str] | None = None
) -> list[Answer]:
    """What each framework's output means for the task, per image.

    Args:
        task: of the network.
        reference: Paddle's final output.
        candidate: PyTorch's.
        labels: a text per class, where known.
    """
    if reference.shape != candidate.shape:
        return [Answer(_plain(reference.shape), _plain(candidate.shape), False)]
    return task.compare(reference, candidate, labels)
