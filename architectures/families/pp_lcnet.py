"""PP-LCNet (Cui et al., https://arxiv.org/abs/2109.15099) as PP-OCR's classifiers of orientations and kinds.

Text lines turned by 180°, pages turned by quarters, tables with and without ruled lines. Upstream: PaddleClas
`ppcls/arch/backbone/legendary_models/pp_lcnet.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import preprocessing
from ..layers import Pair, SqueezeExcite, conv_norm_act, make_divisible
from ..registry import Architecture, Parameter, Part, Size, register

STEM = 16


class Row(NamedTuple):
    """One block at scale 1: kernel, channels out, whether it has the stage's stride, squeeze-and-excite or not."""

    kernel: int
    out: int
    strided: bool = False
    se: bool = False


# The stages `blocks2` to `blocks6`.
STAGES = (
    (Row(3, 32),),
    (Row(3, 64, strided=True), Row(3, 64)),
    (Row(3, 128, strided=True), Row(3, 128)),
    (Row(3, 256, strided=True), *[Row(5, 256)] * 5),
    (Row(5, 512, strided=True, se=True), Row(5, 512, se=True)),
)
LAST = STAGES[-1][-1].out


unit = partial(conv_norm_act, activation=nn.Hardswish, names=("conv", "bn"))
"""Convolution without bias, batch norm and hard swish."""


def block(in_channels: int, out_channels: int, row: Row, stride: Pair) -> nn.Sequential:
    """Depthwise convolution, perhaps squeeze-and-excite, 1×1 convolution; with no sum around them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["dw_conv"] = unit(
        in_channels, in_channels, row.kernel, stride=stride if row.strided else 1, groups=in_channels
    )
    if row.se:
        layers["se"] = SqueezeExcite(in_channels, nn.Hardsigmoid)
    layers["pw_conv"] = unit(in_channels, out_channels, 1)
    return nn.Sequential(layers)


def make_stages(channels: int, scale: float, stride: Pair) -> Iterator[nn.Sequential]:
    """The blocks of each stage, for an input of so many channels."""
    for rows in STAGES:
        blocks = []
        for row in rows:
            out = make_divisible(row.out * scale)
            blocks.append(block(channels, out, row, stride))
            channels = out
        yield nn.Sequential(*blocks)


class PPLCNet(nn.Module):
    """The backbone.

    Args:
        width: channels of the last block: 512 times the network's scale.
        stem_stride: of the first convolution.
        stride: of the four stages that have one.

    Shape: (N, 3, H, W) → (N, `out_channels`, H', W'): the sides divided by the stem's stride and four times by the
    stages', rounded up each time.
    """

    def __init__(self, width: int = LAST, stem_stride: Pair = 2, stride: Pair = 2) -> None:
        super().__init__()
        scale = width / LAST
        channels = make_divisible(STEM * scale)
        self.conv1 = unit(3, channels, 3, stride=stem_stride)
        self.blocks2, self.blocks3, self.blocks4, self.blocks5, self.blocks6 = make_stages(channels, scale, stride)
        self.out_channels = make_divisible(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks6(self.blocks5(self.blocks4(self.blocks3(self.blocks2(self.conv1(x))))))


class UnscaledDropout(nn.Module):
    """Dropout that leaves what it keeps as it is and scales in evaluation, Paddle's mode `downscale_in_infer`.

    Shape: any → the same; in evaluation (1 - `share`)·x.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.share, self.training) * (1 - self.share)

    def extra_repr(self) -> str:
        return f"share={self.share}"


class PPLCNetHead(nn.Module):
    """Global average pool, a wide 1×1 convolution and a linear layer.

    Args:
        last_conv: whether the convolution is there, with its activation and dropout.
        expansion: its channels.

    Shape: (N, `in_channels`, H, W) → (N, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(self, in_channels: int, classes: int, last_conv: bool = True, expansion: int = 1280) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        if last_conv:
            self.last_conv: nn.Module = nn.Conv2d(in_channels, expansion, 1, bias=False)
            self.act: nn.Module = nn.Hardswish()
            self.dropout: nn.Module = UnscaledDropout(0.2)
        else:
            self.last_conv, self.act, self.dropout = nn.Identity(), nn.Identity(), nn.Identity()
        self.fc = nn.Linear(expansion if last_conv else in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc(self.dropout(self.act(self.last_conv(self.pool(x)))).flatten(1))
        return logits if self.training else torch.softmax(logits, dim=1)


def backbone(stem_stride: Pair, stride: Pair, width: int = LAST) -> Part:
    """The backbone with its strides, which the weights do not tell, and a width where they do not say otherwise."""
    return Part(
        PPLCNet,
        arguments={"stem_stride": stem_stride, "stride": stride},
        parameters={"width": Parameter(width, told_by=Size("backbone.blocks6.1.pw_conv.conv.weight", 0))},
        renames=(("conv1.<rest>", "backbone.conv1.<rest>"), ("blocks<n>.<rest>", "backbone.blocks<n>.<rest>")),
    )


def head(classes: int, last_conv: bool = True) -> Part:
    """The head, for so many classes where the weights do not say otherwise."""
    return Part(
        PPLCNetHead,
        arguments={"last_conv": last_conv},
        parameters={"classes": Parameter(classes, told_by=Size("head.fc.weight", 0))},
        renames=(("last_conv.<rest>", "head.last_conv.<rest>"), ("fc.<rest>", "head.fc.<rest>")),
    )


SOURCE = "PP-LCNet, https://arxiv.org/abs/2109.15099"

# The first two differ in strides alone: the weights of a network with two classes do not tell which of them it is.
register(
    Architecture(
        "cls_pp_lcnet_textline", "cls",
        "text line orientation: PP-LCNet whose stages halve the height alone (0°, 180°)", SOURCE,
        backbone=backbone(stem_stride=2, stride=(2, 1)), head=head(2), preprocessing=preprocessing.LINE_ORIENTATION,
    ),
    Architecture(
        "cls_pp_lcnet_page", "cls",
        "page orientation, kind of table: PP-LCNet (0°, 90°, 180°, 270°; with or without ruled lines)", SOURCE,
        backbone=backbone(stem_stride=2, stride=2), head=head(4), preprocessing=preprocessing.PAGE_ORIENTATION,
    ),
    Architecture(
        "cls_pp_lcnet_textline_2025_05", "cls",
        "text line orientation: PP-LCNet with a narrow head and another stem, as first released (0°, 180°)", SOURCE,
        backbone=backbone(stem_stride=(1, 2), stride=(2, 1), width=128), head=head(2, last_conv=False),
        preprocessing=preprocessing.LINE_ORIENTATION,
    ),
)  # fmt: skip
