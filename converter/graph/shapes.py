"""What PyTorch's functions return, as far as shapes and data types go; nothing is computed.

Tensors are stand-ins: one number stands for all of them, so that the largest takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]
Given = Mapping[str, Any]

# Far from where counts of elements begin to overflow.
MOST_ELEMENTS = 2**40
# Elements that a function without a rule may be given or make.
MOST_COMPUTED = 2**22


class BudgetError(Exception):
    """A network is far larger than any is; the text says in what."""


def stand_in(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor with one number for all.

    Raises:
        BudgetError: it has too many elements.
        RuntimeError: a size is negative.
    """
    if math.prod(shape) > MOST_ELEMENTS:
        raise BudgetError(f"it has a value of the sizes {list(shape)!s:.60}, as no network has")
    return torch.zeros((), dtype=dtype).expand(tuple(shape))


def flat(value: Any) -> list[Any]:
    """The elements of lists and tuples, however they are nested."""
    if isinstance(value, (list, tuple)):
        return [each for part in value for each in flat(part)]
    return [value]


def tensors_in(*values: Any) -> list[Tensor]:
    """The tensors among arguments, in lists and tuples too."""
    return [each for each in flat(list(values)) if isinstance(each, Tensor)]


def result_of(
    name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], given: Given
) -> Any:
    """What a call returns.

    Args:
        name: of the function, without underscores.
        function: itself.
        args: by place.
        kwargs: by name.
        given: all of them by name, defaults included, for the functions of `RULES`.

    Raises:
        ValueError, RuntimeError, IndexError, TypeError: the function does not take these.
        BudgetError: the result is too large.
    """
    if name in QUESTIONS:
        return function(*args, **kwargs)
    tensors = tensors_in(args, *kwargs.values())
    if works_in_place(function, given):
        np.broadcast_shapes(*(each.shape for each in tensors))
        return args[0]
    if name in RULES:
        found = RULES[name](given)
        dtype = torch.int64 if name == "argmax" else tensors[0].dtype
        several = found and isinstance(found[0], tuple)
        return tuple(stand_in(each, dtype) for each in found) if several else stand_in(found, dtype)
    if name in ELEMENTWISE:
        small = {id(each): torch.ones([1] * each.dim(), dtype=each.dtype) for each in tensors}
        return _like(np.broadcast_shapes(*(each.shape for each in tensors)), _call(function, args, kwargs, small))
    if name in LIKE_THE_FIRST or name in KEPT_AXES:
        first, *others = tensors
        kept = KEPT_AXES[name](given) if name in KEPT_AXES else ()
        sizes = [size if axis in kept else 1 for axis, size in enumerate(first.shape)]
        small = {id(each): torch.ones(each.shape, dtype=each.dtype) for each in others}
        small[id(first)] = torch.ones(sizes, dtype=first.dtype)
        return _like(first.shape, _call(function, args, kwargs, small))
    made = math.prod(each for each in flat(list(args)) if type(each) is int) if name in FACTORIES else 0
    if max(made, sum(each.numel() for each in tensors)) > MOST_COMPUTED:
        raise BudgetError(f"{name} is given or makes more elements than any network has there")
    return _call(function, args, kwargs, {id(each): torch.zeros(each.shape, dtype=each.dtype) for each in tensors})


# Functions that ask something about a tensor.
QUESTIONS = frozenset(
    {
        *("device", "dim", "dtype", "is_contiguous", "is_floating_point", "len", "ndim", "numel", "requires_grad"),
        *("shape", "size", "stride"),
    }
)
# Functions that compute each element from those at its place.
ELEMENTWISE = frozenset(
    {
        *("abs", "add", "ceil", "clamp", "cos", "div", "elu", "eq", "erf", "exp", "floor", "floor_divide", "ge"),
        *("gelu", "gt", "hardsigmoid", "hardswish", "hardtanh", "le", "leaky_relu", "log", "logical_and"),
        *("log_sigmoid", "logical_not", "logical_or", "lt", "maximum", "minimum", "mish", "mul", "ne", "neg", "pow"),
        *("reciprocal", "relu", "relu6", "remainder", "round", "rsqrt", "rsub", "sigmoid", "sign", "silu", "sin"),
        *("softplus", "softsign", "sqrt", "square", "sub", "tanh", "where"),
    }
)
# Functions whose result has the shape of their first tensor, whatever others they have.
LIKE_THE_FIRST = frozenset(
    {
        *("alias", "clone", "contiguous", "data", "detach", "dropout", "empty_like", "float", "full_like"),
        *("ones_like", "to", "type_as", "zeros_like"),
    }
)
# Such functions that also have parameters or an axis, and the axes of the first tensor that must fit those.
KEPT_AXES: Mapping[str, Callable[[Given], Sequence[int]]] = {
    "batch_norm": lambda _: (1,),
    "layer_norm": lambda given: range(given["input"].dim())[-len(given["normalized_shape"]) :],
    "log_softmax": lambda _: (),
    "prelu": lambda _: (1,),
    "softmax": lambda _: (),
}
# Functions that make tensors of given sizes.
FACTORIES = frozenset({"arange", "empty", "full", "new_full", "new_ones", "new_zeros", "ones", "zeros"})


def _like(shape: Sequence[int], result: Any) -> Any:
    """A result of another shape, where it is a tensor."""
    return stand_in(shape, result.dtype) if isinstance(result, Tensor) else result


def works_in_place(function: Callable[..., Any], given: Given) -> bool:
    """Whether a call changes its first argument."""
    name = function.__name__
    own = name.endswith("_") and not name.endswith("__")
    return own or given.get("inplace") is True or name in ("__iadd__", "__isub__", "__imul__", "__itruediv__")


def _call(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], instead: Mapping[int, Tensor]
) -> Any:
    """Call a function with other tensors, known by the identity of those that they replace."""
    args, kwargs = exchanged((tuple(args), dict(kwargs)), Tensor, lambda tensor: instead[id(tensor)])
    return function(*args, **kwargs)


def exchanged(value: Any, kind: type | tuple[type, ...], other: Callable[[Any], Any]) -> Any:
    """Arguments with something else for all of one kind in them, in lists, tuples and dictionaries too."""
    if isinstance(value, kind):
        return other(value)
    if isinstance(value, dict):
        return {name: exchanged(each, kind, other) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(exchanged(each, kind, other) for each in value)
    return value


# ---- rules -------------------------------------------------------------------------------------------------------


def require(fits: bool, problem: str) -> None:
    if not fits:
        raise ValueError(problem)


def _bias(given: Given, size: int) -> None:
    bias = given["bias"]
    require(bias is None or tuple(bias.shape) == (size,), f"a bias that is not one number for each of {size} channels")


def _pairs(given: Given, *names: str) -> Iterator[tuple[int, ...]]:
    """Arguments with a number for height and width, or one for both: all for the height, then all for the width."""
    values = []
    for name in names:
        value, least = given[name], 0 if "padding" in name else 1
        pair = tuple(value) if isinstance(value, (list, tuple)) else (value,) * 2
        pair = pair * 2 if len(pair) == 1 else pair
        fits = len(pair) == 2 and all(type(each) is int and each >= least for each in pair)
        require(fits, f"{name} is {value!s:.60}, not two numbers from {least} on")
        values.append(pair)
    return zip(*values, strict=True)


def _windows(size: int, reach: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> int:
    """How many windows there are along an axis; the last may stick out where `ceil`."""
    span = size + 2 * padding - dilation * (reach - 1) - 1
    count = (span + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    require(count > 0, f"a window of {reach} is larger than an axis of {size} with a padding of {padding}")
    return count


def _conv2d(given: Given) -> Shape:
    x, weight, groups = given["input"], given["weight"], given["groups"]
    _layer(x, weight, groups, weight.shape[1] * groups, weight.shape[0])
    _bias(given, weight.shape[0])
    if given["padding"] == "same":
        return (x.shape[0], weight.shape[0], *x.shape[2:])
    given = {**given, "padding": 0} if given["padding"] == "valid" else given
    sides = zip(x.shape[2:], weight.shape[2:], _pairs(given, "stride", "padding", "dilation"), strict=True)
    sizes = (_windows(size, reach, stride, pad, dilation) for size, reach, (stride, pad, dilation) in sides)
    return (x.shape[0], weight.shape[0], *sizes)


def _conv_transpose2d(given: Given) -> Shape:
    x, weight, groups = given["input"], given["weight"], given["groups"]
    _layer(x, weight, groups, weight.shape[0], weight.shape[1] * groups)
    _bias(given, weight.shape[1] * groups)
    sizes = []
    sides = _pairs(given, "stride", "padding", "dilation", "output_padding")
    for size, reach, (stride, padding, dilation, more) in zip(x.shape[2:], weight.shape[2:], sides, strict=True):
        require(more < max(stride, dilation), f"output_padding {more} with stride {stride} and dilation {dilation}")
        sizes.append((size - 1) * stride - 2 * padding + dilation * (reach - 1) + more + 1)
    require(min(sizes) > 0, f"nothing is left of {list(x.shape)}")
    return (x.shape[0], weight.shape[1] * groups, *sizes)


def _layer(x: Tensor, weight: Tensor, groups: int, inside: int, outside: int) -> None:
    whole = x.dim() == weight.dim() == 4 and min(*x.shape[1:], *weight.shape, groups) > 0
    fits = whole and x.shape[1] == inside and inside % groups == outside % groups == 0
    require(fits, f"an input of {list(x.shape)} and a weight of {list(weight.shape)} in {groups} groups")


def _pool2d(given: Given) -> Shape:
    x = given["input"]
    whole = x.dim() == 4 and min(x.shape[1:]) > 0 and not given.get("return_indices")
    require(whole, f"pooling of {list(x.shape)}")
    given = {"dilation": 1, **given, "stride": given["stride"] or given["kernel_size"]}
    sides = list(_pairs(given, "kernel_size", "stride", "padding", "dilation"))
    require(all(2 * padding <= reach for reach, _, padding, _ in sides), "a padding of more than half of the kernel")
    both = zip(x.shape[2:], sides, strict=True)
    ceil = given["ceil_mode"]
    sizes = (_windows(size, reach, stride, pad, dilation, ceil) for size, (reach, stride, pad, dilation) in both)
    return (*x.shape[:2], *sizes)


def _adaptive_pool2d(given: Given) -> Shape:
    x = given["input"]
    require(x.dim() == 4 and min(x.shape[1:]) > 0, f"pooling of {list(x.shape)}")
    return (*x.shape[:2], *(size for (size,) in _pairs(given, "output_size")))


def _interpolate(given: Given) -> Shape:
    x, size, factor = given["input"], given["size"], given["scale_factor"]
    asked = size if size is not None else factor
    each = tuple(asked) if isinstance(asked, (list, tuple)) else (asked,) * (x.dim() - 2)
    require(len(each) == 2 == x.dim() - 2, f"{len(each)} sizes for {list(x.shape)}")
    sizes = each if size is not None else [math.floor(n * scale) for n, scale in zip(x.shape[2:], each, strict=True)]
    require(min(*sizes, *x.shape[1:]) > 0, f"{list(x.shape)} to {list(sizes)}")
    return (*x.shape[:2], *sizes)


def _pad(given: Given) -> Shape:
    sizes, padding = list(given["input"].shape), given["pad"]
    least = 0 if given["mode"] == "constant" else 2 * len(sizes) - 4
    fits = len(padding) % 2 == 0 and least <= len(padding) <= 2 * len(sizes)
    require(fits, f"{len(padding)} paddings of {given['mode']} for {len(sizes)} axes")
    for axis, before, after in zip(range(len(sizes))[::-1], padding[::2], padding[1::2], strict=False):
        mirrored = given["mode"] == "reflect"
        require(not mirrored or max(before, after) < sizes[axis], f"a reflection of more than {sizes[axis]}")
        sizes[axis] += before + after
    require(min(sizes, default=0) >= 0, "more is cut off than there is")
    return tuple(sizes)


def _matmul(given: Given) -> Shape:
    return _product(tuple(given["input"].shape), tuple(given["other"].shape))


def _linear(given: Given) -> Shape:
    weight = given["weight"]
    require(weight.dim() == 2, f"a weight of {list(weight.shape)}")
    _bias(given, weight.shape[0])
    return _product(tuple(given["input"].shape), tuple(weight.shape[::-1]))


def _product(x: Shape, y: Shape) -> Shape:
    """The shape of a product of matrices, or of a matrix and a vector."""
    require(bool(x and y) and x[-1] == y[-2:][0], f"{list(x)} times {list(y)}")
    return (*np.broadcast_shapes(x[:-2], y[:-2]), *x[-2:-1], *(y[-1:] if len(y) > 1 else ()))


def _cat(given: Given) -> Shape:
    tensors = given["tensors"]
    axis = axis_of(given["dim"], tensors[0].dim())
    beside = {(tuple(each.shape[:axis]), tuple(each.shape[axis + 1 :])) for each in tensors}
    require(len(beside) == 1, f"{list(map(list, (each.shape for each in tensors)))!s:.200} along axis {axis}")
    ((before, behind),) = beside
    return (*before, sum(each.shape[axis] for each in tensors), *behind)


def _stack(given: Given) -> Shape:
    shapes = [tuple(each.shape) for each in given["tensors"]]
    require(len(set(shapes)) == 1, f"{list(map(list, shapes))!s:.200}, which differ")
    axis = axis_of(given["dim"], len(shapes[0]) + 1)
    return (*shapes[0][:axis], len(shapes), *shapes[0][axis:])


def _reduction(given: Given) -> Shape:
    x, dim = given["input"], given.get("dim")
    axes = {axis_of(each, x.dim()) for each in flat(dim)} if dim not in (None, (), []) else set(range(x.dim()))
    kept = bool(given.get("keepdim"))
    require(0 not in x.shape, f"nothing is in {list(x.shape)}")
    return tuple(1 if axis in axes else size for axis, size in enumerate(x.shape) if kept or axis not in axes)


def _index_select(given: Given) -> Shape:
    x, index = given["input"], given["index"]
    axis = axis_of(given["dim"], x.dim())
    require(index.dim() < 2, f"indices of {list(index.shape)}")
    return (*x.shape[:axis], index.numel(), *x.shape[axis + 1 :])


def axis_of(axis: int, count: int) -> int:
    """An axis counted from the front."""
    require(type(axis) is int and -count <= axis < count, f"there is no axis {axis!s:.60} of {count}")
    return axis % count


def _lstm(given: Given) -> tuple[Shape, Shape, Shape]:
    """Of the output and of both states; PyTorch does not check all that it is given here, and may crash."""
    x, states, weights = given["input"], given["hx"], given["weights"]
    require(x.dim() == 3 and len(states) == 2 and not given["train"], f"an LSTM with an input of {list(x.shape)}")
    directions, size, columns = 1 + bool(given["bidirectional"]), states[0].shape[-1], x.shape[-1]
    state = (given["num_layers"] * directions, x.shape[0 if given["batch_first"] else 1], size)
    wanted: list[Shape] = []
    for cell in range(min(state[0], len(weights))):
        columns = columns if cell < directions else directions * size
        wanted += ((4 * size, columns), (4 * size, size), *[(4 * size,)] * (2 * bool(given["has_biases"])))
    found = [tuple(each.shape) for each in (*states, *weights)]
    require(found == [state, state, *wanted], "an LSTM whose states or weights are of other shapes, or not as many")
    return (*x.shape[:2], directions * size), state, state


RULES: Mapping[str, Callable[[Given], Any]] = {
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive_pool2d),
    **dict.fromkeys(("amax", "amin", "argmax", "mean", "prod", "sum"), _reduction),
    **dict.fromkeys(("avg_pool2d", "max_pool2d"), _pool2d),
    "cat": _cat,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "index_select": _index_select,
    "interpolate": _interpolate,
    "linear": _linear,
    "lstm": _lstm,
    "matmul": _matmul,
    "pad": _pad,
    "stack": _stack,
}
