"""MobileNetV3 (Howard et al., https://arxiv.org/abs/1905.02244) as the PP-OCR networks have it.

Upstream: PaddleOCR `ppocr/modeling/backbones/det_mobilenet_v3.py` and `rec_mobilenet_v3.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .. import heads, necks, preprocessing, sequence
from ..layers import Hardsigmoid02, Pair, SqueezeExcite, conv_norm_act, make_divisible, outputs_of
from ..registry import Absent, Architecture, Parameter, Part, register

RELU, HARDSWISH = nn.ReLU, nn.Hardswish
NAMES = ("conv", "bn")


class Row(NamedTuple):
    """One unit at scale 1: kernel, widths inside and out, squeeze-and-excite or not, activation, stride."""

    kernel: int
    middle: int
    out: int
    se: bool
    activation: type[nn.Module]
    stride: Pair


# fmt: off
# The detector's rows. A unit with stride 2 opens a new stage, at half the resolution; only the first stage starts with
# the stem's own resolution and has its stride in the second unit.
LARGE = (
    (Row(3, 16, 16, False, RELU, 1), Row(3, 64, 24, False, RELU, 2), Row(3, 72, 24, False, RELU, 1)),
    (Row(5, 72, 40, True, RELU, 2), Row(5, 120, 40, True, RELU, 1), Row(5, 120, 40, True, RELU, 1)),
    (Row(3, 240, 80, False, HARDSWISH, 2), Row(3, 200, 80, False, HARDSWISH, 1), Row(3, 184, 80, False, HARDSWISH, 1),
     Row(3, 184, 80, False, HARDSWISH, 1), Row(3, 480, 112, True, HARDSWISH, 1), Row(3, 672, 112, True, HARDSWISH, 1)),
    (Row(5, 672, 160, True, HARDSWISH, 2), Row(5, 960, 160, True, HARDSWISH, 1), Row(5, 960, 160, True, HARDSWISH, 1)),
)
LARGE_LAST = 960

# The recogniser's and the classifier's rows; the four strides that are not 1 are given by the network. Upstream writes
# them as pairs, of which the second number is 1.
SMALL = (
    Row(3, 16, 16, True, RELU, 2),
    Row(3, 72, 24, False, RELU, 2),
    Row(3, 88, 24, False, RELU, 1),
    Row(5, 96, 40, True, HARDSWISH, 2),
    Row(5, 240, 40, True, HARDSWISH, 1),
    Row(5, 240, 40, True, HARDSWISH, 1),
    Row(5, 120, 48, True, HARDSWISH, 1),
    Row(5, 144, 48, True, HARDSWISH, 1),
    Row(5, 288, 96, True, HARDSWISH, 2),
    Row(5, 576, 96, True, HARDSWISH, 1),
    Row(5, 576, 96, True, HARDSWISH, 1),
)
SMALL_LAST = 576
# fmt: on


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise convolution, squeeze-and-excite, 1×1 projection without activation.

    The shortcut exists where the stride is the plain number 1 and the widths agree. A stride written as a pair gives
    none, even (1, 1): so upstream compares it, and so the recogniser's first unit was trained.
    """

    def __init__(self, in_channels: int, middle: int, out_channels: int, row: Row) -> None:
        super().__init__()
        self.shortcut = row.stride == 1 and in_channels == out_channels
        self.expand_conv = conv_norm_act(in_channels, middle, 1, activation=row.activation, names=NAMES)
        self.bottleneck_conv = conv_norm_act(
            middle, middle, row.kernel, stride=row.stride, groups=middle, activation=row.activation, names=NAMES
        )
        self.mid_se = SqueezeExcite(middle, Hardsigmoid02) if row.se else nn.Identity()
        self.linear_conv = conv_norm_act(middle, out_channels, 1, names=NAMES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear_conv(self.mid_se(self.bottleneck_conv(self.expand_conv(x))))
        return x + y if self.shortcut else y


class DetectionMobileNetV3(nn.Module):
    """The large network as a detector's backbone.

    Args:
        scale: factor on all widths.
        disable_se: leave the squeeze-and-excite layers out, as all released detectors do.

    Shape: (N, 3, H, W) → four maps at /4, /8, /16 and /32 with `out_channels` channels.
    """

    def __init__(self, scale: float = 0.5, disable_se: bool = True) -> None:
        super().__init__()
        channels = make_divisible(16 * scale)
        self.conv = conv_norm_act(3, channels, 3, stride=2, activation=HARDSWISH, names=NAMES)
        stages, self.out_channels = [], []
        for rows in LARGE:
            units: list[nn.Module] = []
            for row in rows:
                out = make_divisible(row.out * scale)
                row = row._replace(se=row.se and not disable_se)
                units.append(InvertedResidual(channels, make_divisible(row.middle * scale), out, row))
                channels = out
            stages.append(units)
            self.out_channels.append(channels)
        last = make_divisible(LARGE_LAST * scale)
        stages[-1].append(conv_norm_act(channels, last, 1, activation=HARDSWISH, names=NAMES))
        self.out_channels[-1] = last
        self.stages = nn.ModuleList(nn.Sequential(*units) for units in stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        return outputs_of(self.stages, self.conv(x))


class RecognitionMobileNetV3(nn.Module):
    """The small network as backbone of a recogniser or of the angle classifier.

    Args:
        scale: factor on all widths.
        strides: by which the units 0, 1, 3 and 8 divide the height.
        disable_se: leave the squeeze-and-excite layers out.

    Shape: (N, 3, 32, W) → (N, `out_channels`, 1, W/4) with the recogniser's strides.

    Raises:
        ValueError: there are not four strides.
    """

    def __init__(self, scale: float, strides: tuple[int, int, int, int], disable_se: bool = False) -> None:
        super().__init__()
        if len(strides) != 4:
            raise ValueError(f"MobileNetV3 has four strides, not {len(strides)}")
        channels = make_divisible(16 * scale)
        self.conv1 = conv_norm_act(3, channels, 3, stride=2, activation=HARDSWISH, names=NAMES)
        given = iter(strides)
        units = []
        for row in SMALL:
            out = make_divisible(row.out * scale)
            stride = row.stride if row.stride == 1 else (next(given), 1)
            row = row._replace(stride=stride, se=row.se and not disable_se)
            units.append(InvertedResidual(channels, make_divisible(row.middle * scale), out, row))
            channels = out
        self.blocks = nn.Sequential(*units)
        self.out_channels = make_divisible(SMALL_LAST * scale)
        self.conv2 = conv_norm_act(channels, self.out_channels, 1, activation=HARDSWISH, names=NAMES)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv2(self.blocks(self.conv1(x))))


# ---- parts and architectures -------------------------------------------------------------------------------------

PP_OCR = "PP-OCR, https://arxiv.org/abs/2009.09941"
PP_OCR_V3 = "PP-OCRv3, https://arxiv.org/abs/2206.03001"


def small(scale: float, strides: tuple[int, int, int, int]) -> Part:
    """The small network with these values, which differ from what upstream takes where a configuration has none."""
    return Part(
        RecognitionMobileNetV3,
        parameters={
            "scale": Parameter(scale, config="Backbone.scale", absent=0.5),
            "strides": Parameter(strides, config="Backbone.small_stride", absent=(2, 2, 2, 2)),
            "disable_se": Parameter(
                False, told_by=Absent("backbone.blocks.0.mid_se.conv1.weight"), config="Backbone.disable_se"
            ),
        },
        config={"Backbone.name": "MobileNetV3", "Backbone.model_name": "small"},
        harmless=("Backbone.large_stride",),
    )


DETECTION = Part(
    DetectionMobileNetV3,
    parameters={
        "scale": Parameter(0.5, config="Backbone.scale"),
        "disable_se": Parameter(
            True,
            told_by=Absent("backbone.stages.1.0.mid_se.conv1.weight"),
            config="Backbone.disable_se",
            absent=False,
        ),
    },
    config={"Backbone.name": "MobileNetV3", "Backbone.model_name": "large"},
    harmless=("Backbone.small_stride", "Backbone.large_stride"),
    renames=(("backbone.stage<n>.<rest>", "backbone.stages.<n>.<rest>"),),
)
RECOGNITION = small(0.5, (1, 2, 2, 2))
ANGLES = small(0.35, (2, 2, 2, 2))

register(
    Architecture(
        "det_mobilenet_v3_dbfpn", "det", "detector: MobileNetV3 large ×0.5 + DBFPN + DB head", PP_OCR,
        backbone=DETECTION, neck=necks.dbfpn(96), head=heads.DB, preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "det_mobilenet_v3_rsefpn", "det", "detector: MobileNetV3 large ×0.5 + RSEFPN + DB head", PP_OCR_V3,
        backbone=DETECTION, neck=necks.RSE_FPN, head=heads.DB, preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "rec_mobilenet_v3_bilstm_ctc", "rec",
        "recogniser: MobileNetV3 small ×0.5 + BiLSTM + CTC (all v2.0 mobile ones)", PP_OCR,
        backbone=RECOGNITION, neck=sequence.bilstm(48), head=heads.CTC, preprocessing=preprocessing.RECOGNITION_32,
    ),
    Architecture(
        "cls_mobilenet_v3", "cls", "angle classifier: MobileNetV3 small ×0.35 + linear layer (0°, 180°)", PP_OCR,
        backbone=ANGLES, head=heads.CLASSIFICATION, preprocessing=preprocessing.CLASSIFICATION,
    ),
)  # fmt: skip
