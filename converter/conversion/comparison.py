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
        what: "only in A", "only in B", "shape" or "values".
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


def compare(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Comparison:
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
        elif first[name].tobytes() != second[name].tobytes():
            differences.append(Difference(name, "values", _distance(first[name], second[name])))
    return Comparison(len(set(first) | set(second)) - len(differences), tuple(differences))


def _distance(a: np.ndarray, b: np.ndarray) -> str:
    a, b = a.astype(np.float64), b.astype(np.float64)
    apart = np.abs(a - b)
    scale = np.abs(a).max(initial=0) or 1.0
    return (
        f"max|a−b| = {apart.max():.3g} ({apart.max() / scale:.2g} of max|a|), in {np.mean(apart > 0):.1%} of the values"
    )
