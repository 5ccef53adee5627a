"""PaddleOCR configurations: every key and every step is followed, known to change nothing, or refused by name."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
import yaml

from paddle2torch.architectures.records import BoxPostprocessing, Size
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.mapping.config import read_config
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.errors import FormatError, MappingError, SourceError
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import random_tensors, write_checkpoint
from support.configurations import ALL, CLASSIFIER, DETECTORS, RECOGNISERS, Described, Section

BY_FILE = {described.file: described for described in ALL}
LITE = BY_FILE["ch_ppocr_v2.0/rec_chinese_lite_train_v2.0.yml"]
ENHANCED = BY_FILE["PP-OCRv3/ch_PP-OCRv3_rec.yml"]
V2_REC = BY_FILE["ch_PP-OCRv2/ch_PP-OCRv2_rec_distillation.yml"]
MOBILE_DET = BY_FILE["ch_ppocr_v2.0/ch_det_mv3_db_v2.0.yml"]
V3_DET = BY_FILE["ch_PP-OCRv3/ch_PP-OCRv3_det_cml.yml"]
V5_DET = BY_FILE["PP-OCRv5/PP-OCRv5_server_det.yml"]
V6_REC = BY_FILE["PP-OCRv6/PP-OCRv6_medium_rec.yml"]
TINY_REC = BY_FILE["PP-OCRv6/PP-OCRv6_tiny_rec.yml"]
TRAINING, EVALUATION = "Train.dataset.transforms", "Eval.dataset.transforms"
PLAIN_PAGE = Size("multiple_at_least", multiple=32, short_side=736, long_side=4000)


def write(folder: Path, content: object) -> Path:
    path = folder / "train.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def put(content: Section, place: str, value: object) -> Section:
    """A copy with one value changed, or with a key more: "Architecture.Backbone.scale"."""
    *above, last = place.split(".")
    changed = copy.deepcopy(content)
    within: Any = changed
    for key in above:
        within = within[int(key) if isinstance(within, list) else key]
    within[int(last) if isinstance(within, list) else last] = value
    return changed


def without(content: Section, place: str) -> Section:
    """A copy that lacks a key."""
    above, _, last = place.rpartition(".")
    kept = content
    for key in above.split(".") if above else ():
        kept = kept[key]
    left = {key: value for key, value in kept.items() if key != last}
    return put(content, above, left) if above else left


def convert_random(folder: Path, content: Section, name: str, seed: int = 0, **parameters: Any) -> Conversion:
    """A network with random weights, converted with a configuration."""
    path = write_checkpoint(folder / "x.pdparams", random_tensors(name, seed, **parameters))
    return convert(load_source(str(path), load_zoo(), Fetcher()), config=read_config(write(folder, content)))


# ---- upstream's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("described", ALL, ids=lambda each: each.file)
def test_upstreams_configurations_pass(tmp_path: Path, described: Described) -> None:
    config = read_config(write(tmp_path, described.content()))
    assert (config.architecture.name, config.parameters) == (described.name, described.parameters)
    assert set(config.parameters) <= set(config.architecture.parameters)


@pytest.mark.parametrize("described", DETECTORS, ids=lambda each: each.file)
def test_what_upstreams_detectors_do_to_pages_and_maps(tmp_path: Path, described: Described) -> None:
    config = read_config(write(tmp_path, described.content()))
    usual = config.architecture.preprocessing
    sizes = {
        None: PLAIN_PAGE,
        960: Size("multiple", multiple=32, limit_side=960),
        4000: Size("multiple", multiple=32, limit_side=4000),
        736: Size("multiple_long_up", multiple=128, long_side=736),
    }
    resizing = described.evaluation[2]["DetResizeForTest"] or {}
    expected = sizes[resizing.get("limit_side_len", resizing.get("resize_long"))]
    assert config.usage.preprocessing(usual, "det") == replace(usual, size=expected)
    seal = BoxPostprocessing(thresh=0.2, unclip_ratio=0.5, box_type="poly")
    assert config.usage.postprocessing("det").boxes == (seal if "seal" in described.file else BoxPostprocessing())


@pytest.mark.parametrize("described", [*RECOGNISERS, CLASSIFIER], ids=lambda each: each.file)
def test_what_upstreams_recognisers_do_to_lines_is_the_usual(tmp_path: Path, described: Described) -> None:
    config = read_config(write(tmp_path, described.content()))
    usual = config.architecture.preprocessing
    assert config.usage.preprocessing(usual, config.architecture.task) == usual
    assert config.usage.postprocessing(config.architecture.task).boxes is None


def test_another_network_of_a_distillation_can_be_taken(tmp_path: Path) -> None:
    path = write(tmp_path, V3_DET.content())
    config = read_config(path, "Teacher")
    assert (config.architecture.name, config.parameters) == ("det_resnet50_vd_lkpan", {"out_channels": 256})
    with pytest.raises(MappingError, match="has no network 'Third' under Models; it has: Student, Student2, Teacher"):
        read_config(path, "Third")
    with pytest.raises(MappingError, match=r"Architecture\.Backbone is not known beside Models"):
        read_config(write(tmp_path, put(V3_DET.content(), "Architecture.Backbone", {"name": "X"})))


@pytest.mark.parametrize(("described", "old"), [
    ("PP-OCRv6/PP-OCRv6_tiny_det.yml", "RepLKFPN"),
    ("PP-OCRv6/PP-OCRv6_medium_det.yml", "RepLKPAN"),
])  # fmt: skip
def test_former_names_of_modules_are_known(tmp_path: Path, described: str, old: str) -> None:
    content = put(BY_FILE[described].content(), "Architecture.Neck.name", old)
    assert read_config(write(tmp_path, content)).architecture.name == BY_FILE[described].name


# ---- what keys of the network mean -------------------------------------------------------------------------------


@pytest.mark.parametrize(("described", "place", "value", "named"), [
    (LITE, "Transform", {"name": "TPS", "num_fiducial": 20}, "Architecture.Transform is"),
    (LITE, "in_channels", 1, "Architecture.in_channels is 1; .* has none or 3"),
    (LITE, "Backbone.in_channels", 1, "Architecture.Backbone.in_channels is 1"),
    (LITE, "algorithm", "Rosetta", "Architecture.algorithm is 'Rosetta'; .* has none or 'CRNN'"),
    (LITE, "model_type", "det", "Architecture.model_type is 'det'"),
    (LITE, "Head.return_feats", True, "Architecture.Head.return_feats is True"),
    (LITE, "Head.mid_channels", 96, "Architecture.Head.mid_channels is 96"),
    (LITE, "Backbone.dropout", 0.1, r"Architecture.Backbone.dropout \(0.1\) means nothing to rec_mobilenet_v3"),
    (LITE, "Backbone.model_name", "large", "describes no network of this list"),
    (LITE, "Backbone.name", "ResNet_SAST", r"describes no network of this list \(Backbone.name ResNet_SAST"),
    (LITE, "Extra", {"name": "X"}, "Architecture.Extra"),
    (LITE, "Neck.name", "FPN", "Architecture.Neck.name is 'FPN'"),
    (ENHANCED, "Backbone.use_dropout", True, "Architecture.Backbone.use_dropout"),
    (ENHANCED, "Head.head_list.0.CTCHead.Neck.depth", 4, "Architecture.Neck.depth is 4"),
    (ENHANCED, "Head.head_list.0.CTCHead.Neck.dims", 120, "Architecture.Neck.dims is 120"),
    (ENHANCED, "Head.head_list.0.CTCHead.Neck.kernel_size", [1, 3], r"Architecture.Neck.kernel_size is \[1, 3\]"),
    (ENHANCED, "Head.head_list.1", {"AttentionHead": {}}, "head_list has AttentionHead, which is not known"),
    (ENHANCED, "Head.head_list", [], "head_list has no CTCHead"),
    (MOBILE_DET, "Neck.use_asf", True, "Architecture.Neck.use_asf is True"),
    (MOBILE_DET, "Head.kernel_list", [7, 2, 2], "Architecture.Head.kernel_list is"),
    (MOBILE_DET, "algorithm", "DB++", r"Architecture.algorithm is 'DB\+\+'"),
    (V5_DET, "Head.mode", "small", "Architecture.Head.mode is 'small'"),
    (V5_DET, "Neck.mode", "lite", "Architecture.Neck.mode is 'lite'"),
    (CLASSIFIER, "Head.name", "ClsHead2", "describes no network of this list"),
])  # fmt: skip
def test_what_the_network_has_not_is_refused_by_name(
    tmp_path: Path, described: Described, place: str, value: object, named: str
) -> None:
    content = put(described.content(), f"Architecture.{place}", value)
    with pytest.raises(MappingError, match=named) as caught:
        read_config(write(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert "train.yml: " in str(caught.value)


def test_a_pyramid_without_shortcuts_is_refused(tmp_path: Path) -> None:
    """It has the same tensors."""
    network = put(V3_DET.network, "Neck.shortcut", False)
    with pytest.raises(MappingError, match=r"Architecture\.Neck\.shortcut is False; .* has none or True"):
        read_config(write(tmp_path, {"Architecture": network}))


@pytest.mark.parametrize(("described", "place", "value", "expected"), [
    (LITE, "Backbone.scale", "wide", r"Backbone.scale is 'wide'; expected a number above 0"),
    (LITE, "Backbone.scale", -1, r"Backbone.scale is -1; expected a number above 0"),
    (LITE, "Backbone.small_stride", [1, 2], "Backbone.small_stride is .*; expected a list of 4 integers"),
    (LITE, "Neck.hidden_size", "big", "Neck.hidden_size is 'big'; expected an integer from 1 to 65536"),
    (LITE, "Neck.hidden_size", True, "Neck.hidden_size is True; expected an integer"),
    (LITE, "Backbone.disable_se", "yes please", "Backbone.disable_se is 'yes please'; expected true or false"),
    (ENHANCED, "Backbone.last_conv_stride", [1, 2, 3], "Backbone.last_conv_stride is .*; expected a number from 1"),
    (ENHANCED, "Backbone.last_pool_type", "min", "Backbone.last_pool_type is 'min'; expected one of max, avg"),
    (ENHANCED, "Backbone.last_pool_kernel_size", 0, "Backbone.last_pool_kernel_size is 0; expected a number from 1"),
])  # fmt: skip
def test_values_that_are_none_are_refused(
    tmp_path: Path, described: Described, place: str, value: object, expected: str
) -> None:
    with pytest.raises(FormatError, match=expected):
        read_config(write(tmp_path, put(described.content(), f"Architecture.{place}", value)))


def test_absent_keys_mean_what_upstream_takes_then(tmp_path: Path) -> None:
    """Which is not what released recognisers have."""
    plain = without(LITE.content(), "Architecture.Backbone.small_stride")
    assert read_config(write(tmp_path, plain)).parameters["strides"] == (2, 2, 2, 2)
    bare = put(ENHANCED.content(), "Architecture.Backbone", {"name": "MobileNetV1Enhance"})
    parameters = read_config(write(tmp_path, bare)).parameters
    assert parameters == {"last_stride": (1, 1), "last_pool": "max"}
    backbone = {"name": "MobileNetV3", "model_name": "large", "scale": 0.5}
    se = put(MOBILE_DET.content(), "Architecture.Backbone", backbone)
    assert read_config(write(tmp_path, se)).parameters["disable_se"] is False
    del backbone["model_name"]  # upstream has one MobileNetV3 for detectors and one for lines
    assert read_config(write(tmp_path, se)).architecture.name == "det_mobilenet_v3_dbfpn"
    small = without(LITE.content(), "Architecture.Backbone.model_name")
    assert read_config(write(tmp_path, small)).architecture.name == "rec_mobilenet_v3_bilstm_ctc"


@pytest.mark.parametrize(("strides", "height"), [([1, 2, 2, 2], 32), ([2, 2, 2, 2], 64), ([1, 2, 1, 2], 16)])
def test_strides_are_those_of_the_height(tmp_path: Path, strides: list[int], height: int) -> None:
    """Along the line the network is the same: 320 pixels to 80 steps."""
    content = put(without(without(LITE.content(), "Train"), "Global"), "Architecture.Backbone.small_stride", strides)
    content = put(content, f"{EVALUATION}.2.RecResizeImg.image_shape", [3, height, 320])
    conversion = convert_random(tmp_path, content, "rec_mobilenet_v3_bilstm_ctc", classes=11)
    assert conversion.network.parameters["strides"] == tuple(strides)
    assert conversion.network.preprocessing.size.height == height
    assert conversion.build()(torch.zeros(1, 3, height, 320)).shape == (1, 80, 11)


def test_the_end_of_the_backbone_is_followed(tmp_path: Path) -> None:
    lengths = {}
    for stride, kind, kernel in ((1, "max", None), ([1, 2], "avg", [2, 2]), ([1, 2], "avg", [2, 4]), (1, "avg", 2)):
        backbone = {"last_conv_stride": stride, "last_pool_type": kind, "last_pool_kernel_size": kernel}
        network = {**V2_REC.network, "Backbone": {"name": "MobileNetV1Enhance", "scale": 0.5, **backbone}}
        conversion = convert_random(tmp_path, {"Architecture": network}, V2_REC.name, classes=11)
        lengths[str((stride, kind, kernel))] = conversion.build()(torch.zeros(1, 3, 32, 320)).shape[1]
    assert list(lengths.values()) == [80, 40, 20, 80]


def test_a_wider_network_converts_with_its_configuration_only(tmp_path: Path) -> None:
    """The scale cannot be told from the weights."""
    path = write_checkpoint(
        tmp_path / "wide.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", scale=1.0, classes=11)
    )
    source = load_source(str(path), load_zoo(), Fetcher())
    with pytest.raises(MappingError, match="another width"):
        convert(source)
    content = put(without(LITE.content(), "Global"), "Architecture.Backbone.scale", 1.0)
    config = read_config(write(tmp_path, content))
    parameters = convert(source, config=config).network.parameters
    assert parameters == {
        "scale": 1.0, "strides": (1, 2, 2, 2), "disable_se": False, "hidden_size": 48, "classes": 11,
    }  # fmt: skip


# ---- what the weights tell of keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(("described", "place", "value", "message"), [
    (LITE, "Backbone.disable_se", True, "Architecture.Backbone.disable_se is True, but the weights have disable_se = False"),
    (LITE, "Neck.hidden_size", 96, "Architecture.Neck.hidden_size is 96, but the weights have hidden_size = 48"),
    (LITE, "Head.out_channels", 6625, "Architecture.Head.out_channels is 6625, but the weights have classes = 11"),
    (V6_REC, "Backbone.model_size", "small", "Architecture.Backbone.model_size is 'small', which does not go with"),
    (TINY_REC, "Backbone.stem_type", "branch", "Architecture.Backbone.stem_type is 'branch', which does not go with"),
    (TINY_REC, "Backbone.stem_channels", 32, "Architecture.Backbone.stem_channels is 32, which does not go with"),
    (TINY_REC, "Backbone.stem_channels", [32], "Architecture.Backbone.stem_channels is .*, which does not go with"),
])  # fmt: skip
def test_keys_that_contradict_the_weights_are_refused(
    tmp_path: Path, described: Described, place: str, value: object, message: str
) -> None:
    content = put(described.content(), f"Architecture.{place}", value)
    given = {"width": 128, "channels": 192, "hidden": 768} if described is V6_REC else {}
    with pytest.raises(MappingError, match=message):
        convert_random(tmp_path, content, described.name, classes=11, **given)


def test_what_upstream_says_of_small_networks_goes_with_their_weights(tmp_path: Path) -> None:
    for described in (LITE, TINY_REC, BY_FILE["PP-OCRv3/en_PP-OCRv3_rec.yml"]):
        content = without(described.content(), "Global")
        assert convert_random(tmp_path, content, described.name, classes=11).network.parameters["classes"] == 11


def test_the_absence_of_a_key_can_contradict_the_weights(tmp_path: Path) -> None:
    content = without(MOBILE_DET.content(), "Architecture.Backbone.disable_se")
    with pytest.raises(MappingError, match="disable_se is absent, which means False, but the weights have disable_se"):
        convert_random(tmp_path, content, "det_mobilenet_v3_dbfpn")


def test_a_configuration_of_another_network_is_named_where_tensors_do_not_fit(tmp_path: Path) -> None:
    content = put(LITE.content(), "Architecture.Backbone.scale", 1.0)
    with pytest.raises(MappingError, match=r"\n  .*train\.yml says: Backbone\.scale 1\.0, .*Neck\.hidden_size 48"):
        convert_random(tmp_path, content, "rec_mobilenet_v3_bilstm_ctc", classes=11)


def test_an_input_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    content = without(LITE.content(), "Train")
    content = put(content, f"{EVALUATION}.2.RecResizeImg.image_shape", [3, 64, 320])
    with pytest.raises(MappingError, match=r"train\.yml: images come .*'height': 64.* takes none of that size"):
        convert_random(tmp_path, content, "rec_mobilenet_v3_bilstm_ctc", classes=11)


# ---- steps -------------------------------------------------------------------------------------------------------


def test_steps_of_evaluation_are_followed(tmp_path: Path) -> None:
    content = without(MOBILE_DET.content(), "Train")
    content = put(content, f"{EVALUATION}.0", {"DecodeImage": {"img_mode": "RGB", "channel_first": False}})
    content = put(content, f"{EVALUATION}.2", {"DetResizeForTest": {"image_shape": [736, 1280]}})
    scaled = {"scale": "1./255.", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 1], "order": "hwc"}
    content = put(content, f"{EVALUATION}.3", {"NormalizeImage": scaled})
    content["PostProcess"] |= {"thresh": 0.2, "box_thresh": 0.4, "score_mode": "slow", "use_dilation": True}
    conversion = convert_random(tmp_path, content, "det_mobilenet_v3_dbfpn")
    assert conversion.network.preprocessing.to_json() == {
        "channel_order": "RGB", "scale": 1 / 255, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 1.0],
        "size": {"mode": "stretch", "height": 736, "width": 1280},
    }  # fmt: skip
    expected = BoxPostprocessing(thresh=0.2, box_thresh=0.4, score_mode="slow", use_dilation=True)
    assert conversion.postprocessing == expected
    assert "the preprocessing is that of train.yml" in conversion.notes


def test_steps_of_training_are_followed_where_there_is_no_evaluation(tmp_path: Path) -> None:
    content = put(without(LITE.content(), "Eval"), f"{TRAINING}.3.RecResizeImg.image_shape", [3, 32, 640])
    config = read_config(write(tmp_path, content))
    assert config.usage.preprocessing(config.architecture.preprocessing, "rec").size == Size("height", 32, 640)


def test_without_steps_all_is_as_usual(tmp_path: Path) -> None:
    conversion = convert_random(tmp_path, {"Architecture": LITE.network}, "rec_mobilenet_v3_bilstm_ctc", classes=11)
    assert conversion.network.preprocessing == conversion.network.architecture.preprocessing
    assert not any("preprocessing" in note for note in conversion.notes)


@pytest.mark.parametrize(("described", "place", "step", "message"), [
    (LITE, 0, {"DecodeImage": {"img_mode": "GRAY"}}, "DecodeImage.img_mode is 'GRAY'; expected 'RGB' or 'BGR'"),
    (LITE, 0, {"DecodeImage": {"img_mode": "BGR", "channel_first": True}}, "DecodeImage.channel_first is True"),
    (LITE, 1, {"Sharpen": None}, "the step Sharpen is not known for such a network; known are DecodeImage"),
    (LITE, 1, {"RecAug": None}, "the step RecAug is not known"),
    (LITE, 2, {"RecResizeImg": {"image_shape": [1, 32, 320]}}, r"image_shape is \[1, 32, 320\]; expected 3 channels"),
    (LITE, 2, {"RecResizeImg": {"image_shape": [32, 320]}}, "image_shape is .*; expected 3 channels, height, width"),
    (LITE, 2, {"RecResizeImg": {"image_shape": [3, "a", 1]}}, "image_shape is 'a'; expected an integer"),
    (LITE, 2, {"RecResizeImg": {"image_shape": [3, 32, 320], "blur": 2}}, r"RecResizeImg.blur \(2\) is not known"),
    (LITE, 2, {"RecResizeImg": None}, "RecResizeImg.image_shape is None; expected 3 channels"),
    (LITE, 2, {"RecResizeImg": [3, 32, 320]}, "RecResizeImg is .*; expected its arguments by name"),
    (LITE, 2, {"DetResizeForTest": None}, "the step DetResizeForTest is not known"),
    (LITE, 2, "RecResizeImg", "transforms has 'RecResizeImg'; expected a step's name"),
    (LITE, 3, {"NormalizeImage": None}, "NormalizeImage stands beside RecResizeImg, which normalises too"),
    (LITE, 3, {"DecodeImage": None}, "the step DecodeImage stands after RecResizeImg; such an order is not followed"),
    (LITE, 3, {"RecResizeImg": {"image_shape": [3, 32, 100]}}, "the step RecResizeImg stands after RecResizeImg"),
    (MOBILE_DET, 2, {"DetResizeForTest": {"limit_type": "min"}}, r"limit_type \('min'\) is not known, or has no effect"),
    (MOBILE_DET, 2, {"DetResizeForTest": {"limit_side_len": 960, "limit_type": "mid"}}, "limit_type is 'mid'"),
    (MOBILE_DET, 2, {"DetResizeForTest": {"limit_side_len": 1e9, "limit_type": "max"}}, "limit_side_len is 1000000000"),
    (MOBILE_DET, 2, {"DetResizeForTest": {"image_shape": 736}}, "image_shape is 736; expected height, width"),
    (MOBILE_DET, 2, {"DetResizeForTest": {"resize_long": 0}}, "resize_long is 0; expected an integer from 1"),
    (MOBILE_DET, 3, {"ToCHWImage": None}, "DetResizeForTest needs the step NormalizeImage"),
    (MOBILE_DET, 3, {"NormalizeImage": {"scale": "1/0"}}, "NormalizeImage.scale is '1/0'; expected a number"),
    (MOBILE_DET, 3, {"NormalizeImage": {"mean": [1]}}, r"NormalizeImage.mean is \[1\]; expected 3 numbers"),
    (MOBILE_DET, 3, {"NormalizeImage": {"std": [0, 1, 1]}}, "NormalizeImage.std is 0; expected a number from 1e-06"),
    (MOBILE_DET, 3, {"NormalizeImage": {"channel_num": 1}}, "NormalizeImage.channel_num is 1"),
    (CLASSIFIER, 2, {"ResizeImage": {"resize_short": 256}}, "ResizeImage.resize_short needs the step CropImage"),
])  # fmt: skip
def test_steps_that_are_not_followed_are_refused_by_name(
    tmp_path: Path, described: Described, place: int, step: Any, message: str
) -> None:
    content = put(without(described.content(), "Train"), f"{EVALUATION}.{place}", step)
    with pytest.raises(FormatError, match=message) as caught:
        read_config(write(tmp_path, content))
    assert "Eval.dataset.transforms" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("output", "message"), [
    ({"name": "EASTPostProcess"}, "PostProcess.name is 'EASTPostProcess'; for such a network it is one of DBPostProcess"),
    ({"name": "DBPostProcess", "thresh": 2}, "DBPostProcess.thresh is 2; expected a number from 0 to 1"),
    ({"name": "DBPostProcess", "thresh": "high"}, "DBPostProcess.thresh is 'high'"),
    ({"name": "DBPostProcess", "max_candidates": 0}, "DBPostProcess.max_candidates is 0"),
    ({"name": "DBPostProcess", "score_mode": "exact"}, "DBPostProcess.score_mode is 'exact'; expected 'fast' or 'slow'"),
    ({"name": "DBPostProcess", "box_type": "circle"}, "DBPostProcess.box_type is 'circle'; expected 'quad' or 'poly'"),
    ({"name": "DBPostProcess", "use_dilation": 1}, "DBPostProcess.use_dilation is 1; expected False or True"),
    ({"name": "DBPostProcess", "min_size": 5}, r"DBPostProcess.min_size \(5\) is not known"),
    ([1], r"PostProcess is \[1\]; expected keys and values"),
])  # fmt: skip
def test_postprocessing_that_is_not_followed_is_refused_by_name(tmp_path: Path, output: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_config(write(tmp_path, {"Architecture": MOBILE_DET.network, "PostProcess": output}))


def test_what_upstreams_postprocessing_takes_by_itself(tmp_path: Path) -> None:
    for name, boxes in (
        ("DBPostProcess", BoxPostprocessing(box_thresh=0.7, unclip_ratio=2.0)),
        ("DistillationDBPostProcess", BoxPostprocessing()),
    ):
        config = read_config(write(tmp_path, {"Architecture": MOBILE_DET.network, "PostProcess": {"name": name}}))
        assert config.usage.postprocessing("det").boxes == boxes


@pytest.mark.parametrize(("place", "step", "arguments"), [
    (0, "DecodeImage", {"img_mode": "RGB"}),
    (3, "RecResizeImg", {"image_shape": [3, 48, 320]}),
])  # fmt: skip
def test_training_and_evaluation_have_to_agree(tmp_path: Path, place: int, step: str, arguments: Section) -> None:
    content = put(LITE.content(), f"{TRAINING}.{place}", {step: arguments})
    with pytest.raises(FormatError, match=f"Train and Eval do not agree on {step}"):
        read_config(write(tmp_path, content))


def test_lines_of_training_may_be_of_another_length(tmp_path: Path) -> None:
    content = put(LITE.content(), f"{TRAINING}.3.RecResizeImg.image_shape", [3, 32, 640])
    config = read_config(write(tmp_path, content))
    assert config.usage.preprocessing(config.architecture.preprocessing, "rec").size.width == 320


# ---- characters --------------------------------------------------------------------------------------------------


def test_dictionary_is_found_from_the_configurations_folder_up(tmp_path: Path) -> None:
    (tmp_path / "ppocr").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "ppocr" / "mine.txt").write_text("\n".join("abcdefghi"))
    content = {**LITE.content(), "Global": {"character_dict_path": "ppocr/mine.txt", "use_space_char": True}}
    conversion = convert_random(tmp_path / "configs", content, "rec_mobilenet_v3_bilstm_ctc", classes=11)
    assert conversion.labels.labels == ["blank", *"abcdefghi", " "]


def test_a_dictionary_that_is_not_there_or_of_another_length_is_an_error(tmp_path: Path) -> None:
    content = {**LITE.content(), "Global": {"character_dict_path": "ppocr/gone.txt"}}
    with pytest.raises(
        SourceError, match=r"train\.yml: Global\.character_dict_path is 'ppocr/gone\.txt', which is not th"
    ):
        convert_random(tmp_path, content, "rec_mobilenet_v3_bilstm_ctc", classes=11)
    (tmp_path / "mine.txt").write_text("\n".join("abcdefghij"))
    content["Global"] = {"character_dict_path": "mine.txt", "use_space_char": True}
    with pytest.raises(
        MappingError, match=r"use_space_char true\) does not go with the weights: .* 12 classes.* has 11;"
    ):
        convert_random(tmp_path, content, "rec_mobilenet_v3_bilstm_ctc", classes=11)
    path = write_checkpoint(tmp_path / "m.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11))
    source, config = load_source(str(path), load_zoo(), Fetcher(offline=True)), read_config(write(tmp_path, content))
    given = convert(source, config=config, dictionary=tmp_path / "mine.txt")
    assert given.labels.labels == ["blank", *"abcdefghij"]


def test_a_released_model_s_dictionary_need_not_be_there(tmp_path: Path) -> None:
    source, fetcher = load_source("embedded_rec", load_zoo(), Fetcher(offline=True)), Fetcher(offline=True)
    config = read_config(write(tmp_path, put(LITE.content(), "Global.character_dict_path", "gone.txt")))
    with pytest.raises(SourceError, match=r"is 'gone\.txt', which is not there"):
        convert(source, config=config, fetcher=fetcher)
    url = PurePosixPath(source.model.dictionary.url)
    named = replace(config, dictionary=f"./{'/'.join(url.parts[-2:])}", space=False)
    assert convert(source, config=named, fetcher=fetcher).labels.labels[:3] == ["blank", "0", "1"]


def test_no_dictionary_means_upstreams_characters(tmp_path: Path) -> None:
    content = {**LITE.content(), "Global": {"use_space_char": True}}
    conversion = convert_random(tmp_path, content, "rec_mobilenet_v3_bilstm_ctc", classes=37)
    assert conversion.labels.labels == ["blank", *"0123456789abcdefghijklmnopqrstuvwxyz"]
    content["Global"]["character_type"] = "EN_symbol"
    labels = convert_random(tmp_path, content, "rec_mobilenet_v3_bilstm_ctc", classes=95).labels.labels
    assert (len(labels), labels[1], labels[37:40], labels[-1]) == (95, "0", ["A", "B", "C"], "~")


def test_names_of_classes_are_labels(tmp_path: Path) -> None:
    content = put(CLASSIFIER.content(), "Global.label_list", ["0", 180])
    assert convert_random(tmp_path, content, "cls_mobilenet_v3").labels.labels == ["0", "180"]
    content["Global"]["label_list"] = ["0", "90", "180"]
    message = (
        r"train\.yml: Global\.label_list does not go with the weights: train\.yml names 3 classes, the head has 2; "
    )
    with pytest.raises(MappingError, match=message):
        convert_random(tmp_path, content, "cls_mobilenet_v3")
    content["Global"]["label_list"] = {"0": 180}
    with pytest.raises(FormatError, match=r"Global\.label_list is .*; expected a list of names"):
        read_config(write(tmp_path, content))


# ---- files that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "error", "message"), [
    ("a: [1", FormatError, "not YAML"),
    ("a: 1", FormatError, "no section Architecture"),
    ("[]", FormatError, "no section Architecture"),
    ("[" * 100_000, FormatError, "not YAML"),
    ("Architecture: {Models: {Student: 3}}", MappingError, "has no network 'Student' under Models"),
    ("Architecture: {Models: {}}", MappingError, "has no network None under Models"),
    ("Architecture: {Backbone: 3}", MappingError, "describes no network of this list"),
    ("Architecture: {Head: {name: MultiHead, head_list: [3]}}", MappingError, "head_list has no CTCHead"),
    ("!!python/object/apply:os.system ['true']", FormatError, "not YAML"),
])  # fmt: skip
def test_broken_configurations_are_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        read_config(path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.yml: the configuration cannot be read"):
        read_config(tmp_path / "none.yml")
