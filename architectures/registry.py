"""The one table of architectures: what each is made of, how its tensors are named in Paddle, what its input is.

Everything here is data, and importing it imports no torch: `list` and `--help` stay quick. A new architecture is an
entry below and, where no module has its parts yet, one module file.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from .network import OCRModel

Task = Literal["det", "rec", "cls"]
Rename = tuple[str, str]


@dataclass(frozen=True)
class Component:
    """A part of a network: `module:Class` below this package, and its arguments."""

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """A number or flag by which networks of one architecture differ.

    Attributes:
        component: the part that takes it, under the same name: "backbone", "neck" or "head".
        default: its value in upstream's configuration.
        inferred_from: module key and axis at which the tensor's size is the value, where the weights tell it.
        config: key below `Architecture` at which a PaddleOCR configuration gives it.
    """

    component: str
    default: Any
    inferred_from: tuple[str, int] | None = None
    config: str | None = None


@dataclass(frozen=True)
class Ignored:
    """Source tensors that conversion leaves out on purpose.

    Attributes:
        prefix: of their names in Paddle.
        reason: why, for the user.
    """

    prefix: str
    reason: str


@dataclass(frozen=True)
class Architecture:
    """One network of the list.

    Attributes:
        name: as in `model_zoo.yaml`.
        task: "det", "rec" or "cls".
        summary: one line for a person.
        source: where the design comes from.
        components: "backbone", "neck" and "head"; a classifier has no neck.
        parameters: what may differ between models.
        renames: (name in Paddle, name in the module) templates; the first that matches wins, a name that matches none
            stays. `<n>` and `<m>` stand for digits, `<kind>` and `<gate>` for the words of an LSTM parameter's name,
            `<rest>` for anything.
        preprocessing: how a picture becomes the input array, explained at the section "input" below.
        config: keys below `Architecture` in a PaddleOCR configuration → the value that means this architecture; None
            where the key is absent or empty.
        ignored: source tensors to leave out.
        optional: module prefixes that inference tarballs lack; they are then initialised from a fixed seed.
    """

    name: str
    task: Task
    summary: str
    source: str
    components: dict[str, Component]
    parameters: dict[str, Parameter]
    renames: tuple[Rename, ...]
    preprocessing: dict[str, Any]
    config: dict[str, Any]
    ignored: tuple[Ignored, ...] = ()
    optional: tuple[str, ...] = ()


# ---- names in Paddle and in the modules --------------------------------------------------------------------------
# The module side is what converted PP-OCR weights in circulation have, so that files can be exchanged both ways.

MOBILENET_V3_STAGES = (("backbone.stage<n>.<rest>", "backbone.stages.<n>.<rest>"),)
RESNET_STAGES = (("backbone.bb_<n>_<m>.<rest>", "backbone.stages.<n>.bb_<n>_<m>.<rest>"),)
RESNET_BLOCK_LIST = (("backbone.bb_<n>_<m>.<rest>", "backbone.block_list.bb_<n>_<m>.<rest>"),)
LSTM = (
    ("<rest>.lstm.<n>.cell_fw.<kind>_<gate>", "<rest>.lstm.<kind>_<gate>_l<n>"),
    ("<rest>.lstm.<n>.cell_bw.<kind>_<gate>", "<rest>.lstm.<kind>_<gate>_l<n>_reverse"),
)
MULTI_HEAD = (
    ("head.ctc_encoder.encoder.<rest>", "neck.encoder.<rest>"),
    ("head.ctc_head.<rest>", "head.<rest>"),
)
# Applied after the table above to every name.
LEAVES = (("<rest>._mean", "<rest>.running_mean"), ("<rest>._variance", "<rest>.running_var"))

SAR_HEAD = Ignored("head.sar_head.", "the SAR head guides training and is never run in evaluation")
THRESHOLD_BRANCH = ("head.thresh.",)

# ---- input -------------------------------------------------------------------------------------------------------
# channel_order: of the array's channels; pixels are multiplied by scale, then (x - mean) / std per channel.
# size.mode: "height" keeps the ratio, the width follows and is padded with zeros to the batch's; "height_padded" pads
# or shrinks to one width; "multiple" limits the longer side and rounds both to the multiple.

IMAGENET = {"channel_order": "BGR", "scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SYMMETRIC = {"channel_order": "BGR", "scale": 1 / 255, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
DETECTION = {**IMAGENET, "size": {"mode": "multiple", "multiple": 32, "limit_side": 960}}
RECOGNITION_32 = {**SYMMETRIC, "size": {"mode": "height", "height": 32, "width": 320}}
RECOGNITION_48 = {**SYMMETRIC, "size": {"mode": "height", "height": 48, "width": 320}}
CLASSIFICATION = {**SYMMETRIC, "size": {"mode": "height_padded", "height": 48, "width": 192}}

# ---- architectures -----------------------------------------------------------------------------------------------

CLASSES = Parameter("head", 6625, inferred_from=("head.fc.weight", 0))
RECOGNITION_STRIDES = ((1, 1), (2, 1), (2, 1), (2, 1))
CLASSIFICATION_STRIDES = ((2, 1), (2, 1), (2, 1), (2, 1))


def scale(default: float) -> Parameter:
    """The factor on all of the backbone's widths."""
    return Parameter("backbone", default, config="Backbone.scale")


def hidden_size(default: int) -> Parameter:
    """The LSTM's width per direction."""
    return Parameter("neck", default, ("neck.encoder.lstm.weight_hh_l0", 1), "Neck.hidden_size")


def pyramid_width(default: int, key: str = "neck.in2_conv.weight") -> Parameter:
    """The feature pyramid's channels."""
    return Parameter("neck", default, (key, 0), "Neck.out_channels")


ALL = (
    Architecture(
        name="det_mobilenet_v3_dbfpn",
        task="det",
        summary="detector: MobileNetV3 large ×0.5 + DBFPN + DB head",
        source="PP-OCR, https://arxiv.org/abs/2009.09941",
        components={
            "backbone": Component("mobilenet_v3:DetectionMobileNetV3"),
            "neck": Component("fpn:DBFPN"),
            "head": Component("heads:DBHead"),
        },
        parameters={
            "scale": scale(0.5),
            "disable_se": Parameter("backbone", True, config="Backbone.disable_se"),
            "out_channels": pyramid_width(96),
        },
        renames=MOBILENET_V3_STAGES,
        preprocessing=DETECTION,
        config={
            "Backbone.name": "MobileNetV3",
            "Backbone.model_name": "large",
            "Neck.name": "DBFPN",
            "Head.name": "DBHead",
        },
        optional=THRESHOLD_BRANCH,
    ),
    Architecture(
        name="det_mobilenet_v3_rsefpn",
        task="det",
        summary="detector: MobileNetV3 large ×0.5 + RSEFPN + DB head",
        source="PP-OCRv3, https://arxiv.org/abs/2206.03001",
        components={
            "backbone": Component("mobilenet_v3:DetectionMobileNetV3"),
            "neck": Component("fpn:RSEFPN"),
            "head": Component("heads:DBHead"),
        },
        parameters={
            "scale": scale(0.5),
            "disable_se": Parameter("backbone", True, config="Backbone.disable_se"),
            "out_channels": pyramid_width(96, "neck.ins_conv.0.in_conv.weight"),
        },
        renames=MOBILENET_V3_STAGES,
        preprocessing=DETECTION,
        config={
            "Backbone.name": "MobileNetV3",
            "Backbone.model_name": "large",
            "Neck.name": "RSEFPN",
            "Head.name": "DBHead",
        },
        optional=THRESHOLD_BRANCH,
    ),
    Architecture(
        name="det_resnet18_vd_dbfpn",
        task="det",
        summary="detector: ResNet18_vd + DBFPN + DB head (server; teacher of PP-OCRv2)",
        source="PP-OCR, https://arxiv.org/abs/2009.09941",
        components={
            "backbone": Component("resnet_vd:DetectionResNetVd", {"depth": 18}),
            "neck": Component("fpn:DBFPN"),
            "head": Component("heads:DBHead"),
        },
        parameters={"out_channels": pyramid_width(256)},
        renames=RESNET_STAGES,
        preprocessing=DETECTION,
        config={"Backbone.name": "ResNet", "Backbone.layers": 18, "Neck.name": "DBFPN", "Head.name": "DBHead"},
        optional=THRESHOLD_BRANCH,
    ),
    Architecture(
        name="det_resnet50_vd_lkpan",
        task="det",
        summary="detector: ResNet50_vd + LKPAN + DB head 7×7 (teacher of PP-OCRv3)",
        source="PP-OCRv3, https://arxiv.org/abs/2206.03001",
        components={
            "backbone": Component("resnet_vd:DetectionResNetVd", {"depth": 50}),
            "neck": Component("fpn:LKPAN"),
            "head": Component("heads:DBHead", {"kernel_size": 7}),
        },
        parameters={"out_channels": pyramid_width(256, "neck.ins_conv.0.weight")},
        renames=RESNET_STAGES,
        preprocessing=DETECTION,
        config={"Backbone.name": "ResNet", "Backbone.layers": 50, "Neck.name": "LKPAN", "Head.name": "DBHead"},
        optional=THRESHOLD_BRANCH,
    ),
    Architecture(
        name="rec_mobilenet_v3_bilstm_ctc",
        task="rec",
        summary="recogniser: MobileNetV3 small ×0.5 + BiLSTM + CTC (all v2.0 mobile ones)",
        source="PP-OCR, https://arxiv.org/abs/2009.09941",
        components={
            "backbone": Component("mobilenet_v3:RecognitionMobileNetV3", {"strides": RECOGNITION_STRIDES}),
            "neck": Component("sequence:SequenceEncoder", {"encoder": "bilstm"}),
            "head": Component("heads:CTCHead"),
        },
        parameters={"scale": scale(0.5), "hidden_size": hidden_size(48), "classes": CLASSES},
        renames=LSTM,
        preprocessing=RECOGNITION_32,
        config={
            "Backbone.name": "MobileNetV3",
            "Backbone.model_name": "small",
            "Neck.encoder_type": "rnn",
            "Head.name": "CTCHead",
        },
    ),
    Architecture(
        name="rec_resnet34_vd_bilstm_ctc",
        task="rec",
        summary="recogniser: ResNet34_vd + BiLSTM + CTC (server)",
        source="PP-OCR, https://arxiv.org/abs/2009.09941",
        components={
            "backbone": Component("resnet_vd:RecognitionResNetVd", {"depth": 34}),
            "neck": Component("sequence:SequenceEncoder", {"encoder": "bilstm"}),
            "head": Component("heads:CTCHead"),
        },
        parameters={"hidden_size": hidden_size(256), "classes": CLASSES},
        renames=RESNET_BLOCK_LIST + LSTM,
        preprocessing=RECOGNITION_32,
        config={"Backbone.name": "ResNet", "Backbone.layers": 34, "Neck.encoder_type": "rnn", "Head.name": "CTCHead"},
    ),
    Architecture(
        name="rec_mobilenet_v1_enhance_bilstm_ctc",
        task="rec",
        summary="recogniser: MobileNetV1Enhance ×0.5 + BiLSTM + two-layer CTC (PP-OCRv2)",
        source="PP-OCRv2, https://arxiv.org/abs/2109.03144",
        components={
            "backbone": Component("mobilenet_v1_enhance:MobileNetV1Enhance"),
            "neck": Component("sequence:SequenceEncoder", {"encoder": "bilstm"}),
            "head": Component("heads:CTCHead"),
        },
        parameters={
            "scale": scale(0.5),
            "hidden_size": hidden_size(64),
            "mid_channels": Parameter("head", 96, ("head.fc1.weight", 0), "Head.mid_channels"),
            "classes": Parameter("head", 6625, inferred_from=("head.fc2.weight", 0)),
        },
        renames=LSTM,
        preprocessing=RECOGNITION_32,
        config={"Backbone.name": "MobileNetV1Enhance", "Neck.encoder_type": "rnn", "Head.name": "CTCHead"},
    ),
    Architecture(
        name="rec_mobilenet_v1_enhance_svtr_ctc",
        task="rec",
        summary="recogniser: MobileNetV1Enhance ×0.5 + SVTR + CTC (PP-OCRv3)",
        source="PP-OCRv3, https://arxiv.org/abs/2206.03001",
        components={
            "backbone": Component(
                "mobilenet_v1_enhance:MobileNetV1Enhance", {"last_stride": (1, 2), "last_pool": "avg"}
            ),
            "neck": Component("sequence:SequenceEncoder", {"encoder": "svtr"}),
            "head": Component("heads:CTCHead"),
        },
        parameters={"scale": scale(0.5), "classes": CLASSES},
        renames=MULTI_HEAD,
        preprocessing=RECOGNITION_48,
        config={"Backbone.name": "MobileNetV1Enhance", "Neck.encoder_type": "svtr", "Head.name": "CTCHead"},
        ignored=(SAR_HEAD,),
    ),
    Architecture(
        name="cls_mobilenet_v3",
        task="cls",
        summary="angle classifier: MobileNetV3 small ×0.35 + linear layer (0°, 180°)",
        source="PP-OCR, https://arxiv.org/abs/2009.09941",
        components={
            "backbone": Component("mobilenet_v3:RecognitionMobileNetV3", {"strides": CLASSIFICATION_STRIDES}),
            "head": Component("heads:ClassificationHead"),
        },
        parameters={
            "scale": scale(0.35),
            "classes": Parameter("head", 2, inferred_from=("head.fc.weight", 0)),
        },
        renames=(),
        preprocessing=CLASSIFICATION,
        config={
            "Backbone.name": "MobileNetV3",
            "Backbone.model_name": "small",
            "Neck.name": None,
            "Head.name": "ClsHead",
        },
    ),
)

ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for entry in ALL}


def get(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ValueError: there is none; the message lists all.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"there is no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def list_models(task: Task | None = None) -> list[str]:
    """The names of all architectures, or of one task's ("det", "rec" or "cls")."""
    return [entry.name for entry in ALL if task in (None, entry.task)]


def create_model(name: str, **parameters: Any) -> OCRModel:
    """A freshly initialised network, in training mode.

    Args:
        name: an architecture, see `list_models`.
        **parameters: where it differs from the default, for example `classes=97`.

    Raises:
        ValueError: no such architecture, or it has no such parameter.
    """
    return assemble(name, parameters, build_part)


def build_part(target: str, arguments: Mapping[str, Any]) -> Any:
    """A part of a network: `module:Class` below this package, called with these arguments."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), attribute)(**arguments)


def assemble(
    name: str, parameters: Mapping[str, Any], build: Callable[[str, Mapping[str, Any]], nn.Module]
) -> OCRModel:
    """The network of an architecture from parts that `build` makes; see `build_part` and `create_model`."""
    from .network import OCRModel

    return OCRModel(get(name).task, **make_parts(name, parameters, build))


def make_parts(
    name: str, parameters: Mapping[str, Any], build: Callable[[str, Mapping[str, Any]], Any]
) -> dict[str, Any]:
    """What `build` makes of each component of an architecture: component → part.

    Args:
        name, parameters: see `create_model`.
        build: see `build_part`. A part's `out_channels`, where it has them, are the next one's `in_channels`.

    Raises:
        ValueError: see `create_model`.
    """
    architecture = get(name)
    unknown = parameters.keys() - architecture.parameters.keys()
    if unknown:
        raise ValueError(
            f"{name} has no parameter {', '.join(sorted(unknown))}; it has: {', '.join(architecture.parameters)}"
        )
    parts: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    for part, component in architecture.components.items():
        chosen = {
            key: parameters.get(key, parameter.default)
            for key, parameter in architecture.parameters.items()
            if parameter.component == part
        }
        parts[part] = build(component.target, {**channels, **component.arguments, **chosen})
        channels = {"in_channels": getattr(parts[part], "out_channels", None)}
    return parts
