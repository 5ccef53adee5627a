"""The two dialects in which Paddle writes programs, one table each, and their operators spelled as ours.

A row of a table says what an operator of that dialect is called here, which slots or operands it has, and which of its
attributes matter. What the attributes mean is the same in both, and is for `refine` to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddle2torch.architectures.graph.form import Node
from paddle2torch.architectures.graph.operators import UNARY
from paddle2torch.converter.formats.pdmodel import FEEDS, FETCHES, Operator, Program

# What begins the type of an operator that no row is for.
UNKNOWN = "?"


# ---- the tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """How one operator of a dialect is read.

    Attributes:
        type: what it is called here until it is refined.
        inputs: our slot → the dialect's slots, of which the first that is filled counts. In PIR operands have no
            names; there the order of our slots is theirs.
        attributes: our attribute → the dialect's.
        outputs: the dialect's slots that matter; in PIR, the places of the results.
    """

    type: str
    inputs: dict[str, tuple[str, ...]]
    attributes: dict[str, str]
    outputs: tuple[str, ...]


def row(type_: str, inputs: str = "x=X", attributes: str = "", outputs: str = "Out 0") -> Row:
    """A row from text: `ours=theirs`, or one name that is both; `theirs` may have alternatives, `A|B`."""

    def pairs(text: str) -> dict[str, str]:
        return {ours: theirs or ours for ours, _, theirs in (word.partition("=") for word in text.split())}

    slots = {ours: tuple(theirs.split("|")) for ours, theirs in pairs(inputs).items()}
    return Row(type_, slots, pairs(attributes), tuple(outputs.split()))


CONV = "strides paddings padding_algorithm dilations groups data_format"
CONV_TRANSPOSE = CONV + " output_padding output_size"
NORM = "epsilon momentum is_test use_global_stats"
POOL = "strides paddings ceil_mode exclusive global_pooling adaptive padding_algorithm"
RESIZE = "mode=interp_method out_h out_w scale align_corners align_mode"
RNN = "mode hidden_size num_layers bidirectional=is_bidirec"
REDUCE_LEGACY = "axes=dim keepdim=keep_dim all=reduce_all"
REDUCE_PIR = "axes=axis keepdim"
SLICE_INPUTS = "x=Input starts=StartsTensorList|StartsTensor ends=EndsTensorList|EndsTensor"
SLICE = "axes starts ends squeezed=decrease_axis"
RESIZE_INPUTS = "x=X size=SizeTensor|OutSize factor=Scale"

BINARY = {
    "elementwise_add": "add",
    "elementwise_sub": "subtract",
    "elementwise_mul": "multiply",
    "elementwise_div": "divide",
    "elementwise_floordiv": "floor_divide",
    "elementwise_mod": "remainder",
    "elementwise_max": "maximum",
    "elementwise_min": "minimum",
    "elementwise_pow": "power",
    **{
        name: name
        for name in [
            "equal",
            "not_equal",
            "less_than",
            "less_equal",
            "greater_than",
            "greater_equal",
            "logical_and",
            "logical_or",
        ]
    },
}
# What both dialects and we call alike, and what has no attribute.
PLAIN = UNARY.keys() - {"hard_swish", "relu6"}
REDUCTIONS = ("mean", "sum", "max", "min", "prod")

# `.pdmodel`: slots and attributes by name.
LEGACY: Mapping[str, Row] = {
    **{name: row(name) for name in PLAIN},
    **{theirs: row(ours, "x=X y=Y", "axis") for theirs, ours in BINARY.items()},
    **{f"reduce_{name}": row(name, attributes=REDUCE_LEGACY) for name in REDUCTIONS},
    "arg_max": row("argmax", attributes="axis keepdim=keepdims flatten dtype"),
    "assign": row("assign"),
    "assign_value": row("assign_value", "", "shape dtype values fp32_values int32_values int64_values bool_values"),
    "batch_norm": row("batch_norm", "x=X weight=Scale bias=Bias mean=Mean variance=Variance", NORM, "Y"),
    "bilinear_interp": row("resize", RESIZE_INPUTS, RESIZE),
    "bilinear_interp_v2": row("resize", RESIZE_INPUTS, RESIZE),
    "bicubic_interp_v2": row("resize", RESIZE_INPUTS, RESIZE),
    "cast": row("cast", attributes="dtype=out_dtype"),
    "clip": row("clip", "x=X minimum=Min maximum=Max", "minimum=min maximum=max"),
    "concat": row("concat", "x=X axis=AxisTensor", "axis"),
    "conv2d": row("conv2d", "x=Input weight=Filter bias=Bias", CONV, "Output"),
    "conv2d_transpose": row("conv2d_transpose", "x=Input weight=Filter bias=Bias", CONV_TRANSPOSE, "Output"),
    "depthwise_conv2d": row("conv2d", "x=Input weight=Filter bias=Bias", CONV, "Output"),
    "depthwise_conv2d_transpose": row("conv2d_transpose", "x=Input weight=Filter bias=Bias", CONV_TRANSPOSE, "Output"),
    "dropout": row("dropout", attributes="p=dropout_prob mode=dropout_implementation"),
    "elu": row("elu", attributes="alpha"),
    "expand_v2": row("expand", "x=X shape=Shape|expand_shapes_tensor", "shape"),
    "fill_any_like": row("full_like", attributes="value dtype"),
    "fill_constant": row(
        "full", "shape=ShapeTensorList|ShapeTensor value=ValueTensor", "shape value text=str_value dtype"
    ),
    "fill_constant_batch_size_like": row(
        "full_batch", "x=Input", "shape value dtype input_axis=input_dim_idx output_axis=output_dim_idx"
    ),
    "flatten2": row("flatten2", attributes="axis"),
    "flatten_contiguous_range": row("flatten", attributes="start=start_axis stop=stop_axis"),
    "flip": row("flip", attributes="axes=axis"),
    "gather": row("gather", "x=X index=Index axis=Axis", "axis"),
    "gelu": row("gelu", attributes="approximate"),
    "hard_sigmoid": row("hard_sigmoid", attributes="slope offset"),
    "hard_swish": row("hard_swish", attributes="threshold scale offset"),
    "layer_norm": row("layer_norm", "x=X weight=Scale bias=Bias", "epsilon axis=begin_norm_axis", "Y"),
    "leaky_relu": row("leaky_relu", attributes="slope=alpha"),
    "log_softmax": row("log_softmax", attributes="axis"),
    "matmul": row("matmul", "x=X y=Y", "transpose_x=transpose_X transpose_y=transpose_Y alpha"),
    "matmul_v2": row("matmul", "x=X y=Y", "transpose_x=trans_x transpose_y=trans_y"),
    "max_pool2d_with_index": row("pool2d", attributes=f"{POOL} kernel=ksize"),
    "mean": row("mean"),
    "mul": row("flat_matmul", "x=X y=Y", "x_axes=x_num_col_dims y_axes=y_num_col_dims"),
    "nearest_interp": row("resize", RESIZE_INPUTS, RESIZE),
    "nearest_interp_v2": row("resize", RESIZE_INPUTS, RESIZE),
    "pad": row("pad", attributes="paddings value=pad_value"),
    "pad3d": row("pad3d", "x=X paddings=Paddings", "paddings mode value"),
    "pool2d": row("pool2d", attributes=f"{POOL} kernel=ksize kind=pooling_type"),
    "pow": row("power", "x=X y=FactorTensor", "y=factor"),
    "prelu": row("prelu", "x=X alpha=Alpha"),
    "relu6": row("relu6", attributes="threshold"),
    "reshape2": row("reshape", "x=X shape=ShapeTensor|Shape", "shape"),
    "reshape": row("reshape", "x=X shape=ShapeTensor|Shape", "shape"),
    "rnn": row("rnn", "x=Input state=PreState weights=WeightList lengths=SequenceLength", RNN, "Out State"),
    "scale": row("scale", "x=X factor=ScaleTensor", "factor=scale bias after=bias_after_scale"),
    "shape": row("shape", "x=Input"),
    "silu": row("swish"),
    "slice": row("slice", SLICE_INPUTS, SLICE),
    "softmax": row("softmax", attributes="axis"),
    "softplus": row("softplus", attributes="beta threshold"),
    "split": row("split", "x=X axis=AxisTensor sizes=SectionsTensorList", "axis sizes=sections parts=num"),
    "squeeze2": row("squeeze", attributes="axes"),
    "stack": row("stack", attributes="axis", outputs="Y"),
    "strided_slice": row("slice", SLICE_INPUTS, SLICE + " steps=strides"),
    "sum": row("add_all"),
    "swish": row("swish", attributes="beta"),
    "tile": row("tile", "x=X repeats=RepeatTimes|repeat_times_tensor", "repeats=repeat_times"),
    "transpose2": row("transpose", attributes="axes=axis"),
    "transpose": row("transpose", attributes="axes=axis"),
    "unbind": row("unbind", attributes="axis"),
    "unsqueeze2": row("unsqueeze", "x=X axes=AxesTensorList|AxesTensor", "axes"),
    "unstack": row("unbind", attributes="axis", outputs="Y"),
    "where": row("where", "condition=Condition x=X y=Y"),
}  # fmt: skip

# The operand that an operator overwrites without reading it.
OVERWRITTEN = "overwritten"

# `inference.json`: operands and results by their order, attributes by name.
PIR: Mapping[str, Row] = {
    **{name: row(name, "x") for name in PLAIN},
    **{ours: row(ours, "x y") for ours in BINARY.values() if ours != "power"},
    **{name: row(name, "x axes", REDUCE_PIR) for name in REDUCTIONS},
    "argmax": row("argmax", "x axis", "axis keepdim=keepdims flatten dtype"),
    "assign": row("assign", "x"),
    "assign_value": row("assign_value", OVERWRITTEN, "shape dtype values"),
    "add_n": row("add_all", "x"),
    "batch_norm": row("batch_norm", "x mean variance weight bias", NORM),
    "bilinear_interp": row("resize", "x size sizes factor", RESIZE),
    "bicubic_interp": row("resize", "x size sizes factor", RESIZE),
    "cast": row("cast", "x", "dtype"),
    "clip": row("clip", "x minimum maximum"),
    "concat": row("concat", "x axis"),
    "conv2d": row("conv2d", "x weight", CONV),
    "conv2d_transpose": row("conv2d_transpose", "x weight output_size", CONV_TRANSPOSE),
    "depthwise_conv2d": row("conv2d", "x weight", CONV),
    "depthwise_conv2d_transpose": row("conv2d_transpose", "x weight output_size", CONV_TRANSPOSE),
    "dropout": row("dropout", "x seed p", "mode"),
    "elementwise_pow": row("power", "x y"),
    "elu": row("elu", "x", "alpha"),
    "expand": row("expand", "x shape"),
    "flatten": row("flatten", "x", "start=start_axis stop=stop_axis"),
    "flip": row("flip", "x", "axes=axis"),
    "full": row("full", "", "shape value dtype"),
    "full_batch_size_like": row(
        "full_batch", "x", "shape value dtype input_axis=input_dim_idx output_axis=output_dim_idx"
    ),
    "full_int_array": row("full_int_array", "", "value dtype"),
    "full_like": row("full_like", "x value", "dtype"),
    "full_with_tensor": row("full", "value shape", "dtype"),
    "gather": row("gather", "x index axis"),
    "gelu": row("gelu", "x", "approximate"),
    "hardsigmoid": row("hard_sigmoid", "x", "slope offset"),
    "hardswish": row("hard_swish", "x"),
    "layer_norm": row("layer_norm", "x weight bias", "epsilon axis=begin_norm_axis"),
    "leaky_relu": row("leaky_relu", "x", "slope=negative_slope"),
    "log_softmax": row("log_softmax", "x", "axis"),
    "matmul": row("matmul", "x y", "transpose_x transpose_y"),
    "max_pool2d_with_index": row("pool2d", "x", f"{POOL} kernel=kernel_size"),
    "nearest_interp": row("resize", "x size sizes factor", RESIZE),
    "pad": row("pad", "x value", "paddings"),
    "pad3d": row("pad3d", "x paddings", "mode value=pad_value"),
    "pool2d": row("pool2d", "x kernel", f"{POOL} kind=pooling_type"),
    "pow": row("power", "x", "y"),
    "prelu": row("prelu", "x alpha"),
    "relu6": row("relu6", "x"),
    "reshape": row("reshape", "x shape"),
    "rnn": row("rnn", "x state weights lengths dropout_state", RNN, "0 2"),
    "scale": row("scale", "x factor", "bias after=bias_after_scale"),
    "shape": row("shape", "x"),
    "shape64": row("shape", "x"),
    "silu": row("swish", "x"),
    "slice": row("slice", "x starts ends", "axes squeezed=decrease_axis"),
    "softmax": row("softmax", "x", "axis"),
    "softplus": row("softplus", "x", "beta threshold"),
    "split": row("split", "x sizes axis"),
    "split_with_num": row("split", "x axis", "parts=num"),
    "squeeze": row("squeeze", "x axes"),
    "stack": row("stack", "x", "axis"),
    "strided_slice": row("slice", "x starts ends steps", "axes"),
    "swish": row("swish", "x"),
    "tile": row("tile", "x repeats"),
    "transpose": row("transpose", "x", "axes=perm"),
    "unbind": row("unbind", "x", "axis"),
    "unsqueeze": row("unsqueeze", "x axes"),
    "unstack": row("unbind", "x", "axis"),
    "where": row("where", "condition x y"),
}  # fmt: skip

# Operators of Paddle 3 that only make lists of values, or take them apart.
PIR_LISTS = frozenset({"builtin.combine", "builtin.split"})

# Attributes that change what an operator computes, and what they must say for the tables to be right.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "data_format": ("NCHW", "AnyLayout", "NCDHW", ""),
    "data_layout": ("NCHW", "AnyLayout", ""),
    "fuse_activation": ("",),
    "fuse_brelu": (False,),
    "fuse_relu": (False,),
    "fuse_residual_connection": (False,),
    "fuse_with_relu": (False,),
    **{f"fused_{what}_{which}": ([],) for what in ("reshape", "transpose") for which in ("X", "Y", "Out")},
    "trainable_statistics": (False,),
}


# ---- applying them --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spelled:
    """A program in our spelling, not refined yet.

    Attributes:
        inputs: name → shape.
        outputs: what the network returns.
        nodes: rows applied; what has no row is of a type that begins with `UNKNOWN`.
        shapes: value → shape, as far as the program tells it.
    """

    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    nodes: list[Node]
    shapes: dict[str, tuple[int, ...]]


def unlisted(program: Program) -> Counter[str]:
    """The operators of a program, in whatever block, that no row is for, by type; such a program is not run."""
    named = [(each, _plain_type(each)) for each in (*program.operators, *program.inner)]
    return Counter(name for each, name in named if not _is_listed(each, program.pir))


def _is_listed(each: Operator, pir: bool) -> bool:
    if each.type in FEEDS | FETCHES:
        return each.type.startswith("pd_op.") == pir
    if pir:
        return each.type in PIR_LISTS or (each.type.startswith("pd_op.") and _plain_type(each) in PIR)
    return each.type in LEGACY


def spell(program: Program) -> Spelled:
    """The rows of the program's dialect applied to its operators."""
    return _spell_pir(program) if program.pir else _spell_legacy(program)


def _spell_legacy(program: Program) -> Spelled:
    """Rows of the legacy table applied. A variable that is written again gets a name of its own each time."""
    shapes = {name: each.shape for name, each in program.variables.items() if each.shape is not None}
    current = {name: name for name in (*program.feeds, *(each.name for each in program.parameters))}
    nodes: list[Node] = []

    def defined(name: str) -> str:
        fresh = name if name not in current else f"{name}@{len(nodes)}"
        current[name] = fresh
        if name in shapes:
            shapes[fresh] = shapes[name]
        return fresh

    for each in program.operators:
        if each.type in FEEDS | FETCHES:
            continue
        entry = LEGACY.get(each.type, _unknown(each))
        inputs = {}
        for ours, theirs in entry.inputs.items():
            filled = next((each.inputs[slot] for slot in theirs if each.inputs.get(slot)), ())
            if filled:
                inputs[ours] = tuple(current.get(name, name) for name in filled)
        outputs = tuple(defined(name) for slot in entry.outputs for name in each.outputs.get(slot, ()))
        for slot in each.outputs.keys() - set(entry.outputs):
            for name in set(each.outputs[slot]).difference(_operands(each)):
                defined(name)  # a by-product, which nothing may read
        read = {slot for alternatives in entry.inputs.values() for slot in alternatives}
        nodes.append(_node(entry, each, inputs, outputs, read))
    return Spelled(
        inputs={name: shapes.get(name, ()) for name in program.feeds},
        outputs=tuple(current.get(name, name) for name in program.fetches),
        nodes=nodes,
        shapes=shapes,
    )


def _spell_pir(program: Program) -> Spelled:
    """Rows of the PIR table applied. Lists of values, which PIR combines and splits explicitly, are resolved."""
    shapes = {name: each.shape for name, each in program.variables.items() if each.shape is not None}
    lists: dict[str, tuple[str, ...]] = {}
    for each in program.operators:
        if each.type == "builtin.combine":
            lists[_results(each)[0]] = _operands(each)
        elif each.type == "builtin.split":
            lists[_operands(each)[0]] = _results(each)
    nodes = []
    for each in program.operators:
        if each.type in PIR_LISTS | FEEDS | FETCHES:
            continue
        entry = PIR.get(_plain_type(each), _unknown(each))
        operands = [lists.get(value, (value,)) if value else () for value in _operands(each)]
        results = [lists.get(value, (value,)) for value in _results(each)]
        inputs = {slot: values for slot, values in zip(entry.inputs, operands, strict=False) if values}
        inputs.pop(OVERWRITTEN, None)
        wanted = [values for place, values in enumerate(results) if str(place) in entry.outputs]
        outputs = tuple(value for values in wanted for value in values)
        nodes.append(_node(entry, each, inputs, outputs, set(map(str, range(len(entry.inputs))))))
    return Spelled(
        inputs={name: shapes.get(name, ()) for name in program.feeds},
        outputs=program.fetches,
        nodes=nodes,
        shapes=shapes,
    )


def _unknown(each: Operator) -> Row:
    """A row for an operator that has none: it is passed on, to be told of."""
    slots: dict[str, tuple[str, ...]] = {slot: (slot,) for slot in each.inputs}
    return Row(UNKNOWN + _plain_type(each), slots, {}, tuple(each.outputs))


def _plain_type(each: Operator) -> str:
    """An operator's type without the dialect's prefix, and without the mark of those that work in place."""
    return each.type.removeprefix("pd_op.").removesuffix("_")


def _operands(each: Operator) -> tuple[str, ...]:
    return tuple(name for names in each.inputs.values() for name in names)


def _results(each: Operator) -> tuple[str, ...]:
    return tuple(name for names in each.outputs.values() for name in names)


def _node(
    entry: Row, each: Operator, inputs: dict[str, tuple[str, ...]], outputs: tuple[str, ...], read: set[str]
) -> Node:
    if odd := _oddity(each, read):
        return Node(f"{UNKNOWN}{_plain_type(each)} with {odd}", inputs, outputs, {})
    attributes = {
        ours: each.attributes[theirs] for ours, theirs in entry.attributes.items() if theirs in each.attributes
    }
    return Node(entry.type, inputs, outputs, attributes)


def _oddity(each: Operator, read: set[str]) -> str | None:
    """What an operator has that changes what it computes and that its row does not know of, if anything.

    Args:
        each: the operator.
        read: the slots that its row names.
    """
    for attribute, allowed in NEUTRAL.items():
        value = each.attributes.get(attribute, allowed[0])
        if value not in allowed:
            return f"{attribute}={value!s:.60}"
    return next(
        (f"operand {slot:.60}" for slot, values in each.inputs.items() if any(values) and slot not in read), None
    )
