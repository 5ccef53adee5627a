"""The one table from operators to PyTorch.

`OPERATORS` has for each operator of the graph form a function that computes it; the function's parameters are the
operator's slots and attributes, and their annotations say which is which: a `Tensor` is read from the graph, `Sizes`
and `Number` may be either, anything else is an attribute. `LAYERS` has, for operators with parameters, the `nn` module
that holds them.

Sizes are computed by Paddle's graphs as small integer tensors. Here they are plain numbers: `shape` gives a tuple,
and what may be applied to sizes (slicing, stacking, arithmetic) takes numbers and tuples as well as tensors. So
`torch.export` and `torch.compile` see ordinary arithmetic on sizes, and dynamic ones stay dynamic.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Number = int | float | Tensor
Sizes = Sequence[int | Tensor] | Tensor

# Closer than float32 can tell from the plain fraction that was meant.
SAME = 1e-6


# ---- sizes -------------------------------------------------------------------------------------------------------


def numbers(value: Any) -> tuple[int, ...]:
    """Sizes however they come, as a tuple: a number, a tuple, a tensor, or a list of those."""
    if isinstance(value, Tensor):
        return tuple(value.reshape(-1).tolist())
    if isinstance(value, (list, tuple)):
        return tuple(number for each in value for number in numbers(each))
    return (value,)


def is_sizes(*values: Any) -> bool:
    """Whether all of these are numbers or tuples of numbers rather than tensors."""
    return not any(isinstance(value, Tensor) for value in values)


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """A tensor for what may be sizes, on another one's device."""
    return value if isinstance(value, Tensor) else torch.tensor(value, device=like.device)


def per_size(function: Callable[..., Any], *values: Any) -> Any:
    """A function of numbers, applied to numbers or, element by element, to tuples."""
    length = max((len(value) for value in values if isinstance(value, (list, tuple))), default=None)
    if length is None:
        return function(*values)
    spread = [value if isinstance(value, (list, tuple)) and len(value) > 1 else numbers(value) * length for value in values]
    return tuple(function(*each) for each in zip(*spread, strict=True))


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's data type of that name."""
    return getattr(torch, name)


def shape(x: Tensor) -> tuple[int, ...]:
    """The sizes of a tensor."""
    return tuple(x.shape)


# ---- layers ------------------------------------------------------------------------------------------------------


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def conv2d_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    return F.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation)


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float, momentum: float
) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, momentum=1 - momentum, eps=epsilon)


def layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, axis: int, epsilon: float
) -> Tensor:
    sizes = x.shape[axis:]
    # Paddle keeps weight and bias flat.
    weight, bias = (each if each is None else each.reshape(sizes) for each in (weight, bias))
    return F.layer_norm(x, sizes, weight, bias, epsilon)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, transposed: bool) -> Tensor:
    """x·W + b; `transposed` says that W lies as [in, out]."""
    return F.linear(x, weight.t() if transposed else weight, bias)


def lstm(
    x: Tensor,
    weights: list[Tensor],
    state: list[Tensor] | None = None,
    *,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(T, N, C) → output (T, N, directions · hidden), last hidden and cell state; weights in Paddle's order."""
    directions = 1 + bidirectional
    if state is None:
        zeros = x.new_zeros(num_layers * directions, x.shape[1], hidden_size)
        state = [zeros, zeros]
    flat = [weights[index] for index in lstm_order(num_layers, bidirectional).values()]
    return torch.lstm(x, state, flat, True, num_layers, 0.0, False, bidirectional, False)


def lstm_order(num_layers: int, bidirectional: bool) -> dict[str, int]:
    """Name of each tensor in `nn.LSTM`, in its order, and where the tensor stands in Paddle's list of weights.

    Paddle has all weights first, then all biases; within each, layer by layer and direction by direction, those of the
    input before those of the hidden state.
    """
    directions = ("", "_reverse") if bidirectional else ("",)
    order = {}
    for index, (layer, direction) in enumerate((n, d) for n in range(num_layers) for d in directions):
        for kind, base in (("weight", 0), ("bias", 2 * num_layers * len(directions))):
            for offset, source in enumerate(("ih", "hh")):
                order[f"{kind}_{source}_l{layer}{direction}"] = base + 2 * index + offset
    return order


# ---- pooling, resizing, padding ----------------------------------------------------------------------------------


def pool2d(
    x: Tensor,
    *,
    kind: str,
    kernel: list[int],
    stride: list[int],
    padding: list[int] | str,
    ceil_mode: bool,
    exclusive: bool,
) -> Tensor:
    """Max or average pooling.

    Args:
        padding: top, bottom, left, right, or "same".
        exclusive: whether an average leaves out padded pixels.
    """
    top, bottom, left, right = same_padding(x, kernel, stride) if isinstance(padding, str) else padding
    if kind == "max":
        if (top, left) != (bottom, right):
            x, top, left = F.pad(x, (left, right, top, bottom), value=float("-inf")), 0, 0
        return F.max_pool2d(x, kernel, stride, (top, left), ceil_mode=ceil_mode)
    if (top, left) == (bottom, right):
        divisor = None if exclusive else kernel[0] * kernel[1]
        return F.avg_pool2d(x, kernel, stride, (top, left), ceil_mode, not exclusive, divisor)
    area = kernel[0] * kernel[1]
    sums = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), kernel, stride, 0, ceil_mode, divisor_override=1)
    if not exclusive:
        return sums / area
    inside = F.pad(torch.ones_like(x[:1, :1]), (left, right, top, bottom))
    return sums / F.avg_pool2d(inside, kernel, stride, 0, ceil_mode, divisor_override=1)


def adaptive_pool2d(x: Tensor, *, kind: str, size: list[int]) -> Tensor:
    pool = {"max": F.adaptive_max_pool2d, "avg": F.adaptive_avg_pool2d}[kind]
    return pool(x, size[0] if size[0] == size[1] else size)


def same_padding(x: Tensor, kernel: list[int], stride: list[int]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right such that the output has ⌈size / stride⌉ pixels; the odd one goes to the end."""
    sides = []
    for size, reach, step in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // step) - 1) * step + reach - size, 0)
        sides += [total // 2, total - total // 2]
    return tuple(sides)


def pad_same(x: Tensor, *, kernel: list[int], stride: list[int]) -> Tensor:
    """Zeros around, as a strided convolution with "same" padding wants them."""
    top, bottom, left, right = same_padding(x, kernel, stride)
    return F.pad(x, (left, right, top, bottom))


def pad(x: Tensor, *, padding: list[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Padding as for `F.pad`: pairs of before and after, last axis first."""
    return F.pad(x, padding, mode, value if mode == "constant" else None)


def interpolate(
    x: Tensor,
    size: Sizes | None = None,
    *,
    scale: list[float] | None = None,
    mode: str,
    align_corners: bool,
) -> Tensor:
    """Resize to `size` or by `scale`."""
    if size is not None:
        size = numbers(size)
    if mode == "nearest":
        if align_corners:
            return nearest_aligned(x, size if size is not None else [int(s * f) for s, f in zip(x.shape[2:], scale)])
        return F.interpolate(x, size, scale, mode)
    return F.interpolate(x, size, scale, mode, align_corners)


def nearest_aligned(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest neighbour with the corner pixels kept at the corners, which PyTorch does not offer."""
    for axis, (old, new) in enumerate(zip(x.shape[2:], size, strict=True), 2):
        step = (old - 1) / (new - 1) if new > 1 else 0.0
        index = (torch.arange(new, device=x.device) * step + 0.5).to(torch.int64)
        x = x.index_select(axis, index)
    return x


# ---- activations -------------------------------------------------------------------------------------------------


def hard_sigmoid(x: Tensor, *, slope: float, offset: float) -> Tensor:
    if abs(slope - 1 / 6) < SAME and offset == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(slope * x + offset, 0.0, 1.0)


def hard_swish(x: Tensor, *, threshold: float = 6.0, scale: float = 6.0, offset: float = 3.0) -> Tensor:
    if (threshold, scale, offset) == (6.0, 6.0, 3.0):
        return F.hardswish(x)
    return x * torch.clamp(x + offset, 0.0, threshold) / scale


def swish(x: Tensor, *, beta: float = 1.0) -> Tensor:
    return F.silu(x) if beta == 1.0 else x * torch.sigmoid(beta * x)


def leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    return F.leaky_relu(x, slope)


def elu(x: Tensor, *, alpha: float) -> Tensor:
    return F.elu(x, alpha)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return F.prelu(x, alpha.reshape(-1))


def gelu(x: Tensor, *, approximate: bool) -> Tensor:
    return F.gelu(x, approximate="tanh" if approximate else "none")


def softplus(x: Tensor, *, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return F.softplus(x, beta, threshold)


def softmax(x: Tensor, *, axis: int) -> Tensor:
    return torch.softmax(x, axis)


def log_softmax(x: Tensor, *, axis: int) -> Tensor:
    return torch.log_softmax(x, axis)


def clip(x: Tensor, minimum: Number | None = None, maximum: Number | None = None) -> Tensor:
    return torch.clamp(x, minimum, maximum)


class Dropout(nn.Module):
    """Paddle's dropout: nothing but a factor in evaluation.

    Args:
        p: the share of values that training sets to zero.
        upscale: whether training makes up for them; otherwise evaluation multiplies by 1 - p.
    """

    def __init__(self, p: float, upscale: bool) -> None:
        super().__init__()
        self.p, self.upscale = p, upscale

    def forward(self, x: Tensor) -> Tensor:
        kept = F.dropout(x, self.p, self.training)
        return kept if self.upscale else kept * (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}, upscale={self.upscale}"


def dropout(x: Tensor, *, p: float, upscale: bool) -> Tensor:
    return x if upscale else x * (1 - p)


# ---- arithmetic --------------------------------------------------------------------------------------------------


def aligned(x: Tensor, y: Tensor, axis: int) -> Tensor:
    """y with trailing axes of one, such that its first axis stands at x's axis `axis`; -1 aligns the last ones."""
    if axis == -1 or y.dim() == 0:
        return y
    # Paddle drops trailing axes of one before it aligns.
    while axis + y.dim() > x.dim() and y.shape[-1] == 1:
        y = y.squeeze(-1)
    return y.reshape(*y.shape, *[1] * (x.dim() - axis - y.dim()))


def binary(on_tensors: Callable[..., Tensor], on_numbers: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """An operator of two operands, with Paddle's axis broadcasting, that works on sizes too."""

    def apply(x: Number, y: Number, *, axis: int = -1) -> Tensor:
        if on_numbers is not None and is_sizes(x, y):
            return per_size(on_numbers, x, y)
        like = x if isinstance(x, Tensor) else y
        x, y = as_tensor(x, like), as_tensor(y, like)
        if x.dim() >= y.dim():
            y = aligned(x, y, axis)
        else:
            x = aligned(y, x, axis)
        return on_tensors(x, y)

    # The name by which generated code finds the function again, see the end of this file.
    return apply


def divide_numbers(x: int, y: int) -> int:
    """Paddle divides integers without remainder, towards zero; sizes are never negative."""
    return x // y


def power(x: Number, y: Number) -> Tensor:
    if is_sizes(x, y):
        return per_size(operator.pow, x, y)
    like = x if isinstance(x, Tensor) else y
    return torch.pow(as_tensor(x, like), y)


def scale(x: Tensor, factor: Number, *, bias: float = 0.0, bias_first: bool = False) -> Tensor:
    """factor·x + bias, or factor·(x + bias)."""
    if is_sizes(x, factor):
        return per_size(lambda n: int(factor * (n + bias) if bias_first else factor * n + bias), x)
    dtype = x.dtype
    if bias_first and bias:
        x = x + bias
    if not isinstance(factor, (int, float)) or factor != 1:
        x = x * factor
    if not bias_first and bias:
        x = x + bias
    return x.to(dtype)


def matmul(x: Tensor, y: Tensor, *, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    x = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    y = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    return torch.matmul(x, y)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def cast(x: Tensor, *, dtype: str) -> Tensor:
    if is_sizes(x):
        return per_size(float if dtype.startswith("float") else int, x)
    return x.to(torch_dtype(dtype))


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction over some axes, or over all when there are none."""

    def apply(x: Tensor, *, axes: list[int], keepdim: bool) -> Tensor:
        return function(x, tuple(axes) or tuple(range(x.dim())), keepdim)

    return apply


def product(x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim)
    return x


def argmax(x: Tensor, *, axis: int | None, keepdim: bool, dtype: str) -> Tensor:
    return torch.argmax(x, axis, keepdim).to(torch_dtype(dtype))


# ---- rearranging -------------------------------------------------------------------------------------------------


def reshape(x: Tensor, shape: Sizes) -> Tensor:
    """To new sizes; 0 stands for the old size at that place, -1 for what is left."""
    if is_sizes(x):
        return numbers(x) if numbers(shape) else numbers(x)[0]
    return x.reshape([x.shape[place] if size == 0 else size for place, size in enumerate(_static(numbers(shape)))])


def _static(sizes: Sequence[int]) -> Sequence[int]:
    return sizes


def flatten(x: Tensor, *, start: int, stop: int) -> Tensor:
    return x.flatten(start, stop)


def squeeze(x: Tensor, *, axes: list[int]) -> Tensor:
    """Without these axes, as far as they have one element; without all such axes when none is given."""
    if is_sizes(x):
        return numbers(x)[0]
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def unsqueeze(x: Tensor, *, axes: list[int]) -> Tensor:
    """With axes of one element at these places, made one after another."""
    if is_sizes(x):
        return numbers(x)
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, *, axes: list[int]) -> Tensor:
    return x.permute(axes)


def concat(x: list[Tensor], *, axis: int) -> Tensor:
    if is_sizes(*x):
        return numbers(x)
    like = next(each for each in x if isinstance(each, Tensor))
    return torch.cat([as_tensor(each, like) for each in x], axis)


def stack(x: list[Tensor], *, axis: int) -> Tensor:
    if is_sizes(*x):
        return numbers(x)
    like = next(each for each in x if isinstance(each, Tensor))
    return torch.stack([as_tensor(each, like) for each in x], axis)


def split(x: Tensor, *, parts: int | None = None, sizes: list[int] | None = None, axis: int) -> tuple[Tensor, ...]:
    """Into equal parts, or into parts of these sizes, one of which may be -1 for what is left."""
    total = x.shape[axis]
    if sizes is None:
        return torch.split(x, total // parts, axis)
    left = total - sum(size for size in sizes if size >= 0)
    return torch.split(x, [left if size < 0 else size for size in sizes], axis)


def unbind(x: Tensor, *, axis: int) -> tuple[Tensor, ...]:
    if is_sizes(x):
        return numbers(x)
    return torch.unbind(x, axis)


def slice_axes(
    x: Tensor, starts: Sizes, ends: Sizes, *, axes: list[int], steps: list[int] | None = None, squeezed: list[int]
) -> Tensor:
    """x[starts:ends:steps] along some axes, without the axes `squeezed`."""
    steps = steps or [1] * len(axes)
    parts = [slice(*each) for each in zip(numbers(starts), numbers(ends), steps, strict=True)]
    if is_sizes(x):
        kept = x[parts[0]]
        return kept[0] if squeezed else kept
    for axis, part, step in zip(axes, parts, steps, strict=True):
        if step < 0:
            index = torch.arange(x.shape[axis], device=x.device)
            x = x.index_select(axis, index[part.start : None].flip(0)[: None] if False else _backwards(index, part))
        else:
            x = x[(slice(None),) * (axis % x.dim()) + (part,)]
    return x.squeeze(tuple(squeezed)) if squeezed else x


def expand(x: Tensor, shape: Sizes) -> Tensor:
    """To new sizes by repeating axes of one element; -1 keeps a size."""
    return x.expand(numbers(shape))


def tile(x: Tensor, repeats: Sizes) -> Tensor:
    return torch.tile(x, numbers(repeats))


def gather(x: Tensor, index: Tensor, *, axis: int) -> Tensor:
    """Picks along an axis by a list of indices."""
    if is_sizes(x, index):
        return per_size(lambda place: x[place], index)
    index = as_tensor(index, x)
    return x.index_select(axis, index.reshape(-1).to(torch.int64))


def flip(x: Tensor, *, axes: list[int]) -> Tensor:
    return torch.flip(x, axes)


# ---- constants ---------------------------------------------------------------------------------------------------


def full(shape: Sizes, value: Number, *, dtype: str) -> Tensor:
    """A constant; integers of at most one axis are sizes."""
    sizes = numbers(shape)
    if isinstance(value, Tensor):
        return value.reshape(()).to(torch_dtype(dtype)).expand(sizes)
    if "int" in dtype and len(sizes) <= 1:
        return (int(value),) * sizes[0] if sizes else int(value)
    return torch.full(sizes, value, dtype=torch_dtype(dtype))


def constant(*, values: list[float], shape: list[int], dtype: str) -> Tensor:
    """Given values; integers of at most one axis are sizes."""
    if "int" in dtype and len(shape) <= 1:
        return tuple(values) if shape else values[0]
    return torch.tensor(values, dtype=torch_dtype(dtype)).reshape(shape)
