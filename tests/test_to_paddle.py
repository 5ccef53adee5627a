"""Back to Paddle: the same bits under the same names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paddle2torch.architectures import list_models
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.formats.pdparams import read_pdparams
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError, SourceError
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.writing.to_paddle import read_converted
from paddle2torch.converter.writing.to_paddle import write_checkpoint as write_paddle
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import random_tensors, write_checkpoint


def to_torch_files(path: Path, folder: Path, architecture: str | None = None) -> list[Path]:
    return artifacts.write(convert(load_source(str(path), load_zoo(), Fetcher()), architecture=architecture), folder)


@pytest.mark.parametrize("name", list_models())
def test_there_and_back_is_bit_exact(tmp_path: Path, name: str) -> None:
    tensors = random_tensors(name, **({"classes": 12} if name.startswith("rec") else {}))
    path = write_checkpoint(tmp_path / "model.pdparams", tensors)
    pth, safetensors, _ = to_torch_files(path, tmp_path / "torch", name)
    for converted in (pth, safetensors):
        back = read_pdparams(Blob.open(write_paddle(read_converted(converted), tmp_path / "back")))
        assert tensors.keys() <= back.keys()
        assert all(np.array_equal(back[key], array) for key, array in tensors.items())


def test_lstm_parameters_have_both_of_their_names(tmp_path: Path) -> None:
    tensors = random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=12)
    pth, *_ = to_torch_files(write_checkpoint(tmp_path / "model.pdparams", tensors), tmp_path / "torch")
    back = read_pdparams(Blob.open(write_paddle(read_converted(pth), tmp_path / "back")))
    assert len(back) == len(tensors) + 16
    np.testing.assert_array_equal(
        back["neck.encoder.lstm.bias_ih_l1_reverse"], tensors["neck.encoder.lstm.1.cell_bw.bias_ih"]
    )


def test_weights_that_were_changed_in_pytorch_arrive(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.pdparams", random_tensors("cls_mobilenet_v3"))
    pth, *_ = to_torch_files(path, tmp_path / "torch")
    state = torch.load(pth, weights_only=True)
    state["head.fc.weight"][1, 7] = 42.0
    torch.save(state, tmp_path / "tuned.pth")
    back = read_converted(tmp_path / "tuned.pth")
    assert back.tensors["head.fc.weight"][7, 1] == 42.0
    assert back.architecture.name == "cls_mobilenet_v3"


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.pth: there is no such file; check the path"):
        read_converted(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("x")
    with pytest.raises(FormatError, match=r"text\.pth: not a file that torch\.load"):
        read_converted(tmp_path / "text.pth")
