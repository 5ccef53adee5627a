"""Every command of the README is run: `paddle2torch` ones here, `make` ones by CI."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from converter import errors
from converter.cli import main

ROOT = Path(__file__).parent.parent
EMBEDDED = ROOT / "converter" / "embedded"
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    (?:\S+=\S+ )?((?:paddle2torch|python -m|make) ?.*?)(?: {2,}#.*)?$", README, re.MULTILINE)
# `make` commands, and where they are run: by .ci/run, or by a test of the parts that they are made of.
MADE_BY_CI = {"make convert", "make test"}
EXIT_CODES = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 15
    assert {command for command in COMMANDS if command.startswith("make")} >= MADE_BY_CI


def test_ci_runs_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {line.strip() for line in script} >= MADE_BY_CI


def test_exit_codes_are_all_listed() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {kind.exit_code for kind in classes} | {0, 2, 130} == EXIT_CODES


def test_every_option_exists() -> None:
    """Cheap, and needs no mirror: each command is parsed, nothing is run."""
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "paddle2torch":
            subcommand: click.Command = main
            while isinstance(subcommand, click.Group):
                subcommand = subcommand.commands[arguments.pop(0)]
            options = {option for parameter in subcommand.params for option in parameter.opts}
            assert not [word for word in arguments if word.startswith("--") and word not in options], command


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the how-tos speak of: a checkpoint of one's own, its dictionary, a picture."""
    (tmp_path / "output").mkdir()
    with tarfile.open(EMBEDDED / "embedded_rec_train.tar") as tar:
        checkpoint = tar.extractfile("embedded_rec_train/best_accuracy.pdparams").read()
    (tmp_path / "output" / "best_accuracy.pdparams").write_bytes(checkpoint)
    shutil.copy(EMBEDDED / "embedded_dict.txt", tmp_path / "my_dict.txt")
    shutil.copy(EMBEDDED / "sample.png", tmp_path / "line.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_works_as_written(mirror: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE2TORCH_CACHE", str(desk / "cache"))
    for command in COMMANDS:
        program, *arguments = shlex.split(command.replace("/srv/paddle", str(mirror)))
        if program == "python":
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, *arguments, "--steps", "25"], check=True, env=environment)
        elif program == "paddle2torch":
            if "somebody_elses.pth" in arguments:
                shutil.copy(desk / "converted" / "ch_PP-OCRv3_rec.pth", desk / "somebody_elses.pth")
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, f"{command}: {result.stderr}"
