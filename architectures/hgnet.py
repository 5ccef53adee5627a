"""What both generations of PPHGNet share: units, blocks that concatenate all that their layers made, stages.

Upstream: PaddleOCR `ppocr/modeling/backbones/rec_hgnet.py` and `rec_pphgnetv2.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .layers import Pair, conv_norm_act
from .registry import Ignored

NAMES = ("conv", "bn")

CLASSIFIER = (
    Ignored("backbone.last_conv.", "the ImageNet classifier that the backbone came from; no OCR network uses it"),
    Ignored("backbone.fc.", "the ImageNet classifier that the backbone came from; no OCR network uses it"),
)


def unit(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: Pair = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution, batch norm and ReLU; see `conv_norm_act`."""
    return conv_norm_act(
        in_channels, out_channels, kernel_size, stride=stride, groups=groups, activation=activation, names=NAMES
    )


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


def outputs_of(stages: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The output of every stage."""
    outputs = []
    for stage in stages:
        x = stage(x)
        outputs.append(x)
    return outputs
