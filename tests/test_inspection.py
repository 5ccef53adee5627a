"""What `inspect` says of files with far more in them than any model has."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from paddle2torch.architectures.registry import architectures
from paddle2torch.cli import main
from paddle2torch.converter.conversion import inspection
from paddle2torch.converter.formats.pdiparams import write_pdiparams
from paddle2torch.converter.mapping import recognition
from paddle2torch.converter.support.errors import MappingError
from support.format_samples import operator, program, variable


def checkpoint(folder: Path, names: list[str]) -> Path:
    path = folder / "many.pdparams"
    array = np.zeros(1, np.float32)
    path.write_bytes(pickle.dumps(dict.fromkeys(names, array), 2))
    return path


def test_each_name_is_looked_at_once_for_each_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    assign = recognition.assign
    monkeypatch.setattr(recognition, "assign", lambda names, entry: looks.append(len(names)) or assign(names, entry))
    path = checkpoint(tmp_path, [f"backbone.stage{number}.conv.weight" for number in range(2000)])
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 0, result.output
    assert "2000 tensors" in result.stdout
    assert looks == [2000] * len(architectures())


def test_many_branches_and_kinds_of_operators_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path, [f"b{number}.backbone.conv.weight" for number in range(1000)])
    result = CliRunner().invoke(main, ["inspect", "--json", "--branch", "b7", str(path)])
    told = json.loads(result.stdout)["branches"]
    assert len(told) == inspection.MOST_LISTED + 1
    assert told["900 more"] == 900
    operators = [operator(f"kind{number}", {}, {}) for number in range(1000)]
    result = CliRunner().invoke(main, ["inspect", "--json", str(inference_model(tmp_path, ["w"], operators))])
    told = json.loads(result.stdout)["operators"]
    assert len(told) == inspection.MOST_LISTED + 1
    assert sum(told.values()) == 1000


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_a_program_without_tensors_is_one_line(command: str, tmp_path: Path) -> None:
    model = inference_model(tmp_path, [], [operator("relu", {}, {})])
    result = CliRunner().invoke(main, [command, str(model)])
    assert (result.exit_code, result.stderr.count("error:")) == (MappingError.exit_code, 1), result.output


def inference_model(folder: Path, parameters: list[str], operators: list[bytes]) -> Path:
    model = folder / "model"
    model.mkdir()
    (model / "inference.pdmodel").write_bytes(program([variable(name, (3,)) for name in parameters], operators))
    content = write_pdiparams({name: np.zeros(3, np.float32) for name in parameters})
    (model / "inference.pdiparams").write_bytes(content)
    return model
