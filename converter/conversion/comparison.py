"""Where two sets of weights differ, tensor by tensor, whatever files they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """One tensor that is not the same in both.

    Attributes:
        name: its key in the module.
        what: "only in A", "only in B", "shape", "type" or "values".
        detail: the shapes, or how far the values are apart.
    """

    name: str
    what: str
    detail: str


@dataclass(frozen=True)
class Comparison:
    """The outcome.

    Attributes:
        same: how many tensors are bit-identical.
        differences: the others, in the first set's order.
    """

    same: int
    differences: tuple[Difference, ...]


def compare_tensors(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Comparison:
    """Compare two sets of tensors under the same naming, bit by bit."""
    differences = []
    for name in dict.fromkeys([*first, *second]):
        if name not in second:
            differences.append(Difference(name, "only in A", str(list(first[name].shape))))
        elif name not in first:
            differences.append(Difference(name, "only in B", str(list(second[name].shape))))
        elif first[name].shape != second[name].shape:
            detail = f"{list(first[name].shape)} ≠ {list(second[name].shape)}"
            differences.append(Difference(name, "shape", detail))
        elif first[name].dtype != second[name].dtype:
            detail = f"{first[name].dtype} ≠ {second[name].dtype}; {_distance(first[name], second[name])}"
            differences.append(Difference(name, "type", detail))
        elif first[name].tobytes() != second[name].tobytes():
            differences.append(Difference(name, "values", _distance(first[name], second[name])))
    return Comparison(len(set(first) | set(second)) - len(differences), tuple(differences))


def _distance(a: np.ndarray, b: np.ndarray) -> str:
    """How far values are apart where both are finite, and how many are not."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return "the values are the same" if np.array_equal(np.signbit(a), np.signbit(b)) else "0 and −0"
    finite = np.isfinite(a) & np.isfinite(b)
    parts = []
    if finite.any():
        apart = np.abs(a[finite] - b[finite])
        scale = np.abs(a[finite]).max() or 1.0
        parts = [f"max|a−b| = {apart.max():.3g} ({apart.max() / scale:.2g} of max|a|)"]
    if not finite.all():
        parts.append(f"{np.count_nonzero(~finite)} values are NaN or infinite")
    return f"{', '.join(parts)}, in {1 - np.mean(same):.1%} of the values"
