"""Layers as single calls of oneDNN, for float32 and bfloat16: with their activation, and a sum, in the same call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .algebra import (
    GatedConvolution,
    UpsampledConvolution,
    channels,
    find_pooled,
    gated,
    is_pointwise,
    pools_all,
    upsampled,
)
from .tracing import ADDITIONS, PRODUCTS, Network, Output, calls, only_user, source, summands

# oneDNN's calls, found once: looking for them at every call takes a hundredth of a small network's time.
onednn = torch.ops.mkldnn
if torch.backends.mkldnn.is_available():
    convolve, convolve_and_add = onednn._convolution_pointwise.default, onednn._convolution_pointwise.binary
    multiply, multiply_and_add = onednn._linear_pointwise.default, onednn._linear_pointwise.binary

# By oneDNN's name; each may write to its input.
ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu_,
    "sigmoid": torch.sigmoid_,
    "swish": lambda x: F.silu(x, inplace=True),
    "hardswish": lambda x: F.hardswish(x, inplace=True),
    "hardsigmoid": lambda x: F.hardsigmoid(x, inplace=True),
}


# ---- the kernels -------------------------------------------------------------------------------------------------


class Kernel(nn.Module):
    """A layer that one call of oneDNN computes.

    Attributes:
        weight: as oneDNN arranges it for this processor; in pickles, in PyTorch's layout.
        rest: what the call takes after the inputs and the weight; first the bias.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *rest: object) -> None:
        super().__init__()
        self.weight = self.arrange(weight.detach())
        self.rest = (None if bias is None else bias.detach(), *rest)

    def arrange(self, weight: Tensor) -> Tensor:
        """A weight of PyTorch's layout as the call takes it."""
        return onednn._reorder_linear_weight(weight.contiguous())

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "weight": self.weight.to_dense()}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self.weight = self.arrange(self.weight)


class Convolution(Kernel):
    """A convolution with its activation; where it is `summed`, a second map is added before that, which may be relu."""

    def __init__(self, layer: nn.Conv2d, activation: str, summed: bool) -> None:
        self.geometry = (list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups)
        name = None if activation == "none" else activation
        after: tuple[object, ...] = ("add", 1.0, name, [], None) if summed else (activation, [], "")
        super().__init__(layer.weight, layer.bias, *self.geometry, *after)

    def arrange(self, weight: Tensor) -> Tensor:
        return onednn._reorder_convolution_weight(weight, *self.geometry)

    def forward(self, x: Tensor, summand: Tensor | None = None) -> Tensor:
        if summand is None:
            return convolve(x, self.weight, *self.rest)
        return convolve_and_add(x, summand, self.weight, *self.rest)


class Linear(Kernel):
    """A linear layer with its activation; the last axis has the channels."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        super().__init__(weight, bias, activation, [], "")

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self.weight, *self.rest)


class Pointwise(Kernel):
    """A 1×1 convolution, otherwise as `Convolution`: a linear layer over pixels, whose channels lie side by side."""

    def __init__(self, layer: nn.Conv2d, activation: str, summed: bool) -> None:
        after: tuple[object, ...] = ("add",) if summed else (activation, [], "")
        super().__init__(layer.weight.flatten(1), layer.bias, *after)
        self.activation = activation

    def forward(self, x: Tensor, summand: Tensor | None = None) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        if summand is None:
            return multiply(pixels, self.weight, *self.rest).permute(0, 3, 1, 2)
        total = multiply_and_add(pixels, summand.permute(0, 2, 3, 1), self.weight, *self.rest)
        return ACTIVATE[self.activation](total).permute(0, 3, 1, 2)


class PooledConvolution(nn.Module):
    """A 1×1 convolution of one pixel per image: calling oneDNN for so little costs more than it saves.

    Shape: (N, C, 1, 1) → (N, D, 1, 1).
    """

    def __init__(self, layer: nn.Conv2d, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.weight = layer.weight.detach().flatten(1).t().contiguous()
        self.bias = self.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()

    def rows(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """What it makes of (N, C), multiplied by a factor."""
        return ACTIVATE[self.activation](torch.addmm(self.bias, x, self.weight, alpha=factor))

    def forward(self, x: Tensor) -> Tensor:
        y = self.rows(x.flatten(1))
        return y.view(*y.shape, 1, 1)


class Gate(nn.Module):
    """The average over all pixels, and convolutions after it, without leaving the form of a matrix in between.

    Shape: (N, C, H, W) → (N, D, 1, 1).
    """

    def __init__(self, layers: list[PooledConvolution]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.layers
        y = first.rows(x.sum((2, 3)), 1 / (x.shape[2] * x.shape[3]))
        for layer in others:
            y = layer.rows(y)
        return y.view(*y.shape, 1, 1)


class Upsampling(nn.Module):
    """Transposed convolutions whose kernel is their stride, one after another: each makes a block of every pixel.

    Each is a linear layer over the blocks of the one before it; only at the end are the blocks laid out as an image.

    Shape: (N, C, H, W) → (N, D, k·H, k·W) with the product k of all strides.
    """

    def __init__(self, layers: list[nn.ConvTranspose2d], activations: list[str]) -> None:
        super().__init__()
        self.strides = [layer.stride[0] for layer in layers]
        self.channels = layers[-1].out_channels
        self.rows = nn.Sequential()
        blocks = 1
        for layer, activation, stride in zip(layers, activations, self.strides, strict=True):
            weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [block row, block column, out] × in
            bias = None if layer.bias is None else layer.bias.repeat(blocks * stride**2)
            # One product with a matrix for all blocks beats as many thin ones.
            self.rows.append(Linear(torch.block_diag(*[weight] * blocks), bias, activation))
            blocks *= stride**2

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = self.rows(x.permute(0, 2, 3, 1))
        y = y.view(n, h, w, *(stride for stride in self.strides for _ in "hw"), self.channels)
        last, rows, columns = y.ndim - 1, range(3, y.ndim - 1, 2), range(4, y.ndim - 1, 2)
        factor = prod(self.strides)
        return y.permute(0, last, 1, *rows, 2, *columns).reshape(n, self.channels, h * factor, w * factor)


# ---- putting them in ---------------------------------------------------------------------------------------------


def use_kernels(network: Network) -> None:
    """Kernels for all layers that they can stand for."""
    pooled = find_pooled(network)
    products = {node for node in network.nodes if gated(node, pooled)}
    sums = {node for node in network.nodes if any(upsampled(summand) for _, summand in summands(node))}
    rewritable = {node for node in products | sums if channels(network, node) is not None}
    upsample_at_once(network)
    fuse_convolutions(network, pooled)
    fuse_gates(network)
    fuse_linear(network)
    write_in_place(network, rewritable)


def with_activation(network: Network, node: fx.Node) -> tuple[fx.Node, str]:
    """The value of a layer and what follows it as far as one kernel computes it, and the name of the activation."""
    following = only_user(node)
    name = network.activation(following)
    return (following, name) if following is not None and name is not None else (node, "none")


def upsample_at_once(network: Network) -> None:
    """Chains of transposed convolutions whose kernel is their stride."""
    blocks = {node: layer for node, layer in network.layers(nn.ConvTranspose2d) if makes_blocks(layer)}
    while blocks:
        first = next(iter(blocks))
        node: fx.Node | None = first
        layers, activations = [], []
        while node in blocks:
            layers.append(blocks.pop(node))
            last, activation = with_activation(network, node)
            activations.append(activation)
            node = only_user(last)
        network.replace(last, network.insert(last, Upsampling(layers, activations), source(first)))


def makes_blocks(layer: nn.ConvTranspose2d) -> bool:
    """Whether a transposed convolution makes a square block of every pixel, and no blocks overlap."""
    geometry = (layer.kernel_size, layer.stride, layer.dilation, layer.groups, *layer.padding, *layer.output_padding)
    return geometry == ((layer.stride[0],) * 2, (layer.stride[0],) * 2, (1, 1), 1, 0, 0, 0, 0)


def fuse_convolutions(network: Network, pooled: set[fx.Node]) -> None:
    """Convolutions with the sum and the activation that follow them."""
    for node, layer in network.layers(nn.Conv2d):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            continue
        inputs = [source(node)]
        last, activation = with_activation(network, node)
        total = only_user(node)
        if total is not None and (summand := added_map(network, node, total, pooled)):
            inputs.append(summand)
            last, activation = with_activation(network, total)
            if activation not in ("none", "relu"):  # oneDNN takes no other one after a sum
                last, activation = total, "none"
        kernel: nn.Module
        if not is_pointwise(layer):
            kernel = Convolution(layer, activation, summed=len(inputs) > 1)
        elif node in pooled:
            kernel = PooledConvolution(layer, activation)
        else:
            kernel = Pointwise(layer, activation, summed=len(inputs) > 1)
        network.replace(last, network.insert(last, kernel, *inputs))


def added_map(network: Network, node: fx.Node, total: fx.Node, pooled: set[fx.Node]) -> fx.Node | None:
    """The map that `total` adds to a node's, where it is such a sum and both are of one size."""
    for own, other in summands(total):
        is_map = network.layer(other) or network.activation(other) or calls(other, *ADDITIONS, *PRODUCTS)
        if own is node and other is not node and is_map and pooled.isdisjoint((node, other)):
            return other
    return None


def fuse_gates(network: Network) -> None:
    """Averages with the convolutions that follow them."""
    for node, pool in network.layers(nn.AdaptiveAvgPool2d):
        layers, last = [], node
        while (following := only_user(last)) and isinstance(layer := network.layer(following), PooledConvolution):
            layers.append(layer)
            last = following
        if layers and pools_all(pool):
            network.replace(last, network.insert(last, Gate(layers), source(node)))


def fuse_linear(network: Network) -> None:
    """Linear layers with the activation that follows them."""
    for node, layer in network.layers(nn.Linear):
        last, activation = with_activation(network, node)
        kernel = Linear(layer.weight, layer.bias, activation)
        network.replace(last, network.insert(last, kernel, source(node)))


def write_in_place(network: Network, results: set[fx.Node]) -> None:
    """Products and sums x·g and x + y, of x's size, in x's memory where nothing shares it or reads it afterwards."""
    order = {node: place for place, node in enumerate(network.nodes)}
    fresh = (nn.Conv2d, Convolution, Pointwise, UpsampledConvolution, GatedConvolution)
    for node in order.keys() & results:
        x = source(node)
        others = [user for user in x.users if user is not node]
        averages = all(isinstance(network.layer(user), (nn.AdaptiveAvgPool2d, Gate)) for user in others)
        is_own = isinstance(network.layer(x), fresh) or x in results
        if is_own and averages and all(order[user] < order[node] for user in others):
            node.op, node.target = "call_method", "mul_" if calls(node, *PRODUCTS) else "add_"


def call_directly(module: fx.GraphModule) -> Callable[..., Output]:
    """What a module computes, with its kernels called without PyTorch's way into a module.

    That way takes a tenth of a small network's time.
    """
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, (Kernel, PooledConvolution, Gate)):
            node.op, node.target = "call_function", layer.forward
    return fx.GraphModule(module, graph).forward
