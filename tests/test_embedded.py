"""The recogniser that the project trained itself: every form of it is whole, says the same, and reads."""

from __future__ import annotations

import importlib
import json
import re
import tarfile
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from paddle2torch.converter import zoo
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.formats.pdmodel import read_pdmodel
from paddle2torch.converter.ocr.ctc import decode
from paddle2torch.converter.ocr.images import load_image
from paddle2torch.converter.ocr.preprocess import prepare
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher

FOLDER = Path(zoo.__file__).parent / "embedded"
CONTENT = {
    "embedded_rec_train.tar": ["best_accuracy.pdparams", "best_accuracy.pdopt", "best_accuracy.states"],
    "embedded_rec_infer.tar": ["inference.pdiparams", "inference.pdiparams.info", "inference.pdmodel"],
    "embedded_rec_pir.tar": ["inference.json", "inference.pdiparams"],
}
ACCURACY, WORDS = 0.95, 100  # share of characters read right, and of how many held-out words


@cache
def conversion(kind: str) -> Conversion:
    fetcher = Fetcher(offline=True)
    return convert(load_source("embedded_rec", load_zoo(), fetcher, kind), fetcher=fetcher)


def member(tarball: str, name: str) -> bytes:
    with tarfile.open(FOLDER / tarball) as tar:
        return tar.extractfile(f"{tarball.removesuffix('.tar')}/{name}").read()


def read(inputs: np.ndarray) -> list[str]:
    """What the converted model reads."""
    with torch.inference_mode():
        probabilities = conversion("inference").build()(torch.from_numpy(inputs)).numpy()
    return [str(reading) for reading in decode(probabilities, conversion("inference").labels.labels)]


@pytest.fixture
def rendered_words(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that draws the words for training and judging."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    return importlib.import_module("scripts.fixtures.rendered_words")


@pytest.mark.parametrize("tarball", CONTENT)
def test_tarball_is_laid_out_as_released_ones_are(tarball: str) -> None:
    with tarfile.open(FOLDER / tarball) as tar:
        folder, *names = tar.getnames()
    assert folder == tarball.removesuffix(".tar")
    assert names == [f"{folder}/{name}" for name in CONTENT[tarball]]
    assert (FOLDER / tarball).stat().st_size < 3e6


@pytest.mark.parametrize("tarball", CONTENT)
def test_tarball_tells_nothing_about_the_machine_that_made_it(tarball: str) -> None:
    content = (FOLDER / tarball).read_bytes()
    assert not re.findall(rb"op_callstack|site-packages|/(?:home|root|tmp|usr|var|work|opt)/\S{3,40}", content)


def test_program_and_checkpoint_hold_the_same_weights() -> None:
    inference, trained = conversion("inference").state, conversion("trained").state
    assert inference.keys() == trained.keys()
    assert [key for key in inference if not torch.equal(inference[key], trained[key])] == []


def test_paddle_3_form_holds_the_same_parameters() -> None:
    description = json.loads(member("embedded_rec_pir.tar", "inference.json"))
    program = read_pdmodel(conversion("inference").source.files.program)
    names = re.findall(r'"([^"]+)"', json.dumps(description))
    assert [variable.name for variable in program.parameters if variable.name not in names] == []
    assert member("embedded_rec_pir.tar", "inference.pdiparams") == member(
        "embedded_rec_infer.tar", "inference.pdiparams"
    )


def test_it_is_the_multilingual_architecture_down_to_the_names() -> None:
    with np.load(Path(__file__).parent / "golden" / "rec_mobilenet_v3_bilstm_ctc.npz") as file:
        released = json.loads(str(file["facts"]))["parameters"]
    ours = {name: list(array.shape) for name, array in conversion("inference").tensors.items()}
    classes = {"head.fc.weight": [96, 63], "head.fc.bias": [63]}
    assert ours == released | classes


def test_checkpoint_names_each_lstm_parameter_twice() -> None:
    names = conversion("trained").source.tensors
    assert "neck.encoder.lstm.weight_ih_l0" in names
    assert "neck.encoder.lstm.0.cell_fw.weight_ih" in names


def test_dictionary_belongs_to_the_classes() -> None:
    characters = (FOLDER / "embedded_dict.txt").read_text().splitlines()
    assert conversion("inference").labels.labels[1:] == characters


def test_sample_image_is_read() -> None:
    inputs = prepare([load_image(FOLDER / "sample.png")], conversion("inference").network.preprocessing)
    assert read(inputs) == [(FOLDER / "sample.txt").read_text().strip()]


def test_held_out_words_are_read(rendered_words: ModuleType) -> None:
    wrong = characters = 0
    for batch, _ in zip(rendered_words.judged_batches(), range(WORDS // 50), strict=False):
        for text, found in zip(batch.texts, read(batch.inputs), strict=True):
            wrong += rendered_words.edit_distance(text, found)
            characters += len(text)
    assert 1 - wrong / characters >= ACCURACY
