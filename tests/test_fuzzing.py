"""The fuzzer itself: every reader survives some seconds of it, and a reader that does not is found out."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "checks" / "fuzz_formats.py"
SECONDS = 2
# Executions in that time, on a slow machine with other things to do; what parses YAML or writes files is slower.
FLOOR = {"archive": 50, "config": 50, "settings": 50, "yaml": 50, "program": 50, "trace": 50}
USUAL_FLOOR = 500
READERS = (
    *("pdmodel", "rebuilt", "pdiparams", "info", "pdparams", "pir", "archive", "config", "settings", "yaml", "program"),
    *("trace", "dictionary"),
)

needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None,
    reason=f"atheris is not installed (Python {sys.version_info[0]}.{sys.version_info[1]}, {sys.platform}); "
    "it has wheels for CPython on Linux",
)


def fuzz(folder: Path, *arguments: str, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), "--findings", str(folder / "findings"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@needs_atheris
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_survives_some_seconds(reader: str, tmp_path: Path) -> None:
    result = fuzz(tmp_path, "--reader", reader, "--seconds", str(SECONDS))
    assert result.returncode == 0, result.stdout + result.stderr
    executions = re.fullmatch(rf"{reader}: (\d+) executions, 0 findings\n", result.stdout)
    assert executions, result.stdout
    assert int(executions[1]) > FLOOR.get(reader, USUAL_FLOOR)
    assert list((tmp_path / "findings").iterdir()) == []


@needs_atheris
def test_a_finding_is_kept_and_told(tmp_path: Path) -> None:
    """In a copy of the script whose reader of dictionaries fails at a byte that the samples have."""
    broken = SCRIPT.read_text().replace(
        "return lambda data: read_dictionary(",
        "return lambda data: data.index(0) if len(data) > 3 else read_dictionary(",
    )
    assert broken != SCRIPT.read_text()
    script = tmp_path / "scripts" / "checks" / "broken.py"
    script.parent.mkdir(parents=True)
    script.write_text(broken)
    (tmp_path / "converter").symlink_to(SCRIPT.parents[2] / "converter")
    result = fuzz(tmp_path, "--reader", "dictionary", "--seconds", str(SECONDS), script=script)
    assert result.returncode == 1, result.stdout + result.stderr
    (finding,) = (tmp_path / "findings").iterdir()
    assert finding.name.startswith("dictionary-crash-")
    assert f"1 findings\n  {finding}\n" in result.stdout
    assert "ValueError: subsection not found" in result.stderr


def test_all_readers_are_fuzzed_here() -> None:
    result = subprocess.run([sys.executable, SCRIPT, "--help"], check=True, capture_output=True, text=True)
    assert f"--reader {{{','.join(READERS)}}}" in result.stdout


def test_an_unknown_reader_is_the_command_line_s_mistake(tmp_path: Path) -> None:
    assert fuzz(tmp_path, "--reader", "nothing").returncode == 2
