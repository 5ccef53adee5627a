"""Rewrites that compute the same function with less work, in any precision; new weights are computed in float64."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from ..layers import Hardsigmoid02
from .tracing import ADDITIONS, PRODUCTS, Network, calls, only_user, operands, source, summands

# Hardsigmoid02 is clip(0.2·x + 0.5, 0, 1); PyTorch's own has the slope 1/6.
HARD_SIGMOID_GAIN = 0.2 * 6


# ---- folding into weights ----------------------------------------------------------------------------------------


def drop_identities(network: Network) -> None:
    """Layers that do nothing in evaluation."""
    for node, _ in network.layers(nn.Identity, nn.Dropout, nn.Dropout2d):
        network.replace(node, source(node))


def fold_batch_norms(network: Network) -> None:
    """Batch norms that alone read a convolution or transposed convolution, into its weights."""
    foldable = dict(network.layers(nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d))
    for node, norm in network.layers(nn.BatchNorm1d, nn.BatchNorm2d):
        before = source(node)
        if before not in foldable or only_user(before) is None:
            continue
        if norm.running_mean is None or norm.running_var is None:
            continue
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            factor = factor * norm.weight.double()
        scale_channels(foldable[before], factor, -norm.running_mean.double() * factor, norm.bias)
        network.replace(node, before)


def scale_channels(layer: _ConvNd, factor: Tensor, *summands: Tensor | None) -> None:
    """Multiply the channels that a convolution computes, and add to them.

    Args:
        factor: one value per channel, float64.
        summands: to add after the multiplication, one value per channel; None for nothing.
    """
    weight = layer.weight.double()
    if isinstance(layer, nn.ConvTranspose2d):  # [in, out / groups, …]
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * factor.view(layer.groups, 1, -1, 1, 1)).flatten(0, 1)
    else:
        weight = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    bias = torch.zeros_like(factor) if layer.bias is None else layer.bias.double() * factor
    for summand in summands:
        bias = bias if summand is None else bias + summand.double()
    dtype = layer.weight.dtype
    layer.weight, layer.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))


def fold_hard_sigmoids(network: Network) -> None:
    """PyTorch's own hard sigmoid, of slope 1/6, for that of slope 0.2: the convolution before it makes up for it."""
    convolutions = dict(network.layers(nn.Conv2d))
    for node, _ in network.layers(Hardsigmoid02):
        before = source(node)
        if before in convolutions and only_user(before) is not None:
            layer = convolutions[before]
            scale_channels(layer, layer.weight.new_full((layer.out_channels,), HARD_SIGMOID_GAIN, dtype=torch.float64))
            network.replace(node, network.insert(node, nn.Hardsigmoid(), before))


# ---- gates: what multiplies all pixels of an image alike ---------------------------------------------------------


def find_pooled(network: Network) -> set[fx.Node]:
    """Values of one pixel per image: global averages, and what is computed from them alone."""
    pooled: set[fx.Node] = set()
    for node in network.nodes:
        layer = network.layer(node)
        keeps_size = isinstance(layer, nn.Conv2d) and tuple(layer.kernel_size) == (1, 1)
        keeps_size |= isinstance(layer, Hardsigmoid02) or network.activation(node) is not None
        keeps_size |= calls(node, *ADDITIONS, *PRODUCTS)
        if pools_all(layer) or (keeps_size and pooled.issuperset(node.all_input_nodes)):
            pooled.add(node)
    return pooled


def pools_all(layer: nn.Module | None) -> bool:
    """Whether a layer makes one pixel of all."""
    return isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))


def gated(value: fx.Node, pooled: set[fx.Node]) -> tuple[fx.Node, fx.Node] | None:
    """x and g, where a value is x·g and g alone is of one pixel per image."""
    pair = operands(value, PRODUCTS)
    return pair if pair and pair[1] in pooled and pair[0] not in pooled else None


def factor_gates(network: Network) -> None:
    """x + x·g as x·(1 + g)."""
    pooled = find_pooled(network)
    for node in network.nodes:
        for x, product in summands(node):
            factors = gated(product, pooled)
            if factors and factors[0] is x and only_user(product) is not None:
                gate = network.insert_function(node, operator.add, factors[1], 1.0)
                network.replace(node, network.insert_function(node, operator.mul, x, gate))
                break


# ---- convolutions in another order -------------------------------------------------------------------------------


def convolution(weight: Tensor, bias: Tensor | None, padding: int, dtype: torch.dtype) -> nn.Conv2d:
    """A convolution of stride 1 with these values, in any precision, for one of that precision."""
    outside, inside, height, width = weight.shape
    with torch.device("meta"):  # without initialisation
        layer = nn.Conv2d(inside, outside, (height, width), padding=padding, bias=bias is not None)
    layer.weight = nn.Parameter(weight.to(dtype))
    layer.bias = None if bias is None else nn.Parameter(bias.to(dtype))
    return layer


def is_3x3(layer: nn.Conv2d) -> bool:
    """Whether a convolution sees a pixel and its eight neighbours, all channels, and zeros outside."""
    geometry = (layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups, layer.padding_mode)
    return geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def is_pointwise(layer: nn.Conv2d) -> bool:
    """Whether a convolution sees nothing but the pixel, and all channels."""
    return (layer.kernel_size, layer.padding, layer.stride, layer.groups) == ((1, 1), (0, 0), (1, 1), 1)


def concatenated(value: object) -> list[fx.Node]:
    """The maps that are concatenated along their channels to a value; none where it is no such concatenation."""
    if not isinstance(value, fx.Node) or not calls(value, torch.cat):
        return []
    parts, axis = value.args[0], value.args[1] if len(value.args) > 1 else value.kwargs.get("dim")
    if axis != 1 or not isinstance(parts, (list, tuple)):
        return []
    return [part for part in parts if isinstance(part, fx.Node)]


def upsampled(value: object) -> tuple[fx.Node, int] | None:
    """The map and the factor, where a value is a map with every pixel repeated a whole number of times."""
    if not isinstance(value, fx.Node) or not calls(value, F.interpolate) or len(value.args) != 1:
        return None
    options = {"mode": "nearest", "scale_factor": None, **value.kwargs}
    mode, factor = options.pop("mode"), options.pop("scale_factor")
    if mode != "nearest" or any(options.values()) or not isinstance(factor, (int, float)):
        return None
    return (source(value), int(factor)) if factor == int(factor) > 1 else None


class UpsampledConvolution(nn.Module):
    """Adds to a map, in place, the 3×3 convolution of a coarser map with every pixel repeated.

    In the upsampled map, the first and the last row of what was one row have their neighbours in two rows of the coarse
    map, all others in one; columns likewise. So all pixels of one kind come from a 2×2 convolution of the coarse map;
    `convolution` computes those of all kinds, this layer puts each where it belongs.

    Args:
        factor: how often a pixel is repeated, in both directions.

    Shape: (N, C, k·H, k·W) and (N, kinds·C, H + 1, W + 1) → (N, C, k·H, k·W).
    """

    # Kinds of rows: what the coarse row before and the row itself (for the last kind: the row itself and the one after)
    # get of the kernel's three rows.
    FIRST, MIDDLE, LAST = ((1, 0, 0), (0, 1, 1)), ((0, 0, 0), (1, 1, 1)), ((1, 1, 0), (0, 0, 1))

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        # Place of each kind among the repeated rows, and by how much its result lies further on.
        self.places = [(slice(0, 1), 0), (slice(1, factor - 1), 0), (slice(factor - 1, factor), 1)]
        if factor == 2:
            del self.places[1]

    def convolution(self, weight: Tensor) -> nn.Conv2d:
        """The convolution of the coarse map, from the 3×3 kernel."""
        kinds = [self.FIRST, self.LAST] if self.factor == 2 else [self.FIRST, self.MIDDLE, self.LAST]
        split = torch.tensor(kinds, dtype=torch.float64)
        kernels = torch.einsum("rap,cbq,oipq->rcoiab", split, split, weight.double())
        return convolution(kernels.flatten(0, 2), None, 1, weight.dtype)

    def forward(self, x: Tensor, convolved: Tensor) -> Tensor:
        height, width = convolved.shape[2] - 1, convolved.shape[3] - 1
        kinds = iter(convolved.chunk(len(self.places) ** 2, 1))
        blocks = x.unflatten(3, (-1, self.factor)).unflatten(2, (-1, self.factor))
        for rows, down in self.places:
            for columns, right in self.places:
                kind = next(kinds)[:, :, down : down + height, right : right + width]
                blocks[:, :, :, rows, :, columns].add_(kind[:, :, :, None, :, None])
        return x


def channels(network: Network, value: fx.Node) -> int | None:
    """How many channels a map has, as far as convolutions tell it."""
    layer = network.layer(value)
    if isinstance(layer, (nn.Conv2d, GatedConvolution)):
        return layer.out_channels
    if pair := operands(value, (*ADDITIONS, *PRODUCTS)):
        found = {channels(network, operand) for operand in pair}
        return found.pop() if len(found) == 1 else None
    is_elementwise = network.activation(value) is not None or calls(value, *ADDITIONS, *PRODUCTS) or upsampled(value)
    if isinstance(layer, (Hardsigmoid02, UpsampledConvolution)) or (is_elementwise and len(value.all_input_nodes) == 1):
        return channels(network, source(value))
    return None


def convolve_before_upsampling(network: Network) -> None:
    """3×3 convolutions of sums and concatenations with upsampled maps: each map convolved at its own size."""
    for node, layer in network.layers(nn.Conv2d):
        value = source(node)
        if not is_3x3(layer) or only_user(value) is None:
            continue
        parts = list(split_weight(network, value, layer.weight))
        fine = [(part, weight) for part, weight in parts if not upsampled(part)]
        if len(fine) != 1 or len(parts) == 1:
            continue
        ((part, weight),) = fine
        result = network.insert(node, convolution(weight, layer.bias, 1, weight.dtype), part)
        for part, weight in parts:
            if found := upsampled(part):
                coarse, factor = found
                add = UpsampledConvolution(factor)
                result = network.insert(node, add, result, network.insert(node, add.convolution(weight), coarse))
        network.replace(node, result)


def split_weight(network: Network, value: fx.Node, weight: Tensor) -> Iterator[tuple[fx.Node, Tensor]]:
    """The maps that a value is the sum or the concatenation of, each with the weight that a convolution has for it.

    Nothing where it is neither, or where convolutions do not tell the channels of the maps.
    """
    parts = operands(value, ADDITIONS) or concatenated(value)
    told = [width for part in parts if (width := channels(network, part)) is not None]
    if len(told) < len(parts):
        return
    if calls(value, torch.cat):
        yield from zip(parts, weight.split(told, 1), strict=True)
    elif set(told) == {weight.shape[1]}:
        yield from ((part, weight) for part in parts)


def pool_before_convolution(network: Network) -> None:
    """Global averages of 1×1 convolutions as convolutions of the average, where the input has fewer channels."""
    for node, pool in network.layers(nn.AdaptiveAvgPool2d):
        value = source(node)
        layer = network.layer(value)
        if not (pools_all(pool) and isinstance(layer, nn.Conv2d) and is_pointwise(layer)):
            continue
        if layer.in_channels < layer.out_channels:
            average = network.insert(node, pool, source(value))
            network.replace(node, network.insert(node, copy.deepcopy(layer), average))


class GatedConvolution(nn.Module):
    """A 3×3 convolution of a gated 1×1 convolution: one convolution, whose weights the gate decides.

    Shape: (N, C, H, W) and (N, D, 1, 1) → (N, E, H, W).
    """

    inner: Tensor
    outer: Tensor
    bias: Tensor | None

    def __init__(self, inner: nn.Conv2d, outer: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels = outer.out_channels
        self.register_buffer("inner", inner.weight.detach().flatten(1))  # [D, C]
        self.register_buffer("outer", outer.weight.detach().flatten(2).transpose(1, 2).contiguous())  # [E, 9, D]
        self.register_buffer("bias", None if outer.bias is None else outer.bias.detach())

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        images = []
        for image, factors in zip(x.split(1), gate.flatten(1), strict=True):
            weight = self.outer @ (factors[:, None] * self.inner)
            images.append(F.conv2d(image, weight.transpose(1, 2).unflatten(2, (3, 3)), self.bias, padding=1))
        return images[0] if len(images) == 1 else torch.cat(images)


def merge_convolutions(network: Network) -> None:
    """3×3 and 1×1 convolutions of 1×1 ones, gated or not, as one, where that is less work.

    Before a 3×3 one the 1×1 one must add nothing: outside the image there are zeros.
    """
    pooled = find_pooled(network)
    for node, outer in network.layers(nn.Conv2d):
        value, gate = source(node), None
        if (factors := gated(value, pooled)) and only_user(value):
            value, gate = factors
        inner = network.layer(value)
        if not (isinstance(inner, nn.Conv2d) and is_pointwise(inner) and only_user(value)):
            continue
        if not (is_3x3(outer) and inner.bias is None) and not (is_pointwise(outer) and gate is None):
            continue
        read, between, written = inner.in_channels, inner.out_channels, outer.out_channels * prod(outer.kernel_size)
        if read * written > between * (read + written):
            continue
        if gate is not None:
            merged = network.insert(node, GatedConvolution(inner, outer), source(value), gate)
        else:
            weight = torch.einsum("ompq,mi->oipq", outer.weight.double(), inner.weight.double().flatten(1))
            bias = outer.bias
            if inner.bias is not None:
                bias = outer.weight.double().flatten(1) @ inner.bias.double() + (0 if bias is None else bias)
            layer = convolution(weight, bias, len(weight[0, 0]) // 2, outer.weight.dtype)
            merged = network.insert(node, layer, source(value))
        network.replace(node, merged)


FOLDING = (drop_identities, fold_batch_norms, fold_hard_sigmoids, factor_gates)
REORDERING = (convolve_before_upsampling, pool_before_convolution, merge_convolutions)
