"""PaddleOCR configurations settle what the weights cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.mapping.config import read_config
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.errors import FormatError, MappingError, SourceError
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import random_tensors, write_checkpoint

MOBILE_REC = {
    "model_type": "rec",
    "algorithm": "CRNN",
    "Transform": None,
    "Backbone": {"name": "MobileNetV3", "scale": 0.5, "model_name": "small", "small_stride": [1, 2, 2, 2]},
    "Neck": {"name": "SequenceEncoder", "encoder_type": "rnn", "hidden_size": 48},
    "Head": {"name": "CTCHead", "fc_decay": 0.00001},
}
V3_REC = {
    "model_type": "rec",
    "algorithm": "SVTR",
    "Backbone": {"name": "MobileNetV1Enhance", "scale": 0.5, "last_conv_stride": [1, 2], "last_pool_type": "avg"},
    "Head": {
        "name": "MultiHead",
        "head_list": [
            {"CTCHead": {"Neck": {"name": "svtr", "dims": 64, "depth": 2}, "Head": {"fc_decay": 0.00001}}},
            {"SARHead": {"enc_dim": 512, "max_text_length": 25}},
        ],
    },
}
DB_HEAD = {"name": "DBHead", "k": 50}
STUDENT = {
    "Backbone": {"name": "MobileNetV3", "scale": 0.5, "model_name": "large", "disable_se": True},
    "Neck": {"name": "RSEFPN", "out_channels": 96, "shortcut": True},
    "Head": DB_HEAD,
}
TEACHER = {
    "Backbone": {"name": "ResNet", "in_channels": 3, "layers": 50},
    "Neck": {"name": "LKPAN", "out_channels": 256},
    "Head": {**DB_HEAD, "kernel_list": [7, 2, 2]},
}
DISTILLATION = {"name": "DistillationModel", "Models": {"Teacher": TEACHER, "Student": STUDENT, "Student2": STUDENT}}
SERVER_DET = {
    "Backbone": {"name": "ResNet_vd", "layers": 18},
    "Neck": {"name": "DBFPN", "out_channels": 256},
    "Head": DB_HEAD,
}
CLS = {
    "Transform": None,
    "Backbone": {"name": "MobileNetV3", "scale": 0.35, "model_name": "small"},
    "Neck": None,
    "Head": {"name": "ClsHead", "class_dim": 2},
}


def config_file(folder: Path, architecture: object, **settings: object) -> Path:
    path = folder / "train.yml"
    path.write_text(yaml.safe_dump({"Global": settings, "Architecture": architecture}))
    return path


@pytest.mark.parametrize(("section", "branch", "name", "parameters"), [
    (MOBILE_REC, None, "rec_mobilenet_v3_bilstm_ctc", {"scale": 0.5, "hidden_size": 48}),
    (V3_REC, None, "rec_mobilenet_v1_enhance_svtr_ctc", {"scale": 0.5}),
    (DISTILLATION, None, "det_mobilenet_v3_rsefpn", {"scale": 0.5, "disable_se": True, "out_channels": 96}),
    (DISTILLATION, "Teacher", "det_resnet50_vd_lkpan", {"out_channels": 256}),
    (SERVER_DET, None, "det_resnet18_vd_dbfpn", {"out_channels": 256}),
    (CLS, None, "cls_mobilenet_v3", {"scale": 0.35}),
])  # fmt: skip
def test_architecture_and_parameters(
    tmp_path: Path, section: object, branch: str | None, name: str, parameters: dict[str, object]
) -> None:
    config = read_config(config_file(tmp_path, section), branch)
    assert (config.architecture.name, config.parameters) == (name, parameters)


def test_squeeze_and_excite_is_on_unless_a_detectors_configuration_says_otherwise(tmp_path: Path) -> None:
    backbone = {"name": "MobileNetV3", "model_name": "large", "scale": 0.5}
    section = {"Backbone": backbone, "Neck": {"name": "DBFPN", "out_channels": 96}, "Head": DB_HEAD}
    assert read_config(config_file(tmp_path, section)).parameters["disable_se"] is False


def test_a_wider_network_converts_with_its_configuration_only(tmp_path: Path) -> None:
    """The scale cannot be told from the weights."""
    path = write_checkpoint(
        tmp_path / "wide.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", scale=1.0, classes=11)
    )
    source = load_source(str(path), load_zoo(), Fetcher())
    with pytest.raises(MappingError, match="another width"):
        convert(source)
    section = {**MOBILE_REC, "Backbone": {**MOBILE_REC["Backbone"], "scale": 1.0}}
    conversion = convert(source, config=read_config(config_file(tmp_path, section)))
    assert conversion.network.parameters == {"scale": 1.0, "hidden_size": 48, "classes": 11}


def test_dictionary_is_found_from_the_configurations_folder_up(tmp_path: Path) -> None:
    (tmp_path / "ppocr").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "ppocr" / "mine.txt").write_text("\n".join("abcdefghi"))
    path = config_file(tmp_path / "configs", MOBILE_REC, character_dict_path="ppocr/mine.txt", use_space_char=True)
    checkpoint = write_checkpoint(tmp_path / "x.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11))
    conversion = convert(load_source(str(checkpoint), load_zoo(), Fetcher()), config=read_config(path))
    assert conversion.labels.labels == ["blank", *"abcdefghi", " "]


def test_an_absent_dictionary_is_told_and_conversion_goes_on(tmp_path: Path) -> None:
    path = config_file(tmp_path, MOBILE_REC, character_dict_path="ppocr/gone.txt")
    checkpoint = write_checkpoint(tmp_path / "x.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11))
    conversion = convert(load_source(str(checkpoint), load_zoo(), Fetcher()), config=read_config(path))
    assert conversion.labels.labels is None
    assert "train.yml names ppocr/gone.txt, which is not there; give it with --dict" in conversion.labels.note


def test_networks_that_are_not_in_the_list_are_named(tmp_path: Path) -> None:
    section = {"Backbone": {"name": "PPLCNetV3", "scale": 0.95}, "Head": {"name": "MultiHead", "head_list": []}}
    with pytest.raises(
        MappingError, match=r"describes no network of this list \(Backbone\.name PPLCNetV3, Head\.name CTCHead\)"
    ):
        read_config(config_file(tmp_path, section))


@pytest.mark.parametrize(("text", "error", "message"), [
    ("a: [1", FormatError, "not YAML"),
    ("a: 1", FormatError, "no section Architecture"),
    ("[]", FormatError, "no section Architecture"),
    (yaml.safe_dump({"Architecture": {**MOBILE_REC, "Neck": {"encoder_type": "rnn", "hidden_size": "big"}}}), FormatError, "Neck.hidden_size is 'big'; expected a value of type int"),
    (yaml.safe_dump({"Architecture": {"Models": {"Student": 3}}}), MappingError, "has no network 'Student' under Models"),
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
