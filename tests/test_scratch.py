"""Folders of running commands: the next command removes what a killed one left, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paddle2torch.converter.support.scratch import Scratch

OWNER = """
import sys, time
from pathlib import Path
from paddle2torch.converter.support.scratch import Scratch
folder = Scratch()
Path(folder.name, "inputs.npy").write_bytes(bytes(1000))
print(folder.name, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def owner() -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts processes that have a folder, and keep it."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_is_gone_in_the_end(temporary: Path) -> None:
    with Scratch() as name:
        Path(name, "file").touch()
        assert Path(name).parent == temporary
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_a_living_one_s_stays(
    temporary: Path, owner: Callable[[], tuple[subprocess.Popen[str], Path]]
) -> None:
    (killed, left), (_, kept) = owner(), owner()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.exists()
    with Scratch() as name:
        assert sorted(temporary.iterdir()) == sorted([kept, Path(name)])
    assert (kept / "inputs.npy").stat().st_size == 1000


def test_nothing_else_is_swept(temporary: Path) -> None:
    outside = temporary / "outside"
    mine = [outside, *(temporary / f"paddle2torch-{end}" for end in ("mine", "12345678", "123456789.scratch"))]
    for folder in mine:
        folder.mkdir()
        (folder / "precious").touch()
    (temporary / "paddle2torch-abcdefgh.scratch").symlink_to(outside)
    (temporary / "paddle2torch-ijklmnop.scratch").write_text("a file")
    os.mkfifo(temporary / "paddle2torch-qrstuvwx.scratch")
    before = sorted(temporary.rglob("*"))
    with Scratch():
        pass
    assert sorted(temporary.rglob("*")) == before
