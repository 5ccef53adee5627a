"""Tensor-by-tensor comparison."""

from __future__ import annotations

import numpy as np

from paddle2torch.converter.conversion.comparison import compare_tensors

A = {"x": np.array([1.0, 2.0], np.float32), "y": np.zeros((2, 2), np.float32), "z": np.ones(1, np.float32)}


def test_equal_sets_have_no_difference() -> None:
    assert compare_tensors(A, {name: array.copy() for name, array in A.items()}).differences == ()
    assert compare_tensors(A, A).same == 3


def test_each_kind_of_difference_is_told() -> None:
    other = {"x": np.array([1.0, 2.5], np.float32), "y": np.zeros((2, 1), np.float32), "w": np.ones(1, np.float32)}
    comparison = compare_tensors(A, other)
    assert comparison.same == 0
    assert [(d.name, d.what) for d in comparison.differences] == [
        ("x", "values"),
        ("y", "shape"),
        ("z", "only in A"),
        ("w", "only in B"),
    ]
    assert comparison.differences[0].detail == "max|a−b| = 0.5 (0.25 of max|a|), in 50.0% of the values"


def test_a_difference_in_the_last_bit_counts() -> None:
    other = {**A, "x": np.nextafter(A["x"], np.float32(9), dtype=np.float32)}
    assert [d.name for d in compare_tensors(A, other).differences] == ["x"]
