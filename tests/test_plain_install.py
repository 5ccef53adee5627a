"""Without the packages of the extras: what needs none of them works, all else names its extra at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Modules of the extras cannot be imported, in whatever process.
ABSENT = "import sys\nsys.modules.update(dict.fromkeys(['cv2', 'onnx', 'onnxruntime', 'paddle', 'pyclipper']))\n"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in an empty folder."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(ABSENT)
    command = [sys.executable, "-P", "-m", "paddle2torch"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    return lambda *arguments: subprocess.run(
        [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def test_the_graph_is_compared_with(run: Run) -> None:
    result = run("verify", "embedded_rec", "--reference", "graph")
    assert result.returncode == 0, result.stderr
    assert "embedded_rec" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("verify", "embedded_rec"), "parity"),
        (("convert", "embedded_rec", "--verify"), "parity"),
        (("export", "embedded_rec"), "export"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else each,
)
def test_the_extra_of_a_command_is_named_at_once(arguments: tuple[str, ...], extra: str, run: Run) -> None:
    result = run(*arguments)
    assert result.returncode not in (0, 1)
    assert "Traceback" not in result.stderr
    told = result.stderr.replace('"', "'").partition("pip install ")[2]
    assert told.startswith(f"'paddle2torch[{extra}]'"), result.stderr
