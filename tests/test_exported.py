"""`inference.yml`: what newer exports say of their preprocessing and characters."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paddle2torch.architectures.preprocessing import CLASSIFICATION, DETECTION, RECOGNITION_48
from paddle2torch.architectures.records import Size
from paddle2torch.converter.conversion.as_graph import convert_graph
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.mapping.config import read_config
from paddle2torch.converter.mapping.exported import Settings, read_settings
from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from test_as_graph import EMBEDDED, unpacked

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
    record = found.usage.preprocessing(RECOGNITION_48, "rec")
    assert record == replace(RECOGNITION_48, size=Size("height", 32, 256))


def test_a_detectors_normalisation() -> None:
    record = settings(DETECTOR).usage.preprocessing(DETECTION, "det")
    assert (record.channel_order, record.mean, record.std) == ("RGB", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert record.scale == pytest.approx(1 / 255)


@pytest.mark.parametrize(("arguments", "size"), [
    ("null", Size("multiple_at_least", multiple=32, short_side=736, long_side=4000)),
    ("{limit_side_len: 64, limit_type: min, max_side_limit: 2000}",
     Size("multiple_at_least", multiple=32, short_side=64, long_side=2000)),
    ("{limit_side_len: 960, limit_type: max}", Size("multiple", multiple=32, limit_side=960)),
    ("{limit_side_len: 960, limit_type: resize_long}", Size("multiple_long", multiple=32, long_side=960)),
    ("{resize_long: 960}", Size("multiple_long_up", multiple=128, long_side=960)),
    ("{image_shape: [736, 1280]}", Size("stretch", 736, 1280)),
    ("{image_shape: [736, 1280], keep_ratio: true}", Size("multiple_height", 736, multiple=32)),
])  # fmt: skip
def test_how_a_detectors_pages_are_resized(arguments: str, size: Size) -> None:
    assert settings(DETECTOR.replace("null", arguments)).usage.preprocessing(DETECTION, "det").size == size


def test_a_classifiers_size_is_given_as_width_and_height() -> None:
    steps = "{ResizeImage: {size: [160, 80]}}, {NormalizeImage: {scale: 1./255.}}, {ToCHWImage: null}"
    record = settings(f"PreProcess: {{transform_ops: [{steps}]}}").usage.preprocessing(CLASSIFICATION, "cls")
    assert (record.size, record.channel_order) == (Size("stretch", 80, 160), "RGB")


def test_a_classifier_that_crops_and_names_its_classes() -> None:
    steps = "{ResizeImage: {resize_short: 256}}, {CropImage: {size: 224}}, {NormalizeImage: {scale: 1./255.}}"
    output = "PostProcess: {Topk: {topk: 1, label_list: ['0', '90', '180', '270_degree']}}"
    found = settings(f"PreProcess: {{transform_ops: [{steps}]}}\n{output}")
    size = found.usage.preprocessing(CLASSIFICATION, "cls").size
    assert size == Size("crop", 224, 224, short_side=256)
    assert found.usage.postprocessing("cls").class_names == ["0", "90", "180", "270"]


@pytest.mark.parametrize("text", ["", "[]", "a: b", "PreProcess: {transform_ops: []}"])
def test_what_says_nothing_is_taken_as_such(text: str) -> None:
    found = settings(text)
    assert found.characters is None
    assert not found.usage.steps
    assert found.usage.preprocessing(DETECTION, "det") == DETECTION


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


@pytest.mark.parametrize(("text", "message"), [
    ("PreProcess: 3", "PreProcess is 3; expected transform_ops"),
    ("PreProcess: {transform_ops: [x]}", "transform_ops has 'x'; expected a step's name"),
    ("PreProcess: {transform_ops: [{A: 1}]}", "the step A is not known"),
    ("PreProcess: {transform_ops: [{NormalizeImage: {scale: 1/0}}]}", "NormalizeImage.scale is '1/0'"),
    ("PreProcess: {transform_ops: [{NormalizeImage: {mean: [1]}}]}", "NormalizeImage.mean is"),
])  # fmt: skip
def test_steps_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=rf"inference\.yml: .*{message}"):
        settings(text).usage.preprocessing(DETECTION, "det")


@pytest.mark.parametrize("way", [convert, convert_graph])
def test_a_converted_model_has_what_the_file_says(tmp_path: Path, way: Callable[[Source], Conversion]) -> None:
    """A network of the registry and a program by its graph alike."""
    model = unpacked(tmp_path)
    characters = ", ".join(f"c{i}" for i in range(62))
    (model / "inference.yml").write_text(RECOGNISER.replace("CHARACTERS", characters), encoding="utf-8")
    conversion = way(load_source(str(model), load_zoo(), Fetcher(offline=True)))
    assert conversion.labels.labels[:3] == ["blank", "c0", "c1"]
    assert conversion.network.preprocessing.size == Size("height", 32, 256)
    assert "the preprocessing is that of inference.yml" in conversion.notes


@pytest.mark.parametrize("way", [convert, convert_graph])
def test_lines_of_another_height_than_the_program_s_are_refused(
    tmp_path: Path, way: Callable[[Source], Conversion]
) -> None:
    with tarfile.open(EMBEDDED / "embedded_rec_pir.tar") as archive:  # whose program takes 32 rows
        archive.extractall(tmp_path, filter="data")
    (model,) = tmp_path.iterdir()
    settings = RECOGNISER.replace("CHARACTERS", ", ".join(f"c{i}" for i in range(62)))
    (model / "inference.yml").write_text(settings.replace("[3, 32, 256]", "[3, 48, 256]"), encoding="utf-8")
    source = load_source(str(model), load_zoo(), Fetcher(offline=True))
    with pytest.raises(
        FormatError, match=r"inference\.yml: lines are 48 pixels high .* but the program takes 32 alone"
    ):
        way(source)


def test_a_configuration_is_read_as_carefully(tmp_path: Path) -> None:
    deep = tmp_path / "config.yml"
    deep.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(FormatError, match=r"config\.yml: .*nested more than"):
        read_config(deep)
