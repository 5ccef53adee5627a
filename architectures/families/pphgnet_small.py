"""PPHGNet_small: backbone of the server networks of PP-OCRv4.

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_hgnet.py`.
"""

from __future__ import annotations

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
    make_stages,
    unit,
)
from ..layers import Pair
from ..registry import Architecture, Part, register

# input, width of a block's layers, output, blocks
STAGES = (
    (128, 128, 256, 1),
    (256, 160, 512, 1),
    (512, 192, 768, 2),
    (768, 224, 1024, 1),
)
LAYERS = 6
WIDTHS = [outside for _, _, outside, _ in STAGES]

SOURCE = "PP-OCRv4, https://github.com/PaddlePaddle/PaddleOCR/releases/tag/v2.7.0"


class EffectiveSqueezeExcite(nn.Module):
    """Channel attention with one convolution, x·sigmoid(conv(mean(x))) (Lee and Park, https://arxiv.org/abs/1911.06667).

    Shape: (N, `channels`, H, W) → the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv(self.pool(x)))


class Block(AggregationBlock):
    """3×3 convolutions, aggregated by one 1×1 convolution and channel attention."""

    def __init__(self, in_channels: int, width: int, out_channels: int, residual: bool) -> None:
        super().__init__((unit(width if index else in_channels, width, 3) for index in range(LAYERS)), residual)
        self.aggregation_conv = unit(in_channels + LAYERS * width, out_channels, 1)
        self.att = EffectiveSqueezeExcite(out_channels)

    def aggregate(self, x: Tensor) -> Tensor:
        return self.att(self.aggregation_conv(x))


def stage(in_channels: int, width: int, out_channels: int, blocks: int, stride: Pair | None) -> Stage:
    """A row of the table; all blocks but the first are residual."""
    first = Block(in_channels, width, out_channels, residual=False)
    others = (Block(out_channels, width, out_channels, residual=True) for _ in range(blocks - 1))
    return Stage(in_channels, stride, (first, *others))


def stem() -> nn.Sequential:
    """Three 3×3 convolutions, the first of stride 2: (N, 3, H, W) → (N, 128, H/2, W/2)."""
    return nn.Sequential(unit(3, 64, 3, stride=2), unit(64, 64, 3), unit(64, 128, 3))


def detection() -> DetectionHGNet:
    """The detector's backbone."""
    return DetectionHGNet(stem(), make_stages(stage, STAGES, DETECTION_STRIDES), WIDTHS, nn.MaxPool2d(3, 2, 1))


def recognition() -> RecognitionHGNet:
    """The recogniser's backbone."""
    return RecognitionHGNet(stem(), make_stages(stage, STAGES, RECOGNITION_STRIDES), WIDTHS[-1])


# ---- parts and architectures -------------------------------------------------------------------------------------

DETECTION = Part(
    detection,
    config={"Backbone.name": "PPHGNet_small", "Backbone.det": True},
    fixed={"Backbone.out_indices": (None, [0, 1, 2, 3])},
    ignored=CLASSIFIER,
)
RECOGNITION = Part(
    recognition,
    config={"Backbone.name": "PPHGNet_small"},
    fixed={"Backbone.det": (None, False)},
    ignored=CLASSIFIER,
)

register(
    Architecture(
        "det_pphgnet_small_lkpan", "det",
        "detector: PPHGNet_small + LKPAN with IntraCL + PFHeadLocal (PP-OCRv4 server, seals)", SOURCE,
        backbone=DETECTION, neck=necks.LK_PAN_INTRACL, head=pfhead.PF_HEAD_BOTH_MAPS,
        preprocessing=preprocessing.DETECTION,
    ),
    Architecture(
        "rec_pphgnet_small_svtr_ctc", "rec", "recogniser: PPHGNet_small + SVTR + CTC (PP-OCRv4 server)", SOURCE,
        backbone=RECOGNITION, head=svtr.svtr_ctc(6625),
        preprocessing=preprocessing.RECOGNITION_48,
    ),
)  # fmt: skip
