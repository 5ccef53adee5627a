"""PPHGNetV2_B4: backbone of the server networks of PP-OCRv5.

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_pphgnetv2.py`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from .. import necks, pfhead, preprocessing, svtr
from ..hgnet import (
    CLASSIFIER,
    DETECTION_STRIDES,
    RECOGNITION_STRIDES,
    AggregationBlock,
    DetectionHGNet,
    RecognitionHGNet,
    Stage,
    Stem,
    make_stages,
    unit,
)
from ..layers import Pair
from ..registry import Architecture, Part, register

STEM = (32, 48)

# input, width of a block's layers, output, blocks, whether the layers are light ones, their kernel
STAGES = (
    (48, 48, 128, 1, False, 3),
    (128, 96, 512, 1, False, 3),
    (512, 192, 1024, 3, True, 5),
    (1024, 384, 2048, 1, True, 5),
)
LAYERS = 6
WIDTHS = [outside for _, _, outside, *_ in STAGES]

SOURCE = "PP-OCRv5, https://arxiv.org/abs/2507.05595"


def light_unit(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """A 1×1 convolution without activation, then a depthwise one."""
    pointwise = unit(in_channels, out_channels, 1, activation=None)
    depthwise = unit(out_channels, out_channels, kernel_size, groups=out_channels)
    return nn.Sequential(OrderedDict(conv1=pointwise, conv2=depthwise))


class Block(AggregationBlock):
    """Layers aggregated by two 1×1 convolutions, the first one to half of the output's channels."""

    def __init__(
        self, in_channels: int, width: int, out_channels: int, light: bool, kernel_size: int, residual: bool
    ) -> None:
        layer = light_unit if light else unit
        super().__init__(
            (layer(width if index else in_channels, width, kernel_size) for index in range(LAYERS)), residual
        )
        self.aggregation_squeeze_conv = unit(in_channels + LAYERS * width, out_channels // 2, 1)
        self.aggregation_excitation_conv = unit(out_channels // 2, out_channels, 1)

    def aggregate(self, x: Tensor) -> Tensor:
        return self.aggregation_excitation_conv(self.aggregation_squeeze_conv(x))


def stage(
    in_channels: int, width: int, out_channels: int, blocks: int, light: bool, kernel_size: int, stride: Pair | None
) -> Stage:
    """A row of the table; all blocks but the first are residual."""
    first = Block(in_channels, width, out_channels, light, kernel_size, residual=False)
    others = (Block(out_channels, width, out_channels, light, kernel_size, residual=True) for _ in range(blocks - 1))
    return Stage(in_channels, stride, (first, *others))


def detection() -> DetectionHGNet:
    """The detector's backbone."""
    return DetectionHGNet(Stem(*STEM, stride=2), make_stages(stage, STAGES, DETECTION_STRIDES), WIDTHS)


def recognition() -> RecognitionHGNet:
    """The recogniser's backbone."""
    return RecognitionHGNet(Stem(*STEM, stride=1), make_stages(stage, STAGES, RECOGNITION_STRIDES), WIDTHS[-1])


# ---- parts and architectures -------------------------------------------------------------------------------------

DETECTION = Part(
    detection,
    config={"Backbone.name": "PPHGNetV2_B4", "Backbone.det": True},
    fixed={"Backbone.text_rec": (None, False), "Backbone.use_lab": (None, False)},
    ignored=CLASSIFIER,
)
RECOGNITION = Part(
    recognition,
    config={"Backbone.name": "PPHGNetV2_B4", "Backbone.text_rec": True},
    fixed={"Backbone.det": (None, False), "Backbone.use_lab": (None, False)},
    ignored=CLASSIFIER,
)

register(
    Architecture(
        "det_pphgnet_v2_lkpan", "det",
        "detector: PPHGNetV2_B4 + LKPAN with IntraCL + PFHeadLocal (PP-OCRv5 server)", SOURCE,
        backbone=DETECTION, neck=necks.LK_PAN_INTRACL, head=pfhead.PF_HEAD, preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "rec_pphgnet_v2_svtr_ctc", "rec", "recogniser: PPHGNetV2_B4 + SVTR + CTC (PP-OCRv5 server)", SOURCE,
        backbone=RECOGNITION, head=svtr.svtr_ctc(18385), preprocessing=preprocessing.RECOGNITION_48,
    ),
)  # fmt: skip
