"""Mapped files: what was copied out of them takes no memory there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paddle2torch.converter.support import blob
from paddle2torch.converter.support.blob import ALIGNMENT, MOST_MAPPED, Blob, copy_out, release

STATUS = Path("/proc/self/status")
SIZE = 64 << 20
FEW = 8 << 20  # bytes; the system reads ahead


def mapped_bytes() -> int:
    """How much of its mapped files this process has in memory."""
    if not STATUS.exists():
        pytest.skip("only Linux tells")
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssFile:"))
    return int(line.split()[1]) << 10


@pytest.fixture
def numbers(tmp_path: Path) -> np.ndarray:
    """A view of a mapped file, as the readers of formats give them: somewhere in it, reshaped, transposed."""
    path = tmp_path / "numbers"
    np.arange(SIZE // 8).tofile(path)
    return np.frombuffer(Blob.open(path).data[8 : SIZE - 504], "<i8").reshape(64, -1).T


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much of the file was in memory whenever it was let go."""
    before, held = mapped_bytes(), []
    monkeypatch.setattr(blob, "release", lambda array: (held.append(mapped_bytes() - before), release(array)))
    return held


def test_copies_hold_the_file_only_once(numbers: np.ndarray, held: list[int]) -> None:
    parts = dict(enumerate(np.array_split(numbers, 64, axis=1)))
    copies = copy_out(parts)
    assert list(copies) == list(parts)
    assert MOST_MAPPED // 2 < max(held) < FEW
    assert all(copy.flags.c_contiguous and not np.shares_memory(copy, numbers) for copy in copies.values())
    assert np.array_equal(np.concatenate(list(copies.values()), axis=1), numbers)  # which reads the file again


@pytest.mark.parametrize("turned", [False, True])
def test_large_arrays_are_copied_in_parts(turned: bool, numbers: np.ndarray, held: list[int]) -> None:
    array = numbers if turned else numbers.T
    copy = copy_out({"x": array})["x"]
    assert max(held) < FEW
    assert copy.flags.c_contiguous
    assert np.array_equal(copy, array)


@pytest.mark.parametrize(
    ("stored", "kept"), [("<f2", "f4"), ("<f4", "f4"), ("<f8", "f4"), ("<i8", "i8"), ("<u1", "u1"), ("?", "?")]
)
def test_floating_point_numbers_become_single_precision(stored: str, kept: str) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]], stored).T
    (copy,) = copy_out({"x": array}).values()
    assert copy.dtype == kept
    assert np.array_equal(copy, array)


def test_what_was_let_go_is_read_again(numbers: np.ndarray) -> None:
    before, total = mapped_bytes(), numbers.sum()
    assert mapped_bytes() - before > SIZE // 2
    release(numbers)
    assert mapped_bytes() - before < SIZE // 8
    assert numbers.sum() == total


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 3))[1:].T, np.frombuffer(b"12345678"), np.frombuffer(b"")])
def test_arrays_that_are_of_no_file_are_left_alone(array: np.ndarray) -> None:
    release(array)
    assert np.array_equal(copy_out({"x": array})["x"], array.astype(np.float32))


def test_copies_lie_beside_each_other_as_the_processor_likes_it() -> None:
    counts = [1, 5, 0, 16, 3, 17, 7]
    arrays = {count: np.arange(count, 2 * count, dtype=np.float32) for count in counts}
    copies = copy_out(arrays)
    assert all(np.array_equal(copies[count], arrays[count]) for count in counts)
    first = copies[1].ctypes.data
    assert first % ALIGNMENT == 0
    places = [copies[count].ctypes.data - first for count in counts if count]
    assert places == [part * ALIGNMENT for part in (0, 1, 2, 3, 4, 6)]
