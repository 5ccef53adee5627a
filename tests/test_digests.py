"""The sha256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from paddle2torch.converter.support.digests import sha256_of


def test_it_is_that_of_the_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"", bytes(range(256)) * 5000, b"changed"):
        file.write_bytes(content)
        assert sha256_of(file) == hashlib.sha256(content).hexdigest()
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "nothing")
