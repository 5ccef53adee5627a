"""Mapped files: what was copied out of them takes no memory there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter import blob
from converter.blob import MOST_MAPPED, Blob, Copier, release

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


def test_copies_hold_the_file_only_once(numbers: np.ndarray) -> None:
    before, copied = mapped_bytes(), Copier()
    parts, most = [], 0
    for part in np.array_split(numbers, 64, axis=1):
        parts.append(copied(part, np.int64))
        most = max(most, mapped_bytes() - before)
    assert MOST_MAPPED // 2 < most < FEW
    assert all(part.flags.owndata and part.flags.c_contiguous for part in parts)
    assert np.array_equal(np.concatenate(parts, axis=1), numbers)  # which reads the file again


@pytest.mark.parametrize("turned", [False, True])
def test_large_arrays_are_copied_in_parts(turned: bool, numbers: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    before, held = mapped_bytes(), []
    monkeypatch.setattr(blob, "release", lambda array: (held.append(mapped_bytes() - before), release(array)))
    array = numbers if turned else numbers.T
    copied = Copier()(array, np.float32)
    assert max(held) < FEW
    assert copied.flags.c_contiguous
    assert copied.dtype == np.float32
    assert np.array_equal(copied, array.astype(np.float32))


def test_what_was_let_go_is_read_again(numbers: np.ndarray) -> None:
    before, total = mapped_bytes(), numbers.sum()
    assert mapped_bytes() - before > SIZE // 2
    release(numbers)
    assert mapped_bytes() - before < SIZE // 8
    assert numbers.sum() == total


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 3))[1:].T, np.frombuffer(b"12345678"), np.frombuffer(b"")])
def test_arrays_that_are_of_no_file_are_left_alone(array: np.ndarray) -> None:
    release(array)
    assert np.array_equal(Copier()(array, np.float32), array.astype(np.float32))
