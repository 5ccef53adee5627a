"""PPHGNetV2_B4: backbone of the server networks of PP-OCRv5.

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_pphgnetv2.py`.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from .. import preprocessing
from ..hgnet import CLASSIFIER, AggregationBlock, Stage, outputs_of, unit
from ..layers import Pair
from ..pfhead import LKPAN_INTRACL, PF_HEAD
from ..registry import Architecture, Part, register
from ..svtr import SVTR_CTC, TimeStepPool

STEM = (32, 48)

# input, width of a block's layers, output, blocks, whether the layers are light ones, their kernel
STAGES = (
    (48, 48, 128, 1, False, 3),
    (128, 96, 512, 1, False, 3),
    (512, 192, 1024, 3, True, 5),
    (1024, 384, 2048, 1, True, 5),
)
LAYERS = 6

DETECTION_STRIDES = (None, 2, 2, 2)
RECOGNITION_STRIDES = ((2, 1), (1, 2), (2, 1), (2, 1))

SOURCE = "PP-OCRv5, https://arxiv.org/abs/2507.05595"


class Stem(nn.Module):
    """The first convolutions, with a max pool beside two of them.

    Args:
        width: of the layers between.
        out_channels: of the last one.
        stride: of the second 3×3 convolution; the first one's is 2.

    Shape: (N, 3, H, W) → (N, `out_channels`, H/2/`stride`, W/2/`stride`).
    """

    def __init__(self, width: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stem1 = unit(3, width, 3, stride=2)
        self.stem2a = unit(width, width // 2, 2)
        self.stem2b = unit(width // 2, width, 2)
        self.stem3 = unit(2 * width, width, 3, stride=stride)
        self.stem4 = unit(width, out_channels, 1)
        # A row below and a column on the right keep the size with 2×2 windows. After ReLU no value is negative, so that
        # zeros do for the max pool as well.
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.pool = nn.MaxPool2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pad(self.stem1(x))
        convolved = self.stem2b(self.pad(self.stem2a(x)))
        return self.stem4(self.stem3(torch.cat([self.pool(x), convolved], 1)))


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


class PPHGNetV2(nn.Module):
    """What detector and recogniser share: stem and stages, which differ in their strides."""

    def __init__(self, stem_stride: int, strides: tuple[Pair | None, ...]) -> None:
        super().__init__()
        self.stem = Stem(*STEM, stem_stride)
        self.stages = nn.Sequential(*(stage(*row, stride) for row, stride in zip(STAGES, strides, strict=True)))


class DetectionPPHGNetV2(PPHGNetV2):
    """A detector's backbone.

    Shape: (N, 3, H, W) → four maps at /4, /8, /16 and /32 with `out_channels` channels.
    """

    def __init__(self) -> None:
        super().__init__(2, DETECTION_STRIDES)
        self.out_channels = [outside for _, _, outside, *_ in STAGES]

    def forward(self, x: Tensor) -> list[Tensor]:
        return outputs_of(self.stages, self.stem(x))


class RecognitionPPHGNetV2(PPHGNetV2):
    """A recogniser's backbone.

    Shape: (N, 3, 48, W) → (N, `out_channels`, 1, W/8); in training any height, and 40 columns (see `TimeStepPool`).
    """

    def __init__(self) -> None:
        super().__init__(1, RECOGNITION_STRIDES)
        self.out_channels = STAGES[-1][2]
        self.pool = TimeStepPool()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem(x)))


DETECTION = Part(
    DetectionPPHGNetV2,
    config={"Backbone.name": "PPHGNetV2_B4", "Backbone.det": True},
    ignored=CLASSIFIER,
)
RECOGNITION = Part(
    RecognitionPPHGNetV2,
    config={"Backbone.name": "PPHGNetV2_B4", "Backbone.text_rec": True},
    ignored=CLASSIFIER,
)

register(
    Architecture(
        "det_pphgnet_v2_lkpan",
        "det",
        "detector: PPHGNetV2_B4 + LKPAN with IntraCL + PFHeadLocal (PP-OCRv5 server)",
        source=SOURCE,
        backbone=DETECTION,
        neck=LKPAN_INTRACL,
        head=PF_HEAD,
        preprocessing=preprocessing.DETECTION,
    ),
)
register(
    Architecture(
        "rec_pphgnet_v2_svtr_ctc",
        "rec",
        "recogniser: PPHGNetV2_B4 + SVTR + CTC (PP-OCRv5 server)",
        source=SOURCE,
        backbone=RECOGNITION,
        head=SVTR_CTC,
        preprocessing=preprocessing.RECOGNITION_48,
    ),
)
