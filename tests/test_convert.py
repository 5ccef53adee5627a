"""A conversion as a whole: from a file on disk to three files, or to a message and nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from paddle2torch.architectures import create_model, load_model
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.errors import MappingError, OutputError, SourceError
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import random_tensors, write_checkpoint

RECOGNISER = "rec_mobilenet_v3_bilstm_ctc"
RELEASED = {"scale": 0.5, "strides": (1, 2, 2, 2), "disable_se": False}


def converted(path: Path, **options: object) -> Conversion:
    return convert(load_source(str(path), load_zoo(), Fetcher()), **options)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A user's own recogniser with 11 classes."""
    return write_checkpoint(tmp_path / "mine.pdparams", random_tensors(RECOGNISER, classes=11))


def test_a_users_checkpoint_needs_no_name(checkpoint: Path) -> None:
    conversion = converted(checkpoint)
    assert conversion.network.name == RECOGNISER
    assert conversion.network.parameters == {**RELEASED, "hidden_size": 48, "classes": 11}
    assert "229 of 229 names and shapes match; " in conversion.recognised_by
    assert "; hidden_size = 48 (from neck.encoder.lstm.weight_hh_l0)" in conversion.recognised_by
    assert "classes = 11 (from head.fc.weight)" in conversion.recognised_by
    assert not conversion.build().training


def test_three_files_hold_the_same(checkpoint: Path, tmp_path: Path) -> None:
    conversion = converted(checkpoint)
    pth, safetensors, record = artifacts.write(conversion, tmp_path / "out")
    assert [path.name for path in (pth, safetensors, record)] == ["mine.pth", "mine.safetensors", "mine.json"]
    state = torch.load(pth, weights_only=True)
    assert type(state) is dict
    other = load_file(safetensors)
    assert sorted(state) == sorted(other) == sorted(conversion.state)
    assert all(torch.equal(state[key], other[key]) for key in state)
    with safe_open(safetensors, framework="pt") as file:
        assert json.loads(file.metadata()["paddle2torch"]) == json.loads(record.read_text())


def test_metadata_says_what_it_is_and_where_it_came_from(checkpoint: Path, tmp_path: Path) -> None:
    record = json.loads(artifacts.write(converted(checkpoint), tmp_path)[2].read_text())
    assert record["schema_version"] == 1
    assert (record["task"], record["architecture"]) == ("rec", RECOGNISER)
    assert record["parameters"]["classes"] == 11
    assert record["preprocessing"]["channel_order"] == "BGR"
    assert record["preprocessing"]["size"]["height"] == 32
    assert record["source"]["file"] == "mine.pdparams"
    assert len(record["source"]["sha256"]) == 64


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_model_gives_back_the_converted_network(checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    conversion = converted(checkpoint)
    artifacts.write(conversion, tmp_path / "out")
    model = load_model(tmp_path / "out" / f"mine{suffix}")
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(image), conversion.build()(image))
    assert model.metadata["architecture"] == RECOGNISER


def test_safetensors_alone_is_enough(checkpoint: Path, tmp_path: Path) -> None:
    _, safetensors, record = artifacts.write(converted(checkpoint), tmp_path / "out")
    record.unlink()
    assert load_model(safetensors).metadata["parameters"]["classes"] == 11


def test_same_source_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in artifacts.write(converted(checkpoint), tmp_path / "a")]
    second = [path.read_bytes() for path in artifacts.write(converted(checkpoint), tmp_path / "b")]
    assert first == second


def test_labels_are_bundled_when_they_fit(checkpoint: Path, tmp_path: Path) -> None:
    dictionary = tmp_path / "digits.txt"
    dictionary.write_text("\n".join("0123456789"))
    conversion = converted(checkpoint, dictionary=dictionary)
    assert conversion.labels.labels == ["blank", *"0123456789"]
    dictionary.write_text("".join(f"{label}\n" for label in ["blank", *"0123456789"]))  # as `publish` writes it
    assert converted(checkpoint, dictionary=dictionary).labels.labels == conversion.labels.labels


def test_a_dictionary_of_another_length_is_an_error_with_both_counts(checkpoint: Path, tmp_path: Path) -> None:
    dictionary = tmp_path / "short.txt"
    dictionary.write_text("a\nb\nc")
    with pytest.raises(MappingError, match=r"short\.txt with 3 characters makes 4 or 5 classes, the head has 11"):
        converted(checkpoint, dictionary=dictionary)


def test_a_missing_dictionary_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.txt: the dictionary cannot be read"):
        converted(checkpoint, dictionary=tmp_path / "none.txt")


def test_a_dictionary_for_a_detector_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "det.pdparams", random_tensors("det_mobilenet_v3_dbfpn"))
    with pytest.raises(MappingError, match="only recognisers have a dictionary"):
        converted(path, dictionary=path)


def distilled(folder: Path) -> Path:
    """A student and a teacher of another architecture in one checkpoint."""
    student, teacher = random_tensors("det_mobilenet_v3_rsefpn"), random_tensors("det_resnet18_vd_dbfpn")
    both = {f"Student.{k}": v for k, v in student.items()} | {f"Teacher.{k}": v for k, v in teacher.items()}
    return write_checkpoint(folder / "distilled.pdparams", both)


def test_student_is_taken_and_the_others_named(tmp_path: Path) -> None:
    conversion = converted(distilled(tmp_path))
    assert (conversion.network.name, conversion.branch, conversion.name) == (
        "det_mobilenet_v3_rsefpn",
        "Student",
        "distilled",
    )
    assert "took Student, there are also: Teacher" in conversion.notes[0]


def test_teacher_converts_as_an_architecture_of_its_own(tmp_path: Path) -> None:
    conversion = converted(distilled(tmp_path), branch="Teacher")
    assert (conversion.network.name, conversion.name) == ("det_resnet18_vd_dbfpn", "distilled_Teacher")


def test_training_checkpoint_with_threshold_branch_uses_it(tmp_path: Path) -> None:
    tensors = random_tensors("det_mobilenet_v3_dbfpn")
    conversion = converted(write_checkpoint(tmp_path / "det.pdparams", tensors))
    assert conversion.mapped.initialised == ()
    np.testing.assert_array_equal(conversion.state["head.thresh.conv3.bias"].numpy(), tensors["head.thresh.conv3.bias"])


def test_a_given_architecture_that_does_not_fit_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(MappingError, match="the tensors do not fit cls_mobilenet_v3: .*; nothing was written"):
        converted(checkpoint, architecture="cls_mobilenet_v3")
    with pytest.raises(MappingError, match="there is no architecture 'rec'; there are: cls_mobilenet_v3"):
        converted(checkpoint, architecture="rec")


def test_unwritable_output_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/mine\.\w+: cannot be written"):
        artifacts.write(converted(checkpoint), tmp_path / "file")


def test_a_failing_write_keeps_the_earlier_files(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion = converted(checkpoint)
    before = {path: path.read_bytes() for path in artifacts.write(conversion, tmp_path / "out")}

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        artifacts.write(conversion, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_results_are_as_readable_as_other_files(checkpoint: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path in artifacts.write(converted(checkpoint), tmp_path / "out"):
        assert path.stat().st_mode == plain.stat().st_mode


def test_missing_file_and_unknown_name_are_told_apart() -> None:
    with pytest.raises(SourceError, match=r"sub/none\.tar: there is no such file"):
        load_source("sub/none.tar", load_zoo(), Fetcher())
    with pytest.raises(SourceError, match="did you mean ch_PP-OCRv3_det"):
        load_source("ch_PP-OCRv3_dett", load_zoo(), Fetcher())


def test_another_class_count_and_width_of_the_lstm_are_told_by_the_weights(tmp_path: Path) -> None:
    tensors = random_tensors(RECOGNISER, classes=63, hidden_size=24)
    conversion = converted(write_checkpoint(tmp_path / "own.pdparams", tensors))
    assert conversion.network.parameters == {**RELEASED, "hidden_size": 24, "classes": 63}


def test_every_architecture_is_recognised(tmp_path: Path) -> None:
    from paddle2torch.architectures import list_models

    for name in set(list_models()) - {"cls_pp_lcnet_page", "cls_pp_lcnet_textline"}:  # these are alike
        parameters = {"classes": 12} if name.startswith("rec") else {}
        path = write_checkpoint(tmp_path / f"{name}.pdparams", random_tensors(name, **parameters))
        conversion = converted(path)
        assert conversion.network.name == name
        state = create_model(name, **conversion.network.parameters).state_dict()
        assert list(conversion.state) == list(state)
