"""What spelled-out operators mean, in the vocabulary of `operators`: the same for both dialects.

Paddle's padding algorithms become numbers, its many ways to give a size one, constants in the place of attributes
attributes. What cannot be expressed is said with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paddle2torch.architectures.graph.form import Node
from paddle2torch.architectures.graph.operators import mistake
from paddle2torch.converter.formats.pdmodel import ELEMENT_NAMES
from paddle2torch.converter.graph.dialects import BINARY, REDUCTIONS, UNKNOWN, Spelled

# Slots that hold data: what is in them stays a value of the graph even where it is a constant.
DATA = frozenset(
    {"x", "y", "weight", "bias", "mean", "variance", "weights", "state", "lengths", "condition", "index", "alpha"}
)

# Constants of more elements are data.
MOST_CONSTANTS = 64


class VariantError(Exception):
    """An operator that the tables do not have, or used in a way that cannot be expressed; the text says which."""


def constants_of(nodes: Sequence[Node]) -> dict[str, Any]:
    """The values that are known beforehand: numbers, or short lists of numbers."""
    constants = {}
    for node in nodes:
        if node.type in ("full", "full_int_array", "assign_value") and not node.inputs:
            try:
                known = _constant(node)
            except Exception:  # it is an odd operator, of which `refined` tells
                continue
            if known is not None:
                constants[node.outputs[0]] = known
    return constants


def _constant(node: Node) -> Any:
    """The number, or list of numbers, that a constant is; None where it is none of both."""
    given = node.attributes
    values = [_number(given)] if node.type == "full" else _given_values(given)
    sizes = given.get("shape", [len(values)])
    if len(sizes) > 1 or math.prod(sizes) > MOST_CONSTANTS:
        return None
    values = values * math.prod(sizes) if node.type == "full" else values
    return values if sizes else values[0]


def _given_values(given: Mapping[str, Any]) -> list[Any]:
    """The values of `full_int_array` and `assign_value`, wherever they stand."""
    stands = ("value", "values", "fp32_values", "int32_values", "int64_values", "bool_values")
    return list(next((given[name] for name in stands if given.get(name)), []))


def _number(given: Mapping[str, Any]) -> Any:
    """The value of `full`: newer programs write it as text too, without rounding it."""
    value = float(given.get("text") or given.get("value", 0.0))
    return int(value) if "int" in (_dtype(given.get("dtype")) or "") else value


def _dtype(value: Any) -> str | None:
    """The name of a data type; None for "that of the input"."""
    if isinstance(value, str):
        return value
    return None if value is None or value < 0 else ELEMENT_NAMES.get(value, f"type {value}")


@dataclass(frozen=True)
class Context:
    """What is known about the program around a node.

    Attributes:
        spelled: the program.
        constants: the values known beforehand.
    """

    spelled: Spelled
    constants: dict[str, Any]

    @cached_property
    def _makers(self) -> dict[str, Node]:
        return {value: node for node in reversed(self.spelled.nodes) for value in node.outputs}

    def shape(self, value: str) -> tuple[int, ...] | None:
        return self.spelled.shapes.get(value)

    def rank(self, value: str) -> int | None:
        sizes = self.shape(value)
        return None if sizes is None else len(sizes)

    def is_zero(self, value: str) -> bool:
        """Whether this is a constant of nothing but zeros."""
        maker = self._makers.get(value)
        if maker is None or maker.type not in ("full", "full_batch"):
            return False
        filling = maker.inputs.get("value")
        known = self.constants.get(filling[0]) if filling else _number({**maker.attributes, "dtype": None})
        return known in (0, [0])


def refined(node: Node, context: Context) -> list[Node]:
    """A spelled-out node as nodes of the vocabulary.

    Raises:
        VariantError: it cannot be expressed.
    """
    if node.type.startswith(UNKNOWN):
        raise VariantError(node.type.removeprefix(UNKNOWN))
    folded = _folded(node, context.constants)
    refine = REFINE.get(node.type)
    try:
        nodes = list(refine(folded, context)) if refine else [folded]
    except VariantError:
        raise
    except Exception as error:
        odd = f"{error!r}"[:80]
        raise VariantError(f"{node.type} with an attribute or operand that is missing or odd ({odd})") from error
    for each in nodes:
        problem = mistake(each)
        if problem:
            raise VariantError(f"{node.type} ({problem})")
    return nodes


def _folded(node: Node, constants: Mapping[str, Any]) -> Node:
    """Constants in slots that may be attributes become attributes; what is computed there overrides the attribute."""
    inputs, attributes = {}, dict(node.attributes)
    for slot, values in node.inputs.items():
        if slot in DATA or not all(value in constants for value in values):
            inputs[slot] = values
            attributes.pop(slot, None)
        elif len(values) == 1:
            attributes[slot] = constants[values[0]]
        else:
            attributes[slot] = [_scalar(constants[value]) for value in values]
    return Node(node.type, inputs, node.outputs, attributes)


def _scalar(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _with(node: Node, type_: str | None = None, inputs: Mapping[str, Any] | None = None, **attributes: Any) -> Node:
    """The node with another type, or other inputs, and with exactly these attributes."""
    return Node(type_ or node.type, dict(node.inputs if inputs is None else inputs), node.outputs, attributes)


def _sides(node: Node, kernel: list[int]) -> list[int] | str:
    """Padding at top, bottom, left, right; "same" where it depends on the input's size."""
    given = node.attributes
    algorithm = given.get("padding_algorithm") or "EXPLICIT"
    if algorithm == "VALID":
        return [0, 0, 0, 0]
    if algorithm == "SAME":
        if any(step != 1 for step in given["strides"]):
            return "same"
        return [side for reach in kernel for side in ((reach - 1) // 2, reach // 2)]
    paddings = given["paddings"]
    return list(paddings) if len(paddings) == 4 else [side for side in paddings for _ in range(2)]


def _conv2d(node: Node, context: Context) -> Iterator[Node]:
    given, inputs = node.attributes, dict(node.inputs)
    sizes = context.shape(inputs["weight"][0])
    if sizes is None or len(sizes) != 4:
        raise VariantError(f"conv2d with a weight of shape {sizes}")
    kernel, stride = list(sizes[2:]), list(given["strides"])
    sides = _sides(node, kernel)
    same = given.get("padding_algorithm") == "SAME"
    padding: list[int] | str = [0, 0]
    if sides == "same":
        inputs, pad = _behind(node, "pad_same", kernel=kernel, stride=stride)
        yield pad
    elif sides[0] != sides[1] or sides[2] != sides[3]:
        inputs, pad = _behind(node, "pad", padding=[sides[2], sides[3], sides[0], sides[1]])
        yield pad
    else:
        padding = sides[::2]
    # Paddle's "SAME" forgets the dilation.
    dilation = [1, 1] if same else list(given["dilations"])
    yield _with(node, inputs=inputs, stride=stride, padding=padding, dilation=dilation, groups=given["groups"])


def _behind(node: Node, type_: str, **attributes: Any) -> tuple[dict[str, tuple[str, ...]], Node]:
    """A new node on the input x, and the inputs of the given one behind it."""
    value = f"{node.outputs[0]}@{type_}"
    return {**node.inputs, "x": (value,)}, Node(type_, {"x": node.inputs["x"]}, (value,), attributes)


def _conv2d_transpose(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    if given.get("output_size"):
        raise VariantError("conv2d_transpose with output_size")
    if given.get("padding_algorithm") == "SAME":
        raise VariantError("conv2d_transpose with padding_algorithm=SAME")
    sides = _sides(node, [])
    if sides[0] != sides[1] or sides[2] != sides[3]:
        raise VariantError("conv2d_transpose with uneven padding")
    inputs = {slot: values for slot, values in node.inputs.items() if slot != "output_size"}
    yield _with(
        node,
        inputs=inputs,
        stride=list(given["strides"]),
        padding=sides[::2],
        output_padding=list(given.get("output_padding") or [0, 0]),
        dilation=list(given["dilations"]),
        groups=given["groups"],
    )


def _batch_norm(node: Node, context: Context) -> Iterator[Node]:
    given = node.attributes
    if not (given.get("is_test") or given.get("use_global_stats")):
        raise VariantError("batch_norm with is_test=False (export the model in evaluation mode)")
    rank = context.rank(node.inputs["x"][0])
    if rank not in (None, 3, 4):
        raise VariantError(f"batch_norm of {rank} axes")
    flat: dict[str, Any] = {"flat": True} if rank == 3 else {}
    yield _with(node, epsilon=given["epsilon"], momentum=given["momentum"], **flat)


def _layer_norm(node: Node, context: Context) -> Iterator[Node]:
    axis, rank = node.attributes["axis"], context.rank(node.inputs["x"][0])
    yield _with(node, epsilon=node.attributes["epsilon"], axis=axis if rank is None else axis - rank)


def _rnn(node: Node, context: Context) -> Iterator[Node]:
    given = node.attributes
    if given["mode"] != "LSTM":
        raise VariantError(f"rnn with mode={given['mode']}")
    if node.inputs.get("lengths"):
        raise VariantError("rnn with sequence lengths")
    inputs = {slot: node.inputs[slot] for slot in ("x", "weights")}
    if not all(context.is_zero(value) for value in node.inputs["state"]):
        inputs["state"] = node.inputs["state"]
    yield _with(
        node,
        "lstm",
        inputs,
        hidden_size=given["hidden_size"],
        num_layers=given["num_layers"],
        bidirectional=given["bidirectional"],
    )


def _pool2d(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    if "kernel" not in given:
        raise VariantError("pool2d with a computed kernel")
    kernel = _list(given["kernel"])
    kernel = kernel * 2 if len(kernel) == 1 else kernel
    kind = given.get("kind", "max")
    if given.get("global_pooling") or given.get("adaptive"):
        size = [1, 1] if given.get("global_pooling") else kernel
        yield _with(node, "adaptive_pool2d", kind=kind, size=size)
        return
    yield _with(
        node,
        kind=kind,
        kernel=kernel,
        stride=list(given["strides"]),
        padding=_sides(node, kernel),
        ceil_mode=given.get("ceil_mode", False),
        exclusive=given.get("exclusive", True),
    )


def _resize(node: Node, _: Context) -> Iterator[Node]:
    given, inputs = node.attributes, node.inputs
    mode, align = given["mode"], given.get("align_corners", True)
    if mode == "bilinear" and not align and given.get("align_mode", 1) == 1:
        raise VariantError("bilinear_interp with align_mode=1")
    if inputs.get("factor"):
        raise VariantError(f"{mode}_interp with a computed scale")
    common = {"mode": mode, "align_corners": align}
    size = inputs.get("sizes") or inputs.get("size")
    known = given.get("sizes") or given.get("size")
    factors = [float(factor) for factor in _list(given.get("factor") or given.get("scale") or []) if factor > 0]
    if size:
        yield _with(node, "interpolate", {"x": inputs["x"], "size": size}, **common)
    elif known:
        yield _with(node, "interpolate", size=_list(known), **common)
    elif factors:
        yield _with(node, "interpolate", scale=factors * (2 // len(factors)), **common)
    else:
        yield _with(node, "interpolate", size=[given["out_h"], given["out_w"]], **common)


def _flat_matmul(node: Node, context: Context) -> Iterator[Node]:
    """`mul`: x flattened to a matrix, times a matrix."""
    given, rank = node.attributes, context.rank(node.inputs["x"][0])
    axes = given.get("x_axes", 1)
    if given.get("y_axes", 1) != 1 or context.rank(node.inputs["y"][0]) != 2 or rank is None:
        raise VariantError("mul of other than a matrix")
    inputs = node.inputs
    if rank != axes + 1:
        inputs, flat = _behind(node, "flatten", start=axes, stop=-1)
        yield flat
    yield _with(node, "matmul", inputs)


def _matmul(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    alpha = given.get("alpha", 1.0)
    flags = {name: given.get(name, False) for name in ("transpose_x", "transpose_y")}
    if alpha == 1.0:
        yield _with(node, **flags)
        return
    product = f"{node.outputs[0]}@matmul"
    yield Node("matmul", node.inputs, (product,), flags)
    yield _with(node, "scale", {"x": (product,)}, factor=alpha)


def _slice(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    steps = given.get("steps") or [1] * len(given["axes"])
    if any(step < 1 for step in steps):
        raise VariantError("strided_slice backwards")
    attributes: dict[str, Any] = {name: _list(given[name]) for name in ("starts", "ends") if name not in node.inputs}
    attributes |= {"axes": list(given["axes"]), "squeezed": list(given.get("squeezed") or [])}
    if any(step != 1 for step in steps):
        attributes["steps"] = list(steps)
    yield _with(node, **attributes)


def _split(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    sizes = [_scalar(size) for size in _list(given.get("sizes") or [])]
    yield _with(node, axis=_axis(given), **({"sizes": sizes} if sizes else {"parts": given["parts"]}))


def _axis(given: Mapping[str, Any], default: int = 0) -> int:
    axis = given.get("axis")
    return default if axis is None else int(_scalar(axis))


def _assign(node: Node, _: Context) -> Iterator[Node]:
    yield _with(node, "scale", factor=1.0)


def _along(node: Node, _: Context) -> Iterator[Node]:
    """Operators that want one axis and nothing else."""
    if "axis" in node.inputs:
        raise VariantError(f"{node.type} with a computed axis")
    yield _with(node, axis=_axis(node.attributes, -1 if "softmax" in node.type else 0))


def _axes(node: Node, _: Context) -> Iterator[Node]:
    """Operators that want a list of axes and nothing else."""
    yield _with(node, axes=[int(_scalar(axis)) for axis in _list(node.attributes.get("axes", []))])


def _reduction(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    axes = [] if given.get("all") or given.get("axes") is None else _list(given["axes"])
    yield _with(node, axes=axes, keepdim=given.get("keepdim", False))


def _argmax(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    axis = None if given.get("flatten") else _axis(given, -1)
    yield _with(node, axis=axis, keepdim=given.get("keepdim", False), dtype=_dtype(given.get("dtype")) or "int64")


def _dropout(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    if "p" in node.inputs:
        raise VariantError("dropout with a computed probability")
    upscale = given.get("mode", "downgrade_in_infer") == "upscale_in_train"
    yield _with(node, inputs={"x": node.inputs["x"]}, p=float(_scalar(given["p"])), upscale=upscale)


def _scale(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    factor = {} if "factor" in node.inputs else {"factor": _scalar(given.get("factor", 1.0))}
    yield _with(node, **factor, bias=given.get("bias", 0.0), bias_first=not given.get("after", True))


def _clip(node: Node, _: Context) -> Iterator[Node]:
    bounds = {name: _scalar(node.attributes[name]) for name in ("minimum", "maximum") if name in node.attributes}
    yield _with(node, **bounds)


def _power(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    if "y" in node.inputs:
        yield _with(node, **({"axis": given["axis"]} if "axis" in given else {}))
    else:
        yield _with(node, y=given.get("y", 1.0))


def _pad(node: Node, _: Context) -> Iterator[Node]:
    """Pairs from the first axis on, turned to the order of `F.pad`; axes that get nothing at the front are left out."""
    paddings = node.attributes["paddings"]
    pairs = [list(paddings[place : place + 2]) for place in range(0, len(paddings), 2)]
    padded = [place for place, pair in enumerate(pairs) if pair != [0, 0]]
    pairs = pairs[padded[0] if padded else -1 :]
    value = float(_scalar(node.attributes.get("value", 0.0)))
    yield _with(
        node, inputs={"x": node.inputs["x"]}, padding=[n for pair in reversed(pairs) for n in pair], value=value
    )


def _pad3d(node: Node, _: Context) -> Iterator[Node]:
    yield _padded(node, _fixed(node, "paddings"))


def _fixed(node: Node, name: str) -> list[int]:
    if name in node.inputs:
        raise VariantError(f"{node.type} with computed {name}")
    return list(node.attributes[name])


def _padded(node: Node, padding: list[int]) -> Node:
    given = node.attributes
    return _with(node, "pad", padding=padding, mode=given.get("mode", "constant"), value=float(given.get("value", 0.0)))


def _full(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    attributes: dict[str, Any] = {"dtype": _dtype(given.get("dtype", "float32"))}
    if "shape" not in node.inputs:
        attributes["shape"] = [int(_scalar(size)) for size in _list(given["shape"])]
    if "value" not in node.inputs:
        attributes["value"] = _number({**given, "value": _scalar(given.get("value", 0.0))})
    yield _with(node, **attributes)


def _full_int_array(node: Node, _: Context) -> Iterator[Node]:
    values = _given_values(node.attributes)
    yield _with(
        node, "constant", values=values, shape=[len(values)], dtype=_dtype(node.attributes.get("dtype", "int64"))
    )


def _assign_value(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    yield _with(
        node, "constant", values=_given_values(given), shape=list(given["shape"]), dtype=_dtype(given.get("dtype"))
    )


def _full_batch(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    yield _with(
        node,
        shape=list(given["shape"]),
        value=_number({**given, "dtype": None}),
        dtype=_dtype(given["dtype"]),
        input_axis=given.get("input_axis", 0),
        output_axis=given.get("output_axis", 0),
    )


def _full_like(node: Node, _: Context) -> Iterator[Node]:
    value = {} if "value" in node.inputs else {"value": _scalar(node.attributes.get("value", 0.0))}
    yield _with(node, dtype=_dtype(node.attributes.get("dtype")), **value)


def _cast(node: Node, _: Context) -> Iterator[Node]:
    yield _with(node, dtype=_dtype(node.attributes["dtype"]))


def _gather(node: Node, context: Context) -> Iterator[Node]:
    if "axis" in node.inputs or context.rank(node.inputs["index"][0]) == 0:
        raise VariantError("gather with a computed axis or a single index")
    yield _with(node, axis=_axis(node.attributes))


def _add_all(node: Node, _: Context) -> Iterator[Node]:
    *others, last = node.inputs["x"][1:]
    so_far = node.inputs["x"][0]
    for count, value in enumerate(others):
        partial = f"{node.outputs[0]}@{count}"
        yield Node("add", {"x": (so_far,), "y": (value,)}, (partial,), {})
        so_far = partial
    yield _with(node, "add", {"x": (so_far,), "y": (last,)})


def _flatten2(node: Node, _: Context) -> Iterator[Node]:
    if node.attributes.get("axis", 1) != 1:
        raise VariantError(f"flatten2 with axis={node.attributes['axis']}")
    yield _with(node, "flatten", start=1, stop=-1)


# Attributes that newer versions of Paddle ignore, older ones not, and nobody sets.
SETTLED = {"hard_swish": {"threshold": 6.0, "scale": 6.0, "offset": 3.0}, "relu6": {"threshold": 6.0}}


def _settled(node: Node, _: Context) -> Iterator[Node]:
    for name, value in SETTLED[node.type].items():
        if node.attributes.get(name, value) != value:
            raise VariantError(f"{node.type} with {name}={node.attributes[name]}")
    yield _with(node)


def _binary(node: Node, _: Context) -> Iterator[Node]:
    axis = node.attributes.get("axis", -1)
    yield _with(node, **({"axis": axis} if axis != -1 else {}))


REFINE: Mapping[str, Callable[[Node, Context], Iterator[Node]]] = {
    **dict.fromkeys(BINARY.values(), _binary),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(("concat", "stack", "unbind", "softmax", "log_softmax"), _along),
    **dict.fromkeys(("squeeze", "unsqueeze", "transpose", "flip"), _axes),
    **dict.fromkeys(SETTLED, _settled),
    "add_all": _add_all,
    "argmax": _argmax,
    "assign": _assign,
    "assign_value": _assign_value,
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": _clip,
    "conv2d": _conv2d,
    "conv2d_transpose": _conv2d_transpose,
    "dropout": _dropout,
    "flat_matmul": _flat_matmul,
    "flatten2": _flatten2,
    "full": _full,
    "full_batch": _full_batch,
    "full_int_array": _full_int_array,
    "full_like": _full_like,
    "gather": _gather,
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "pad": _pad,
    "pad3d": _pad3d,
    "pool2d": _pool2d,
    "power": _power,
    "resize": _resize,
    "rnn": _rnn,
    "scale": _scale,
    "slice": _slice,
    "split": _split,
}
