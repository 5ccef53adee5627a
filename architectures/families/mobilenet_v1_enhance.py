"""MobileNetV1Enhance, the backbone of the PP-OCRv2 and PP-OCRv3 recognisers (https://arxiv.org/abs/2109.03144).

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_mv1_enhance.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from .. import heads, preprocessing, sequence, svtr
from ..layers import Pair, SqueezeExcite, conv_norm_act
from ..registry import Architecture, Parameter, Part, register

NAMES = ("_conv", "_batch_norm")
POOLS = ("max", "avg")


class Row(NamedTuple):
    """One depthwise-separable unit at scale 1: kernel, width out, stride, squeeze-and-excite or not."""

    kernel: int
    out: int
    stride: Pair
    se: bool = False


ROWS = (
    Row(3, 64, 1),
    Row(3, 128, 1),
    Row(3, 128, 1),
    Row(3, 256, (2, 1)),
    Row(3, 256, 1),
    Row(3, 512, (2, 1)),
    *[Row(5, 512, 1)] * 5,
    Row(5, 1024, (2, 1), se=True),
)


def separable(in_channels: int, out_channels: int, row: Row) -> nn.Sequential:
    """Depthwise convolution, perhaps squeeze-and-excite (torch's own hard sigmoid), 1×1 convolution; no shortcut."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["_depthwise_conv"] = conv_norm_act(
        in_channels,
        in_channels,
        row.kernel,
        stride=row.stride,
        groups=in_channels,
        activation=nn.Hardswish,
        names=NAMES,
    )
    if row.se:
        layers["_se"] = SqueezeExcite(in_channels, nn.Hardsigmoid)
    layers["_pointwise_conv"] = conv_norm_act(in_channels, out_channels, 1, activation=nn.Hardswish, names=NAMES)
    return nn.Sequential(layers)


class MobileNetV1Enhance(nn.Module):
    """The recognisers' backbone.

    Args:
        scale: factor on all widths.
        last_stride: stride of the last unit; (1, 2) in PP-OCRv3, which halves the time steps once more.
        last_pool: "max" (PP-OCRv2), which is 2×2, or "avg" (PP-OCRv3).
        pool_kernel: of the average pooling, which has it as its stride too.

    Shape: (N, 3, 32, W) → (N, `out_channels`, 1, W/4) with stride 1; (N, 3, 48, W) → (…, 1, W/8) with (1, 2).

    Raises:
        ValueError: there is no such pooling.
    """

    def __init__(
        self, scale: float = 0.5, last_stride: Pair = (1, 1), last_pool: str = "max", pool_kernel: Pair = (2, 2)
    ) -> None:
        super().__init__()
        channels = int(32 * scale)
        self.conv1 = conv_norm_act(3, channels, 3, stride=2, activation=nn.Hardswish, names=NAMES)
        units = []
        for row in (*ROWS, Row(5, 1024, last_stride, se=True)):
            units.append(separable(channels, int(row.out * scale), row))
            channels = int(row.out * scale)
        self.block_list = nn.Sequential(*units)
        if last_pool not in POOLS:
            raise ValueError(f"MobileNetV1Enhance ends in one of {', '.join(POOLS)}, not in {last_pool!r}")
        self.pool = nn.MaxPool2d(2) if last_pool == "max" else nn.AvgPool2d(pool_kernel)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.block_list(self.conv1(x)))


# ---- parts and architectures -------------------------------------------------------------------------------------


def read_pair(value: object) -> tuple[int, int]:
    """A stride or kernel of a configuration: a number, or one for each side."""
    given = value if isinstance(value, list) else [value]
    numbers = [number for number in given if type(number) is int and 1 <= number <= 16]
    if not 1 <= len(numbers) <= 2 or len(numbers) < len(given):
        raise ValueError("a number from 1 to 16, or two of them")
    return numbers[0], numbers[-1]


def read_pooling(value: object) -> str:
    """What a configuration calls a pooling."""
    if value not in POOLS:
        raise ValueError(f"one of {', '.join(POOLS)}")
    return str(value)


def recognition(last_stride: Pair = (1, 1), last_pool: str = "max") -> Part:
    """The backbone with these ends, which differ from what upstream takes where a configuration has none.

    A configuration without the pooling's kernel is one of PP-OCRv3's first days, when that was 2×2. Today's code takes
    3×2 then, but all configurations that came with it say 2×2.
    """
    return Part(
        MobileNetV1Enhance,
        parameters={
            "scale": Parameter(0.5, config="Backbone.scale"),
            "last_stride": Parameter(last_stride, config="Backbone.last_conv_stride", absent=(1, 1), read=read_pair),
            "last_pool": Parameter(last_pool, config="Backbone.last_pool_type", absent="max", read=read_pooling),
            "pool_kernel": Parameter((2, 2), config="Backbone.last_pool_kernel_size", read=read_pair),
        },
        config={"Backbone.name": "MobileNetV1Enhance"},
    )


register(
    Architecture(
        "rec_mobilenet_v1_enhance_bilstm_ctc", "rec",
        "recogniser: MobileNetV1Enhance ×0.5 + BiLSTM + two-layer CTC (PP-OCRv2)",
        "PP-OCRv2, https://arxiv.org/abs/2109.03144", backbone=recognition(), neck=sequence.bilstm(64),
        head=heads.CTC_TWO_LAYERS, preprocessing=preprocessing.RECOGNITION_32,
    ),
    Architecture(
        "rec_mobilenet_v1_enhance_svtr_ctc", "rec", "recogniser: MobileNetV1Enhance ×0.5 + SVTR + CTC (PP-OCRv3)",
        "PP-OCRv3, https://arxiv.org/abs/2206.03001", backbone=recognition(last_stride=(1, 2), last_pool="avg"),
        neck=svtr.SVTR, head=heads.CTC_OF_MULTI_HEAD, preprocessing=preprocessing.RECOGNITION_48,
    ),
)  # fmt: skip
