"""Building blocks that several networks share.

Convolution units are plain `nn.Sequential`s whose parts carry the names that the tensors have in published weights,
so that a network reads as its list of layers and no renaming happens inside the modules.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Pair = int | tuple[int, int]


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value` that is not below 90 % of it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Hardsigmoid02(nn.Module):
    """clip(0.2·x + 0.5, 0, 1): the hard sigmoid that Paddle's layers default to.

    PyTorch's own has slope 1/6. Both occur in the PP-OCR networks, so each use names the one it means.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


class SqueezeExcite(nn.Module):
    """Channel attention x·gate(conv2(relu(conv1(mean(x))))) (Hu et al., https://arxiv.org/abs/1709.01507).

    Args:
        channels: channels in and out.
        gate: builds the last activation; the families differ in the slope of their hard sigmoid.
        reduction: how many times narrower the layer between is.
    """

    def __init__(self, channels: int, gate: Callable[[], nn.Module], reduction: int = 4) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = nn.Conv2d(channels, channels // reduction, 1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels // reduction, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv2(self.relu(self.conv1(self.pool(x)))))


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
    names: tuple[str, str],
    before: nn.Module | None = None,
) -> nn.Sequential:
    """A convolution without bias, its batch norm and perhaps an activation, padded to keep the size at stride 1.

    Args:
        kernel_size: with odd sides; an even one is padded by too little, which is left to the caller.
        names: the names of convolution and batch norm; they differ between upstream's families.
        before: a parameterless layer ahead of the convolution.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if before is not None:
        layers["pool"] = before
    height, width = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    padding = ((height - 1) // 2, (width - 1) // 2)
    layers[names[0]] = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    layers[names[1]] = nn.BatchNorm2d(out_channels)
    if activation is not None:
        layers["act"] = activation()
    return nn.Sequential(layers)


def outputs_of(stages: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """The output of every stage, each of which reads the one before."""
    outputs = []
    for stage in stages:
        x = stage(x)
        outputs.append(x)
    return outputs


def runs_eagerly() -> bool:
    """Whether shapes are plain numbers now: neither traced nor exported, so that input checks may look at them."""
    return not (torch.jit.is_tracing() or torch.compiler.is_compiling())
