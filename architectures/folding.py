"""Folding of re-parameterised layers: parallel branches, and batch norms behind convolutions, into one convolution.

Such a layer is trained with several branches and used with one convolution that computes the same function (RepVGG,
Ding et al., https://arxiv.org/abs/2101.03697). Kernels are computed in double precision and rounded once, at the end.
Batch norms take part with their running statistics: a folded network equals the unfolded one in evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from .layers import Pair

ConvT = TypeVar("ConvT", nn.Conv2d, nn.ConvTranspose2d)


Replaced = dict[str, tuple[str, ...]]
"""The name of a convolution → those of the layers that it computes now, itself as it was before included."""


class Foldable(nn.Module, ABC):
    """A layer with two layouts: one to train, with branches or batch norms, and a folded one that computes the same."""

    @abstractmethod
    def fold(self) -> Replaced:
        """Changes to the folded layout, in place; what has it already, and foldable layers inside, stay as they are.

        Returns:
            What was folded, by names within this layer.
        """


def fold(model: nn.Module, layout: Container[str] | None = None) -> Replaced:
    """Folds the foldable layers of a network, in place.

    Args:
        model: a network; its device, its precision, and whether it trains stay as they are.
        layout: names of the tensors that it is to have then. A layer all of whose tensors are among them stays as it
            is. Every layer is folded by default.

    Returns:
        What was folded, by paths in the network.
    """
    replaced: Replaced = {}
    for path, module in list(model.named_modules()):
        if not isinstance(module, Foldable):
            continue
        prefix = f"{path}." if path else ""
        if layout is None or any(f"{prefix}{name}" not in layout for name in module.state_dict()):
            replaced |= {
                f"{prefix}{conv}": tuple(f"{prefix}{layer}" for layer in layers)
                for conv, layers in module.fold().items()
            }
    return replaced


def fuse_conv_norm(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The one convolution that equals a convolution followed by a batch norm: its weight and bias, in float64.

    Shape: as `conv.weight`, and (`conv.out_channels`,).
    """
    weight = conv.weight.detach().double()
    if isinstance(conv, nn.ConvTranspose2d):  # has its output channels second
        weight, bias = fuse_norm(weight.transpose(0, 1), conv.bias, norm)
        return weight.transpose(0, 1), bias
    return fuse_norm(weight, conv.bias, norm)


def fuse_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """As `fuse_conv_norm`, for the kernel of a convolution that no module holds.

    Args:
        weight: output channels first.
        bias: one value per output channel; None where there is none.

    Raises:
        ValueError: the batch norm keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded: it depends on the whole batch")
    mean, variance, gamma, beta = (
        tensor.detach().double() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    gain = gamma / torch.sqrt(variance + norm.eps)
    shift = -mean if bias is None else bias.detach().double() - mean
    return weight.detach().double() * gain.view(-1, 1, 1, 1), beta + shift * gain


def absorb_norm(owner: nn.Module, conv: str, norm: str) -> Replaced:
    """Puts the batch norm of a module into its convolution, in place; a module without that norm stays as it is.

    Args:
        owner: has both.
        conv, norm: their names in it. An `nn.Identity` takes the norm's place.

    Returns:
        See `Foldable.fold`.
    """
    old, batch_norm = getattr(owner, conv), getattr(owner, norm)
    if not isinstance(batch_norm, nn.BatchNorm2d):
        return {}
    setattr(owner, conv, folded_conv(old, *fuse_conv_norm(old, batch_norm)))
    setattr(owner, norm, nn.Identity())
    return {conv: (conv, norm)}


class ConvNorm(nn.Module):
    """A convolution without bias and its batch norm, padded to keep the size at stride 1: a branch that can be folded.

    Shape: (N, `in_channels`, H, W) → (N, `out_channels`, H/stride, W/stride), rounded up.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: Pair = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def fused(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that computes the same, in float64."""
        return fuse_conv_norm(self.conv, self.bn)

    def folded(self) -> nn.Conv2d:
        """The one convolution that computes the same."""
        return folded_conv(self.conv, *self.fused())


def identity_kernel(conv: nn.Conv2d) -> Tensor:
    """The kernel with which a convolution of stride 1 returns its input, in float64.

    Args:
        conv: of that size and these groups; as many channels in as out, and a kernel with odd sides.

    Shape: as `conv.weight`.
    """
    kernel = torch.zeros_like(conv.weight, dtype=torch.float64)
    channels = torch.arange(conv.out_channels, device=kernel.device)
    _, group, height, width = kernel.shape
    kernel[channels, channels % group, height // 2, width // 2] = 1.0
    return kernel


def pad_kernel(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A kernel in the middle of a larger one, with zeros around it.

    Args:
        size: height and width of the larger one; the differences are even.

    Shape: (O, I, h, w) → (O, I, *`size`).
    """
    rows, columns = ((wanted - given) // 2 for wanted, given in zip(size, weight.shape[2:], strict=True))
    return F.pad(weight, (columns, columns, rows, rows))


def dilate_kernel(weight: Tensor, dilation: int) -> Tensor:
    """The kernel that computes without dilation what `weight` computes with it: zeros between the entries.

    Shape: (O, I, h, w) → (O, I, `dilation`·(h - 1) + 1, `dilation`·(w - 1) + 1).
    """
    outer, inner, height, width = weight.shape
    spread = weight.new_zeros(outer, inner, dilation * (height - 1) + 1, dilation * (width - 1) + 1)
    spread[:, :, ::dilation, ::dilation] = weight
    return spread


def folded_conv(like: ConvT, weight: Tensor, bias: Tensor) -> ConvT:
    """A convolution with a bias that is otherwise like another one: in kernel size, stride, precision and all else.

    Args:
        weight, bias: its values, in any precision.
    """
    conv = skip_init(
        type(like),
        like.in_channels,
        like.out_channels,
        like.kernel_size,
        like.stride,
        like.padding,
        groups=like.groups,
        dilation=like.dilation,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    return conv.train(like.training)
