"""PPHGNet_small: backbone of the server networks of PP-OCRv4.

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_hgnet.py`.
"""

from __future__ import annotations

from torch import Tensor, nn

from .. import preprocessing
from ..hgnet import CLASSIFIER, AggregationBlock, Stage, outputs_of, unit
from ..layers import Pair
from ..pfhead import LKPAN_INTRACL, PF_HEAD_BOTH_MAPS
from ..registry import Architecture, Part, register
from ..svtr import SVTR_CTC, TimeStepPool

# input, width of a block's layers, output, blocks
STAGES = (
    (128, 128, 256, 1),
    (256, 160, 512, 1),
    (512, 192, 768, 2),
    (768, 224, 1024, 1),
)
LAYERS = 6

DETECTION_STRIDES = (None, 2, 2, 2)
RECOGNITION_STRIDES = ((2, 1), (1, 2), (2, 1), (2, 1))

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


class PPHGNetSmall(nn.Module):
    """What detector and recogniser share: stem and stages, which differ in their strides."""

    def __init__(self, strides: tuple[Pair | None, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(unit(3, 64, 3, stride=2), unit(64, 64, 3), unit(64, 128, 3))
        self.stages = nn.Sequential(*(stage(*row, stride) for row, stride in zip(STAGES, strides, strict=True)))


class DetectionPPHGNetSmall(PPHGNetSmall):
    """A detector's backbone.

    Shape: (N, 3, H, W) → four maps at /4, /8, /16 and /32 with `out_channels` channels.
    """

    def __init__(self) -> None:
        super().__init__(DETECTION_STRIDES)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.out_channels = [outside for _, _, outside, _ in STAGES]

    def forward(self, x: Tensor) -> list[Tensor]:
        return outputs_of(self.stages, self.pool(self.stem(x)))


class RecognitionPPHGNetSmall(PPHGNetSmall):
    """A recogniser's backbone.

    Shape: (N, 3, 48, W) → (N, `out_channels`, 1, W/8); in training any height, and 40 columns (see `TimeStepPool`).
    """

    def __init__(self) -> None:
        super().__init__(RECOGNITION_STRIDES)
        self.out_channels = STAGES[-1][2]
        self.pool = TimeStepPool()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem(x)))


DETECTION = Part(
    DetectionPPHGNetSmall,
    config={"Backbone.name": "PPHGNet_small", "Backbone.det": True},
    ignored=CLASSIFIER,
)
RECOGNITION = Part(
    RecognitionPPHGNetSmall,
    config={"Backbone.name": "PPHGNet_small"},
    ignored=CLASSIFIER,
)

register(
    Architecture(
        "det_pphgnet_small_lkpan",
        "det",
        "detector: PPHGNet_small + LKPAN with IntraCL + PFHeadLocal (PP-OCRv4 server, seals)",
        source=SOURCE,
        backbone=DETECTION,
        neck=LKPAN_INTRACL,
        head=PF_HEAD_BOTH_MAPS,
        preprocessing=preprocessing.DETECTION,
    ),
)
register(
    Architecture(
        "rec_pphgnet_small_svtr_ctc",
        "rec",
        "recogniser: PPHGNet_small + SVTR + CTC (PP-OCRv4 server)",
        source=SOURCE,
        backbone=RECOGNITION,
        head=SVTR_CTC,
        preprocessing=preprocessing.RECOGNITION_48,
    ),
)
