"""The one table from operators to PyTorch.

`OPERATORS` has for each operator of the graph form a function that computes it. The function's parameters are the
operator's slots and attributes, and their annotations say which is which: a `Tensor` is a value of the graph, `Sizes`
and `Number` may be either, anything else is an attribute. `LAYERS` has, for operators with parameters, the `nn` module
that holds them.

Paddle's graphs compute sizes as small integer tensors. Here they are plain numbers: `shape` gives a tuple, and what may
be applied to sizes (slicing, stacking, arithmetic) takes numbers and tuples as well as tensors. So `torch.export` and
`torch.compile` see ordinary arithmetic on sizes, and what is dynamic stays dynamic.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias, TypeVar
from typing import cast as assume

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .form import Node

Number = int | float | Tensor
Sizes = Sequence[int | Tensor] | Tensor
# What may stand where the graph has a tensor: a tensor, or sizes.
Value: TypeAlias = "Tensor | int | float | Sequence[Value]"
Plain = TypeVar("Plain", int, float)
Result = TypeVar("Result")

# Numbers of float32 precision that stand for the same plain fraction differ by less.
SAME = 1e-6

# How many sizes, or parts of a tensor, there may be next to each other; released networks have up to five.
MOST_SIZES = 4096


# ---- sizes -------------------------------------------------------------------------------------------------------


def numbers(value: Value) -> tuple[int, ...]:
    """Sizes as a tuple, however they come: a number, a tuple, a tensor, or a list of those.

    While `torch.jit.trace` runs, tensors of one number stay tensors; PyTorch's functions then take them for sizes.

    Raises:
        ValueError: there are far more than a tensor has axes.
    """
    if isinstance(value, Tensor):
        few(value.numel())
        flat = value.reshape(-1)
        # While tracing, numbers would be frozen to those of the example.
        return assume("tuple[int, ...]", flat.unbind(0)) if torch.jit.is_tracing() else tuple(flat.tolist())
    if isinstance(value, (list, tuple)):
        found: list[int] = []
        for each in value:
            found += numbers(each)
            few(len(found))
        return tuple(found)
    return (assume("int", value),)


def few(count: object) -> None:
    """Raise ValueError where there are too many sizes or parts; a count that is not known yet is let pass."""
    if type(count) is int and count > MOST_SIZES:
        raise ValueError(f"{count:,} sizes or parts next to each other, where {MOST_SIZES:,} are allowed")


def bounded(size: Plain) -> Plain:
    """A size of at most 64 bits, as Paddle has them.

    Raises:
        ValueError: it is larger.
    """
    if type(size) is int and not -(2**63) <= size < 2**63:
        raise ValueError("a size does not fit into 64 bits")
    return size


def is_sizes(*values: object) -> bool:
    """Whether these are numbers or tuples of numbers, and none is a tensor."""
    return not any(isinstance(value, Tensor) for value in values)


def as_tensor(value: Value, *others: object) -> Tensor:
    """What may be sizes as a tensor, on the device of the first tensor among other values."""
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, device=next((each.device for each in others if isinstance(each, Tensor)), None))


def per_size(function: Callable[..., int | float], *values: Value) -> Value:
    """A function of numbers applied to numbers or, element by element, to tuples."""
    length = max((len(value) for value in values if isinstance(value, (list, tuple))), default=None)
    if length is None:
        return bounded(function(*values))
    spread = [value if len(value) > 1 else value * length for value in map(numbers, values)]
    return tuple(bounded(function(*each)) for each in zip(*spread, strict=True))


def small_power(size: int, exponent: int) -> int:
    """size ** exponent, which is not worked out where it cannot be a size."""
    if type(size) is type(exponent) is int and exponent > 63 and abs(size) > 1:
        raise ValueError("a size does not fit into 64 bits")
    return size**exponent


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's data type of that name."""
    return getattr(torch, name)


def shape(x: Tensor) -> tuple[int, ...]:
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
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float,
    momentum: float,
    flat: bool = False,
) -> Tensor:
    """With the statistics of training; `momentum` is the share of the old ones that an update keeps.

    `flat` says that x is (N, C, L), not (N, C, H, W).
    """
    return F.batch_norm(x, mean, variance, weight, bias, momentum=1 - momentum, eps=epsilon)


def layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, axis: int, epsilon: float
) -> Tensor:
    """Over all axes from `axis` on; weight and bias are flat."""
    sizes = x.shape[axis:]
    weight, bias = (each if each is None else each.reshape(sizes) for each in (weight, bias))
    return F.layer_norm(x, sizes, weight, bias, epsilon)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, transposed: bool) -> Tensor:
    """x·W + b; `transposed` where W lies as [in, out]."""
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
    """(T, N, C) → (T, N, directions · hidden), last hidden and last cell state; the weights in Paddle's order."""
    if state is None:
        zeros = x.new_zeros(num_layers * (1 + bidirectional), x.shape[1], hidden_size)
        state = [zeros, zeros]
    flat = [weights[place] for place in lstm_order(num_layers, bidirectional).values()]
    return torch.lstm(x, state, flat, True, num_layers, 0.0, False, bidirectional, False)


def lstm_order(num_layers: int, bidirectional: bool) -> dict[str, int]:
    """The tensors of an `nn.LSTM` in its order, and where each stands in Paddle's list of weights.

    Paddle has all weights first, then all biases; within each it goes layer by layer and direction by direction, that
    of the input before that of the hidden state.
    """
    directions = ("", "_reverse") if bidirectional else ("",)
    cells = [f"_l{layer}{direction}" for layer in range(num_layers) for direction in directions]
    return {
        f"{kind}_{gate}{cell}": first + 2 * index + offset
        for index, cell in enumerate(cells)
        for kind, first in (("weight", 0), ("bias", 2 * len(cells)))
        for offset, gate in enumerate(("ih", "hh"))
    }


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
    """Max or average pooling; `padding` is top, bottom, left, right, or "same"; `exclusive` averages leave it out."""
    top, bottom, left, right = same_padding(x, kernel, stride) if isinstance(padding, str) else padding
    even = top == bottom and left == right
    if kind == "max":
        x = x if even else F.pad(x, (left, right, top, bottom), value=float("-inf"))
        return F.max_pool2d(x, kernel, stride, (top, left) if even else 0, ceil_mode=ceil_mode)
    if even:
        return F.avg_pool2d(x, kernel, stride, (top, left), ceil_mode, not exclusive)

    def window_sums(of: Tensor, around: float) -> Tensor:
        padded = F.pad(of, (left, right, top, bottom), value=around)
        return F.avg_pool2d(padded, kernel, stride, 0, ceil_mode, divisor_override=1)

    return window_sums(x, 0.0) / window_sums(torch.ones_like(x[:1, :1]), 0.0 if exclusive else 1.0)


def adaptive_pool2d(x: Tensor, *, kind: str, size: list[int]) -> Tensor:
    pools: dict[str, Callable[..., Tensor]] = {"max": F.adaptive_max_pool2d, "avg": F.adaptive_avg_pool2d}
    return pools[kind](x, size)


def same_padding(x: Tensor, kernel: list[int], stride: list[int]) -> tuple[int, ...]:
    """Top, bottom, left, right such that there are ⌈size / stride⌉ results; an odd pixel goes to the end."""
    sides: list[int] = []
    for size, reach, step in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(((size + step - 1) // step - 1) * step + reach - size, 0)
        sides += [total // 2, total - total // 2]
    return tuple(sides)


def pad_same(x: Tensor, *, kernel: list[int], stride: list[int]) -> Tensor:
    """Zeros around, as a strided convolution with "same" padding wants them."""
    top, bottom, left, right = same_padding(x, kernel, stride)
    return F.pad(x, (left, right, top, bottom))


def pad(x: Tensor, *, padding: list[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Padding in the order of `F.pad`: before and after, from the last axis on."""
    return F.pad(x, padding, mode, value if mode == "constant" else None)


def interpolate(
    x: Tensor, size: Sizes | None = None, *, scale: list[float] | None = None, mode: str, align_corners: bool
) -> Tensor:
    """To `size`, or by the factors `scale`."""
    sizes = None if size is None else numbers(size)
    if mode == "nearest" and align_corners:
        return nearest_aligned(x, sizes or [int(n * by) for n, by in zip(x.shape[2:], scale or (), strict=True)])
    return F.interpolate(x, sizes, scale, mode, None if mode == "nearest" else align_corners)


def nearest_aligned(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest neighbour with the corner pixels kept at the corners, which PyTorch does not offer."""
    for axis, new in enumerate(size, 2):
        step = (x.shape[axis] - 1) / (new - 1) if new > 1 else 0.0
        x = x.index_select(axis, (torch.arange(new, device=x.device) * step + 0.5).to(torch.int64))
    return x


# ---- activations -------------------------------------------------------------------------------------------------


def hard_sigmoid(x: Tensor, *, slope: float, offset: float) -> Tensor:
    if abs(slope - 1 / 6) < SAME and offset == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(slope * x + offset, 0.0, 1.0)


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


def softplus(x: Tensor, *, beta: float, threshold: float) -> Tensor:
    return F.softplus(x, beta, threshold)


def softmax(x: Tensor, *, axis: int) -> Tensor:
    return torch.softmax(x, axis)


def log_softmax(x: Tensor, *, axis: int) -> Tensor:
    return torch.log_softmax(x, axis)


def clip(x: Tensor, minimum: Number | None = None, maximum: Number | None = None) -> Tensor:
    if isinstance(minimum, Tensor) or isinstance(maximum, Tensor):
        lowest, highest = (None if bound is None else as_tensor(bound, x) for bound in (minimum, maximum))
        return torch.clamp(x, lowest, highest)
    return torch.clamp(x, minimum, maximum)


def dropout(x: Tensor, *, p: float, upscale: bool) -> Tensor:
    return x if upscale else x * (1 - p)


class Dropout(nn.Module):
    """Paddle's dropout, of which evaluation leaves a factor at most.

    Args:
        p: the share of the values that training sets to zero.
        upscale: whether training makes up for them; otherwise evaluation multiplies by 1 - p.
    """

    def __init__(self, p: float, upscale: bool) -> None:
        super().__init__()
        self.p, self.upscale = p, upscale

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return dropout(x, p=self.p, upscale=self.upscale)
        kept = F.dropout(x, self.p)
        return kept if self.upscale else kept * (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}, upscale={self.upscale}"


# ---- arithmetic --------------------------------------------------------------------------------------------------


def aligned(y: Tensor, x: Tensor, axis: int) -> Tensor:
    """y with axes of one appended, so that its first axis stands at x's axis `axis`; -1 leaves the last at the last."""
    if axis == -1 or y.dim() == 0:
        return y
    if not 0 <= axis <= x.dim():
        raise ValueError(f"axis {axis} is none of {x.dim()}")
    # Paddle drops y's last axes of one before it aligns.
    while axis + y.dim() > x.dim() and y.shape[-1] == 1:
        y = y.squeeze(-1)
    return y.reshape(*y.shape, *[1] * (x.dim() - axis - y.dim()))


def binary(
    name: str, on_tensors: Callable[..., Tensor], on_numbers: Callable[..., int | float] | None = None
) -> Callable[..., Value]:
    """An operator with two operands: Paddle's axis broadcasting, and sizes where it has a function for numbers."""

    def apply(x: Number, y: Number, *, axis: int = -1) -> Value:
        if on_numbers is not None and is_sizes(x, y):
            return per_size(on_numbers, x, y)
        x, y = as_tensor(x, y), as_tensor(y, x)
        if x.dim() < y.dim():
            return on_tensors(aligned(x, y, axis), y)
        return on_tensors(x, aligned(y, x, axis))

    return named(apply, name)


def reduction(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction over some axes, or over all where none is given."""

    def apply(x: Tensor, *, axes: list[int], keepdim: bool) -> Tensor:
        return function(x, tuple(axes) or tuple(range(x.dim())), keepdim)

    return named(apply, name)


def named(function: Callable[..., Result], name: str) -> Callable[..., Result]:
    """The function under the name by which this module has it; generated code and pickles find it by that."""
    function.__name__ = function.__qualname__ = name
    return function


def divide_tensors(x: Tensor, y: Tensor) -> Tensor:
    whole = not (x.is_floating_point() or y.is_floating_point())
    return torch.div(x, y, rounding_mode="trunc" if whole else None)


def product(x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim)
    return x


add = binary("add", torch.add, operator.add)
subtract = binary("subtract", torch.sub, operator.sub)
multiply = binary("multiply", torch.mul, operator.mul)
divide = binary("divide", divide_tensors, operator.floordiv)  # integers without remainder; sizes are never negative
floor_divide = binary("floor_divide", torch.floor_divide, operator.floordiv)
remainder = binary("remainder", torch.remainder, operator.mod)
maximum = binary("maximum", torch.maximum, max)
minimum = binary("minimum", torch.minimum, min)
power = binary("power", torch.pow, small_power)

equal = binary("equal", torch.eq)
not_equal = binary("not_equal", torch.ne)
less_than = binary("less_than", torch.lt)
less_equal = binary("less_equal", torch.le)
greater_than = binary("greater_than", torch.gt)
greater_equal = binary("greater_equal", torch.ge)
logical_and = binary("logical_and", torch.logical_and)
logical_or = binary("logical_or", torch.logical_or)

mean = reduction("mean", torch.mean)
sum_axes = reduction("sum_axes", torch.sum)
max_axes = reduction("max_axes", torch.amax)
min_axes = reduction("min_axes", torch.amin)
prod_axes = reduction("prod_axes", product)


def scale(x: Tensor, factor: Number, *, bias: float = 0.0, bias_first: bool = False) -> Value:
    """factor·x + bias, or factor·(x + bias), of the same data type."""
    before, after = (bias, 0.0) if bias_first else (0.0, bias)
    if is_sizes(x, factor):
        return per_size(lambda size: torch.sym_int((size + before) * factor + after), x)
    y = x + before if before else x
    y = y if is_sizes(factor) and factor == 1 else y * factor
    y = y + after if after else y
    return y if y.dtype == x.dtype else y.to(x.dtype)


def matmul(x: Tensor, y: Tensor, *, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    x = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    y = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    return torch.matmul(x, y)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def cast(x: Tensor, *, dtype: str) -> Value:
    if is_sizes(x):
        return per_size(torch.sym_float if dtype.startswith("float") else torch.sym_int, x)
    return x.to(torch_dtype(dtype))


def argmax(x: Tensor, *, axis: int | None, keepdim: bool, dtype: str) -> Tensor:
    return torch.argmax(x, axis, keepdim).to(torch_dtype(dtype))


# ---- rearranging -------------------------------------------------------------------------------------------------


def reshape(x: Tensor, shape: Sizes) -> Value:
    """To new sizes; 0 stands for the old size at its place, -1 for what is left."""
    if is_sizes(x):
        return numbers(x) if numbers(shape) else numbers(x)[0]
    return x.reshape([x.shape[place] if size == 0 else size for place, size in enumerate(numbers(shape))])


def flatten(x: Tensor, *, start: int, stop: int) -> Tensor:
    return x.flatten(start, stop)


def squeeze(x: Tensor, *, axes: list[int]) -> Value:
    """Without these axes, as far as they are of one element; without all such axes where none is given."""
    if is_sizes(x):
        return numbers(x)[0]
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def unsqueeze(x: Tensor, *, axes: list[int]) -> Value:
    """With axes of one element, made one after another."""
    if is_sizes(x):
        return numbers(x)
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, *, axes: list[int]) -> Tensor:
    return x.permute(axes)


def concat(x: list[Tensor], *, axis: int) -> Value:
    return torch.cat(_all_tensors(x), axis) if not is_sizes(*x) else numbers(x)


def stack(x: list[Tensor], *, axis: int) -> Value:
    return torch.stack(_all_tensors(x), axis) if not is_sizes(*x) else numbers(x)


def _all_tensors(values: Sequence[Value]) -> list[Tensor]:
    few(len(values))
    first = next(value for value in values if isinstance(value, Tensor))
    return [as_tensor(value, first) for value in values]


def split(x: Tensor, *, axis: int, parts: int | None = None, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
    """Into equal parts, or into parts of these sizes, one of which may be -1 for what is left."""
    total = x.shape[axis]
    few(parts if sizes is None else len(sizes))
    if sizes is None:
        if parts is None:
            raise ValueError("split has neither a count nor sizes of parts")
        return torch.split(x, total // parts, axis)
    left = total - sum(size for size in sizes if size >= 0)
    return torch.split(x, [left if size < 0 else size for size in sizes], axis)


def unbind(x: Tensor, *, axis: int) -> tuple[Value, ...]:
    if is_sizes(x):
        return numbers(x)
    few(x.shape[axis])
    return torch.unbind(x, axis)


def slice_axes(
    x: Tensor, starts: Sizes, ends: Sizes, *, axes: list[int], steps: list[int] | None = None, squeezed: list[int]
) -> Value:
    """x[starts:ends:steps] along some axes, then without the axes `squeezed`."""
    steps = steps or [1] * len(axes)
    parts = [slice(*each) for each in zip(numbers(starts), numbers(ends), steps, strict=True)]
    if is_sizes(x):
        kept = numbers(x)[parts[0]]
        return kept[0] if squeezed else kept
    for axis, part in zip(axes, parts, strict=True):
        x = x[(slice(None),) * (axis % x.dim()) + (part,)]
    return x.squeeze(tuple(squeezed)) if squeezed else x


def expand(x: Tensor, shape: Sizes) -> Tensor:
    """To new sizes, by repeating what is of one element; -1 keeps a size."""
    return x.expand(numbers(shape))


def tile(x: Tensor, repeats: Sizes) -> Tensor:
    return torch.tile(x, numbers(repeats))


def gather(x: Tensor, index: Tensor, *, axis: int) -> Value:
    """What stands at these places of an axis."""
    if is_sizes(x, index):
        sizes = numbers(x)
        return per_size(lambda place: sizes[place], index)
    return as_tensor(x, index).index_select(axis, as_tensor(index, x).reshape(-1).to(torch.int64))


def flip(x: Tensor, *, axes: list[int]) -> Tensor:
    return torch.flip(x, axes)


# ---- constants ---------------------------------------------------------------------------------------------------


def full(shape: Sizes, value: Number, *, dtype: str, like: Tensor) -> Value:
    """One value everywhere, on the device of `like`; a few integers along at most one axis are sizes."""
    sizes = numbers(shape)
    if isinstance(value, Tensor):
        return value.reshape(()).to(torch_dtype(dtype)).expand(sizes)
    if "int" in dtype and len(sizes) <= 1 and (not sizes or sizes[0] <= MOST_SIZES):
        return (int(value),) * sizes[0] if sizes else int(value)
    return torch.full(sizes, value, dtype=torch_dtype(dtype), device=like.device)


def full_batch(x: Tensor, *, shape: list[int], value: float, dtype: str, input_axis: int, output_axis: int) -> Tensor:
    """One value everywhere; the size of one axis is that of one of x's."""
    sizes = [x.shape[input_axis] if axis == output_axis else size for axis, size in enumerate(shape)]
    return torch.full(sizes, value, dtype=torch_dtype(dtype), device=x.device)


def full_like(x: Tensor, value: Number, *, dtype: str | None) -> Tensor:
    kind = torch_dtype(dtype) if dtype else x.dtype
    if isinstance(value, Tensor):
        return value.reshape(()).to(kind).expand(x.shape)
    return torch.full_like(x, value, dtype=kind)


def constant(*, values: list[float], shape: list[int], dtype: str, like: Tensor) -> Value:
    """Given values, on the device of `like`; a few integers along at most one axis are sizes."""
    if "int" in dtype and len(shape) <= 1 and len(values) <= MOST_SIZES:
        return tuple(values) if shape else values[0]
    return torch.tensor(values, dtype=torch_dtype(dtype), device=like.device).reshape(shape)


# ---- the table ---------------------------------------------------------------------------------------------------

# Operators with one operand and no attribute, which Paddle and PyTorch compute alike.
UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "hard_swish": F.hardswish,
    "log": torch.log,
    "logical_not": torch.logical_not,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "reciprocal": torch.reciprocal,
    "relu": F.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "sin": torch.sin,
    "softsign": F.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tanh": torch.tanh,
}

OPERATORS: Mapping[str, Callable[..., Value]] = {
    **UNARY,
    "shape": shape,
    "conv2d": conv2d,
    "conv2d_transpose": conv2d_transpose,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "linear": linear,
    "lstm": lstm,
    "pool2d": pool2d,
    "adaptive_pool2d": adaptive_pool2d,
    "pad_same": pad_same,
    "pad": pad,
    "interpolate": interpolate,
    "hard_sigmoid": hard_sigmoid,
    "swish": swish,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "prelu": prelu,
    "gelu": gelu,
    "softplus": softplus,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "clip": clip,
    "dropout": dropout,
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "divide": divide,
    "floor_divide": floor_divide,
    "remainder": remainder,
    "maximum": maximum,
    "minimum": minimum,
    "power": power,
    "equal": equal,
    "not_equal": not_equal,
    "less_than": less_than,
    "less_equal": less_equal,
    "greater_than": greater_than,
    "greater_equal": greater_equal,
    "logical_and": logical_and,
    "logical_or": logical_or,
    "mean": mean,
    "sum": sum_axes,
    "max": max_axes,
    "min": min_axes,
    "prod": prod_axes,
    "scale": scale,
    "matmul": matmul,
    "where": where,
    "cast": cast,
    "argmax": argmax,
    "reshape": reshape,
    "flatten": flatten,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "transpose": transpose,
    "concat": concat,
    "stack": stack,
    "split": split,
    "unbind": unbind,
    "slice": slice_axes,
    "expand": expand,
    "tile": tile,
    "gather": gather,
    "flip": flip,
    "full": full,
    "full_batch": full_batch,
    "full_like": full_like,
    "constant": constant,
}

# Operators that return a tuple, one part for each of their outputs.
SEVERAL_RESULTS = frozenset({"lstm", "split", "unbind"})

# Filled in with the network's first input, which tells the device.
LIKE = "like"

# What the annotations of the functions mean for a slot, and for an attribute.
SLOT_KINDS = {"Tensor": "tensor", "list[Tensor]": "list", "Number": "tensor", "Sizes": "sizes"}
ATTRIBUTE_KINDS: Mapping[str, Callable[[object], bool]] = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "Number": lambda value: type(value) in (int, float),
    "list[int]": lambda value: isinstance(value, list) and all(type(each) is int for each in value),
    "list[float]": lambda value: isinstance(value, list) and all(type(each) in (int, float, bool) for each in value),
    "Sizes": lambda value: isinstance(value, list) and all(type(each) is int for each in value),
}


@dataclass(frozen=True)
class Signature:
    """What an operator takes.

    Attributes:
        slots: those that hold values of the graph, and of what kind: "tensor" for one value, "list" for several,
            "sizes" for one or several.
        attributes: those that hold plain values, and of what kinds; what is in both may be either.
        required: slots and attributes that must be there.
        like: whether it wants to be shown a tensor of the network's device.
    """

    slots: dict[str, str]
    attributes: dict[str, tuple[str, ...]]
    required: frozenset[str]
    like: bool


@cache
def signature(type_: str) -> Signature:
    """The signature of an operator of the table."""
    if type_ in UNARY:
        return Signature({"x": "tensor"}, {}, frozenset({"x"}), like=False)
    parameters = inspect.signature(OPERATORS[type_]).parameters
    given = {name: str(each.annotation).split(" | ") for name, each in parameters.items() if name != LIKE}
    return Signature(
        slots={name: SLOT_KINDS[kinds[0]] for name, kinds in given.items() if kinds[0] in SLOT_KINDS},
        attributes={name: tuple(kinds) for name, kinds in given.items() if kinds[0] in ATTRIBUTE_KINDS},
        required=frozenset(name for name in given if parameters[name].default is inspect.Parameter.empty),
        like=LIKE in parameters,
    )


def mistake(node: Node) -> str | None:
    """What is wrong with a node as far as the table can tell; None where it is fine."""
    if node.type not in OPERATORS:
        return f"there is no operator {node.type!r}"
    expected = signature(node.type)
    filled = {slot for slot, values in node.inputs.items() if values}
    single = {slot for slot in filled if expected.slots.get(slot) == "tensor" and len(node.inputs[slot]) != 1}
    wrong = (
        (filled - expected.slots.keys())
        | (node.attributes.keys() - expected.attributes)
        | (expected.required - filled - node.attributes.keys())
        | {name for name, value in node.attributes.items() if not fits(value, expected.attributes.get(name, ()))}
        | single
    )
    if wrong:
        return f"the operator {node.type} has wrong, missing or computed {', '.join(sorted(wrong))}"
    return _lstm_mistake(node) if node.type == "lstm" else None


def _lstm_mistake(node: Node) -> str | None:
    """A count of layers that is not that of the weights; whoever believes it may count for ever."""
    given, weights = node.attributes, len(node.inputs["weights"])
    wanted = 4 * given["num_layers"] * (1 + given["bidirectional"])
    return f"the operator lstm has {weights} weights, and {wanted} belong to its layers" if weights != wanted else None


def fits(value: object, kinds: Sequence[str]) -> bool:
    """Whether an attribute is of one of these kinds."""
    return any(ATTRIBUTE_KINDS[kind](value) for kind in kinds)


# ---- operators that hold parameters ------------------------------------------------------------------------------

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layer:
    """How an operator becomes a module.

    Attributes:
        tensors: the module's tensors by name, and the variables that fill them.
        build: makes the module, from the operator and the shapes of its variables.
        slots: those that the module's tensors fill; the other one is the module's input.
        transposed: whether Paddle stores the weight as [in, out].
        fits: whether a module can do what the operator says.
        outputs: where in what the module returns each output stands; () for all of it.
    """

    tensors: Callable[[Node], dict[str, str]]
    build: Callable[[Node, Shapes], nn.Module]
    slots: tuple[str, ...]
    transposed: Callable[[Node], bool] = lambda _: False
    fits: Callable[[Node], bool] = lambda _: True
    outputs: tuple[tuple[int, ...], ...] = ((),)


def by_slot(**names: str) -> Callable[[Node], dict[str, str]]:
    """The variables of these slots under the module's names for them."""

    def tensors(node: Node) -> dict[str, str]:
        return {name: node.inputs[slot][0] for slot, name in names.items() if node.inputs.get(slot)}

    return tensors


def lstm_tensors(node: Node) -> dict[str, str]:
    order = lstm_order(node.attributes["num_layers"], node.attributes["bidirectional"])
    return {name: node.inputs["weights"][place] for name, place in order.items()}


def build_conv2d(node: Node, shapes: Shapes) -> nn.Module:
    given, (outside, inside, height, width) = node.attributes, shapes[node.inputs["weight"][0]]
    return nn.Conv2d(
        inside * given["groups"],
        outside,
        (height, width),
        tuple(given["stride"]),
        tuple(given["padding"]),
        tuple(given["dilation"]),
        given["groups"],
        bias=bool(node.inputs.get("bias")),
    )


def build_conv2d_transpose(node: Node, shapes: Shapes) -> nn.Module:
    given, (inside, outside, height, width) = node.attributes, shapes[node.inputs["weight"][0]]
    return nn.ConvTranspose2d(
        inside,
        outside * given["groups"],
        (height, width),
        tuple(given["stride"]),
        tuple(given["padding"]),
        tuple(given["output_padding"]),
        given["groups"],
        bool(node.inputs.get("bias")),
        tuple(given["dilation"]),
    )


def build_batch_norm(node: Node, shapes: Shapes) -> nn.Module:
    given = node.attributes
    layer = nn.BatchNorm1d if given.get("flat") else nn.BatchNorm2d
    return layer(shapes[node.inputs["weight"][0]][0], given["epsilon"], 1 - given["momentum"])


def build_layer_norm(node: Node, shapes: Shapes) -> nn.Module:
    return nn.LayerNorm(
        shapes[node.inputs["weight"][0]], node.attributes["epsilon"], bias=bool(node.inputs.get("bias"))
    )


def build_linear(node: Node, shapes: Shapes) -> nn.Module:
    weight = shapes[node.inputs["weight"][0]]
    inside, outside = weight if node.attributes["transposed"] else weight[::-1]
    return nn.Linear(inside, outside, bias=bool(node.inputs.get("bias")))


def build_lstm(node: Node, shapes: Shapes) -> nn.Module:
    given = node.attributes
    return nn.LSTM(
        shapes[node.inputs["weights"][0]][1],
        given["hidden_size"],
        given["num_layers"],
        bidirectional=given["bidirectional"],
    )


LAYERS: Mapping[str, Layer] = {
    "conv2d": Layer(by_slot(weight="weight", bias="bias"), build_conv2d, ("weight", "bias")),
    "conv2d_transpose": Layer(by_slot(weight="weight", bias="bias"), build_conv2d_transpose, ("weight", "bias")),
    "batch_norm": Layer(
        by_slot(weight="weight", bias="bias", mean="running_mean", variance="running_var"),
        build_batch_norm,
        ("weight", "bias", "mean", "variance"),
    ),
    "layer_norm": Layer(
        by_slot(weight="weight", bias="bias"),
        build_layer_norm,
        ("weight", "bias"),
        fits=lambda node: node.attributes["axis"] == -1 and bool(node.inputs.get("weight")),
    ),
    "linear": Layer(
        by_slot(weight="weight", bias="bias"),
        build_linear,
        ("weight", "bias"),
        transposed=lambda node: node.attributes["transposed"],
    ),
    "lstm": Layer(
        lstm_tensors,
        build_lstm,
        ("weights",),
        fits=lambda node: not node.inputs.get("state"),
        outputs=((0,), (1, 0), (1, 1)),
    ),
}
