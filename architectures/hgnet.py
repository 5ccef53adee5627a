"""What both generations of PPHGNet share: units, blocks that concatenate all that their layers made, stages, backbones.

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_hgnet.py` and `rec_pphgnetv2.py`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .layers import Pair, conv_norm_act, outputs_of
from .registry import Ignored
from .svtr import TimeStepPool

CLASSIFIER = (
    Ignored("backbone.last_conv.", "the ImageNet classifier that the backbone came from; no OCR network uses it"),
    Ignored("backbone.fc.", "the ImageNet classifier that the backbone came from; no OCR network uses it"),
)


# The first stage of a detector has the stride of the stem. Of a recogniser's strides one halves the width.
DETECTION_STRIDES = (None, 2, 2, 2)
RECOGNITION_STRIDES = ((2, 1), (1, 2), (2, 1), (2, 1))

unit = partial(conv_norm_act, activation=nn.ReLU, names=("conv", "bn"))
"""Convolution without bias, batch norm and ReLU."""


class Unit(Protocol):
    """Makes a convolution with norm and ReLU."""

    def __call__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> nn.Module: ...


class Stem(nn.Module):
    """The first convolutions of PPHGNetV2 and of PPLCNetV4, with a max pool beside two of them.

    Args:
        width: of the layers between.
        out_channels: of the last one.
        stride: of the second 3×3 convolution; the first one's is 2.
        unit: makes the convolutions.

    Shape: (N, 3, H, W) → (N, `out_channels`, H/2/`stride`, W/2/`stride`), rounded up.
    """

    def __init__(self, width: int, out_channels: int, stride: int, unit: Unit = unit) -> None:
        super().__init__()
        self.stem1 = unit(3, width, 3, stride=2)
        self.stem2a = unit(width, width // 2, 2)
        self.stem2b = unit(width // 2, width, 2)
        self.stem3 = unit(2 * width, width, 3, stride=stride)
        self.stem4 = unit(width, out_channels, 1)
        # A row below and a column on the right keep the size with 2×2 windows; what they hold is no candidate for the
        # maximum.
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.pool = nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -math.inf), nn.MaxPool2d(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem1(x)
        convolved = self.stem2b(self.pad(self.stem2a(self.pad(x))))
        return self.stem4(self.stem3(torch.cat([self.pool(x), convolved], 1)))


class AggregationBlock(nn.Module):
    """Layers in a row; the input and all their outputs are concatenated and aggregated by 1×1 convolutions.

    One-shot aggregation of VoVNet (Lee et al., https://arxiv.org/abs/1904.09730).

    Args:
        layers: each reads the one before.
        residual: whether the input is added to the result; it then has as many channels.

    Shape: (N, C, H, W) → (N, C', H, W).
    """

    def __init__(self, layers: Iterable[nn.Module], residual: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.residual = residual

    @abstractmethod
    def aggregate(self, x: Tensor) -> Tensor:
        """From all concatenated channels to those of the block's output."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        aggregated = self.aggregate(torch.cat(outputs, 1))
        return x + aggregated if self.residual else aggregated


class Stage(nn.Module):
    """Blocks, behind a depthwise convolution that takes the stride.

    Args:
        in_channels: of the stage's input.
        stride: None for a stage without that convolution.
        blocks: the stage's blocks.

    Shape: (N, `in_channels`, H, W) → (N, C, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, stride: Pair | None, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if stride is not None:
            self.downsample = unit(in_channels, in_channels, 3, stride=stride, groups=in_channels, activation=None)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


def make_stages(
    make: Callable[..., Stage], rows: Iterable[tuple[Any, ...]], strides: Iterable[Pair | None]
) -> list[Stage]:
    """All stages of a network.

    Args:
        make: a stage from the values of a row, and its stride.
        rows: of the network's table.
        strides: one a stage.
    """
    return [make(*row, stride) for row, stride in zip(rows, strides, strict=True)]


class DetectionHGNet(nn.Module):
    """A detector's backbone.

    Args:
        stem: to a quarter of the input's size; `pool` may take a part of that.
        stages: four.
        out_channels: theirs.
        pool: behind the stem.

    Shape: (N, 3, H, W) → four maps at /4, /8, /16 and /32 with `out_channels` channels.
    """

    def __init__(
        self, stem: nn.Module, stages: Iterable[nn.Module], out_channels: list[int], pool: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.stem = stem
        self.pool = pool if pool is not None else nn.Identity()
        self.stages = nn.Sequential(*stages)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> list[Tensor]:
        return outputs_of(self.stages, self.pool(self.stem(x)))


class RecognitionHGNet(nn.Module):
    """A recogniser's backbone.

    Args:
        stem: to half of the input's size.
        stages: four.
        out_channels: of the last one.

    Shape: (N, 3, 48, W) → (N, `out_channels`, 1, W/8); in training any height, and 40 columns (see `TimeStepPool`).
    """

    def __init__(self, stem: nn.Module, stages: Iterable[nn.Module], out_channels: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.pool = TimeStepPool()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem(x)))
