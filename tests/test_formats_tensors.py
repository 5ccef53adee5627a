"""From Paddle's arrays to PyTorch's tensors: values, types, and whose memory it is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from paddle2torch.converter.formats.tensors import as_tensors


def own(values: np.ndarray) -> np.ndarray:
    """Read-only, in memory of its own."""
    array = values.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("stored", "kept"), [("<f2", "f4"), ("<f4", "f4"), ("<f8", "f4"), ("<i8", "i8"), ("<u1", "u1"), ("?", "?")]
)
def test_floating_point_values_become_single_precision(stored: str, kept: str) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]], stored)
    for given in (array, array.T, own(array), own(array).T, array[:, 1:], array[:0]):
        tensor = as_tensors({"x": given})["x"]
        assert tensor.is_contiguous()
        assert tensor.numpy().dtype == kept
        assert np.array_equal(tensor.numpy(), given)


def test_only_arrays_that_nobody_can_write_to_are_taken_over() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    mine, view = own(values), own(values).reshape(-1)
    bytes_of_a_file = np.frombuffer(values.tobytes(), np.float32)
    arrays = {
        "own": mine,
        "again": mine,
        "writable": values.copy(),
        "view": view,
        "turned": mine.T,
        "file": bytes_of_a_file,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of read-only arrays
        tensors = as_tensors(arrays)
    assert list(tensors) == list(arrays)
    shared = [name for name, tensor in tensors.items() if np.shares_memory(tensor.numpy(), arrays[name])]
    assert shared == ["own"]
    for name, tensor in tensors.items():
        tensor += 1
        assert (
            torch.equal(tensor, torch.from_numpy(values.reshape(-1)[:6].reshape(arrays[name].shape) + 1))
            or name == "turned"
        )
    assert not mine.flags.writeable
