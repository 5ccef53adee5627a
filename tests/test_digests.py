"""The sha256 of files, also when it was begun beforehand: always that of the file as it is."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from paddle2torch.converter.support import digests
from paddle2torch.converter.support.digests import hash_ahead, sha256_of

CONTENT = bytes(range(256)) * 5000  # more than a chunk


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that hashed a file."""
    threads, compute = [], digests._computed
    monkeypatch.setattr(
        digests, "_computed", lambda path: (threads.append(threading.current_thread().name), compute(path))[1]
    )
    return threads


def replace(path: Path) -> None:
    path.with_suffix(".new").write_bytes(CONTENT[::-1])
    path.with_suffix(".new").replace(path)


def overwrite(path: Path) -> None:
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(0, 0))


def test_it_is_computed_where_it_was_not_begun(file: Path, computed: list[str]) -> None:
    assert sha256_of(file) == sha256_of(file) == hashlib.sha256(CONTENT).hexdigest()
    assert computed == [threading.current_thread().name] * 2


def test_what_was_begun_is_used_once(file: Path, computed: list[str]) -> None:
    hash_ahead(file)
    hash_ahead(file)
    assert sha256_of(file) == hashlib.sha256(CONTENT).hexdigest()
    assert len(computed) == 1
    assert computed[0] != threading.current_thread().name
    assert sha256_of(file) == hashlib.sha256(CONTENT).hexdigest()
    assert len(computed) == 2


@pytest.mark.parametrize("change", [replace, overwrite])
def test_a_file_that_changed_meanwhile_is_hashed_again(change: Callable[[Path], None], file: Path) -> None:
    hash_ahead(file)
    change(file)
    assert sha256_of(file) == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_errors_come_where_the_hash_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hash_ahead(tmp_path / "nothing")

    def fail(path: Path) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(digests, "_computed", fail)
    hash_ahead(file)
    with pytest.raises(PermissionError):
        sha256_of(file)
