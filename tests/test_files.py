"""Files that belong together are of one writer, whoever else writes them at the same time."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paddle2torch.converter.support.errors import OutputError
from paddle2torch.converter.support.files import write_together

NAMES = ("m.pth", "m.safetensors", "m.json")


@contextmanager
def slow_moves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files appear at their paths a moment apart."""
    replace = Path.replace

    def slowly(self: Path, target: Path) -> Path:
        time.sleep(0.05)
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", slowly)
        yield


def test_two_writers_at_once_leave_the_files_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(owner: bytes) -> None:
        write_together({tmp_path / name: owner for name in NAMES})

    with slow_moves(monkeypatch):
        writers = [threading.Thread(target=write, args=(owner,)) for owner in (b"first", b"second", b"third")]
        for writer in writers:
            writer.start()
        seen = set()
        while any(writer.is_alive() for writer in writers):
            seen.add(tuple((tmp_path / name).read_bytes() for name in NAMES if (tmp_path / name).exists()))
            time.sleep(0.01)
    assert len({(tmp_path / name).read_bytes() for name in NAMES}) == 1
    assert len(seen) > 3  # files did appear one after another
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


def test_whoever_comes_second_waits(tmp_path: Path) -> None:
    """The lock is the folder's own, so that none is left behind."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    writer = threading.Thread(target=write_together, args=({tmp_path / "m.json": b"{}"},))
    writer.start()
    writer.join(0.3)
    assert writer.is_alive()
    assert not (tmp_path / "m.json").exists()
    os.close(descriptor)
    writer.join(5)
    assert (tmp_path / "m.json").read_bytes() == b"{}"


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", fail)
    write_together({tmp_path / name: b"x" for name in NAMES})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


def test_nothing_is_moved_where_one_cannot_be_written(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_together({tmp_path / "m.pth": b"x", tmp_path / "m.json": fail})
    assert list(tmp_path.iterdir()) == []
