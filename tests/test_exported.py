"""`inference.yml`: what newer exports say of their preprocessing and characters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paddle2torch.architectures.preprocessing import CLASSIFICATION, DETECTION, RECOGNITION_48
from paddle2torch.architectures.records import Size
from paddle2torch.converter.conversion.as_graph import convert_graph
from paddle2torch.converter.mapping.config import read_config
from paddle2torch.converter.mapping.exported import Settings, read_settings
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from test_as_graph import unpacked

RECOGNISER = """\
Global:
  model_name: PP-OCRv5_mobile_rec
PreProcess:
  transform_ops:
  - DecodeImage:
      channel_first: false
      img_mode: BGR
  - MultiLabelEncode:
      gtc_encode: NRTRLabelEncode
  - RecResizeImg:
      image_shape: [3, 32, 256]
  - KeepKeys:
      keep_keys: [image]
PostProcess:
  name: CTCLabelDecode
  character_dict: [CHARACTERS]
"""
DETECTOR = """\
PreProcess:
  transform_ops:
  - DecodeImage: {img_mode: RGB}
  - DetResizeForTest: null
  - NormalizeImage:
      mean: [0.1, 0.2, 0.3]
      std: [1, 2, 3]
      scale: 1./255.
      order: hwc
PostProcess:
  name: DBPostProcess
  thresh: 0.3
"""


def settings(text: str) -> Settings:
    return read_settings(Blob("inference.yml", memoryview(text.encode())))


def test_a_recognisers_size_and_characters() -> None:
    found = settings(RECOGNISER.replace("CHARACTERS", "'a', 1, ' '"))
    assert found.characters == ["a", "1", " "]
    record = found.preprocessing(RECOGNITION_48)
    assert record == replace(RECOGNITION_48, size=Size("height", 32, 256))


def test_a_detectors_normalisation() -> None:
    record = settings(DETECTOR).preprocessing(DETECTION)
    assert (record.channel_order, record.mean, record.std) == ("RGB", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert record.scale == pytest.approx(1 / 255)
    assert record.size == DETECTION.size
    limited = settings(DETECTOR.replace("null", "{limit_side_len: 736, limit_type: min}"))
    assert limited.preprocessing(DETECTION).size.limit_side == 736


def test_a_classifiers_size_is_given_as_width_and_height() -> None:
    found = settings("PreProcess: {transform_ops: [{ResizeImage: {size: [160, 80]}}]}")
    assert found.preprocessing(CLASSIFICATION).size == Size("height_padded", 80, 160)


@pytest.mark.parametrize("text", ["", "[]", "PreProcess: 3", "PreProcess: {transform_ops: [x, {A: 1}]}", "a: b"])
def test_what_says_nothing_is_taken_as_such(text: str) -> None:
    found = settings(text)
    assert found.characters is None
    assert found.preprocessing(DETECTION) == DETECTION


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML of an exported model"),
        ("!!python/object/apply:os.system ['true']", "is no YAML of an exported model"),
        ("[" * 100_000, "is no YAML of an exported model"),
        ("x" * (5 << 20), "too many"),
    ],
    ids=["cut", "code", "deep", "large"],
)
def test_damaged_and_hostile_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=rf"inference\.yml: .*{message}"):
        settings(text)


@pytest.mark.parametrize(
    "step", ["RecResizeImg: {image_shape: [3, a, 1]}", "NormalizeImage: {scale: 1/0}", "NormalizeImage: {mean: [1]}"]
)
def test_steps_that_make_no_sense_are_refused(step: str) -> None:
    with pytest.raises(FormatError, match="its preprocessing cannot be read"):
        settings(f"PreProcess: {{transform_ops: [{{{step}}}]}}").preprocessing(DETECTION)


def test_a_converted_graph_has_what_the_file_says(tmp_path: Path) -> None:
    model = unpacked(tmp_path)
    characters = ", ".join(f"c{i}" for i in range(62))
    (model / "inference.yml").write_text(RECOGNISER.replace("CHARACTERS", characters), encoding="utf-8")
    conversion = convert_graph(load_source(str(model), load_zoo(), Fetcher(offline=True)))
    assert conversion.labels.labels[:3] == ["blank", "c0", "c1"]
    assert conversion.network.preprocessing.size.width == 256
    assert "that of its inference.yml" in conversion.notes[0]


def test_a_configuration_is_read_as_carefully(tmp_path: Path) -> None:
    deep = tmp_path / "config.yml"
    deep.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(FormatError, match=r"config\.yml: .*nested more than"):
        read_config(deep)
