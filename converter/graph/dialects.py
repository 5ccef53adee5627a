"""From what Paddle writes to the graph form: two dialects, one table each, and the same meaning given to both.

A row of a table says what an operator of that dialect is called here, which slots or operands it has, and which of its
attributes matter. `REFINE` then turns spelled-out operators into those of the vocabulary: Paddle's padding algorithms
into numbers, its many ways to give a size into one, and so on. What is in neither table, or has an attribute that none
of this can express, is listed in one error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.formats.pdmodel import ELEMENT_NAMES, Operator, Program
from converter.graph.form import Graph, Node, Parameter, UncoveredError, check_graph
from converter.graph.operators import UNARY, mistake, signature
from converter.graph.simplify import simplify

# How operators of Paddle 3's inference.json are called; `.pdmodel` operators have no such prefix.
PIR_PREFIXES = ("pd_op.", "builtin.")


class VariantError(Exception):
    """An operator of the table, used in a way that cannot be expressed; the text says what way."""


# ---- the tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """How one operator of a dialect is read.

    Attributes:
        type: what it is called here until it is refined.
        inputs: our slot → the dialect's slots, of which the first that is filled counts. In PIR operands have no
            names; there the order of our slots is theirs.
        attributes: our attribute → the dialect's.
        outputs: the dialect's slots or, in PIR, the places of those results that matter.
    """

    type: str
    inputs: dict[str, tuple[str, ...]]
    attributes: dict[str, str]
    outputs: tuple[str, ...]


def row(type_: str, inputs: str = "x=X", attributes: str = "", outputs: str = "Out") -> Row:
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
        for name in (
            "equal not_equal less_than less_equal greater_than greater_equal logical_and logical_or"
        ).split()
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

# `inference.json`: operands and results by their order, attributes by name.
PIR: Mapping[str, Row] = {
    **{name: row(name, "x") for name in PLAIN},
    **{ours: row(ours, "x y") for ours in BINARY.values() if ours != "power"},
    **{name: row(name, "x axes", REDUCE_PIR) for name in REDUCTIONS},
    "argmax": row("argmax", "x axis", "axis keepdim=keepdims flatten dtype"),
    "assign": row("assign", "x"),
    "assign_value": row("assign_value", "", "shape dtype values"),
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

# Slots that hold data: what is in them stays a value of the graph even where it is a constant.
DATA = frozenset("x y weight bias mean variance weights state lengths condition index alpha".split())


# ---- reading a program -------------------------------------------------------------------------------------------


def graph_from_program(program: Program, names: Mapping[str, str] | None = None, file: str = "the program") -> Graph:
    """The graph of a Paddle program, in either dialect.

    Args:
        program: as `read_pdmodel` or `read_pir` gives it.
        names: variable → structured name, as far as they are known.
        file: what to call the program in messages.

    Raises:
        UncoveredError: it has operators that the tables do not cover; all are listed, with counts.
        FormatError: it is inconsistent.
    """
    names = names or {}
    pir = any(each.type.startswith(PIR_PREFIXES) for each in program.operators)
    spelled = _spell_pir(program) if pir else _spell_legacy(program)
    live = _live(spelled.nodes, spelled.outputs)
    context = Context(spelled, _constants(live))
    nodes, uncovered = [], Counter[str]()
    for node in live:
        try:
            nodes += _refined(node, context)
        except VariantError as variant:
            uncovered[str(variant)] += 1
    if uncovered:
        raise UncoveredError(uncovered)
    parameters = {
        each.name: Parameter(names.get(each.name), each.shape or (), each.dtype or "float32")
        for each in program.parameters
    }
    graph = simplify(Graph(spelled.inputs, spelled.outputs, tuple(nodes), parameters), context.rank)
    check_graph(graph, file)
    return graph


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


UNKNOWN = "?"


def _spell_legacy(program: Program) -> Spelled:
    """Rows of the legacy table applied. A variable that is written again gets a name of its own each time."""
    shapes = {name: each.shape for name, each in program.variables.items() if each.shape is not None}
    current = {name: name for name in (*program.feeds, *(each.name for each in program.parameters))}
    nodes = []

    def defined(name: str) -> str:
        fresh = name if name not in current else f"{name}@{len(nodes)}"
        current[name] = fresh
        if name in shapes:
            shapes[fresh] = shapes[name]
        return fresh

    for each in program.operators:
        if each.type in ("feed", "fetch"):
            continue
        entry = LEGACY.get(each.type)
        if entry is None:
            inputs = {slot: tuple(current.get(name, name) for name in given) for slot, given in each.inputs.items()}
            outputs = tuple(defined(name) for given in each.outputs.values() for name in given)
            nodes.append(Node(UNKNOWN + each.type, inputs, outputs, {}))
            continue
        inputs = {}
        for ours, theirs in entry.inputs.items():
            filled = next((each.inputs[slot] for slot in theirs if each.inputs.get(slot)), ())
            if filled:
                inputs[ours] = tuple(current.get(name, name) for name in filled)
        outputs = tuple(defined(name) for slot in entry.outputs for name in each.outputs.get(slot, ()))
        nodes.append(_node(entry, each, inputs, outputs))
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
    passive = {"builtin.parameter", "builtin.combine", "builtin.split", "pd_op.data", "pd_op.feed", "pd_op.fetch"}
    nodes = []
    for each in program.operators:
        if each.type in passive:
            continue
        # What ends in an underscore works in place; values have names of their own all the same.
        name = each.type.removeprefix("pd_op.").rstrip("_")
        entry = PIR.get(name)
        operands = [lists.get(value, (value,)) if value else () for value in _operands(each)]
        results = [lists.get(value, (value,)) for value in _results(each)]
        if entry is None:
            inputs = {str(place): values for place, values in enumerate(operands)}
            nodes.append(Node(UNKNOWN + name, inputs, tuple(value for values in results for value in values), {}))
            continue
        inputs = {slot: values for slot, values in zip(entry.inputs, operands, strict=False) if values}
        places = [int(place) for place in entry.outputs if place.isdigit()] or [0]
        nodes.append(_node(entry, each, inputs, tuple(value for place in places for value in results[place])))
    return Spelled(
        inputs={name: shapes.get(name, ()) for name in program.feeds},
        outputs=program.fetches,
        nodes=nodes,
        shapes=shapes,
    )


def _operands(each: Operator) -> tuple[str, ...]:
    return tuple(name for names in each.inputs.values() for name in names)


def _results(each: Operator) -> tuple[str, ...]:
    return tuple(name for names in each.outputs.values() for name in names)


def _node(entry: Row, each: Operator, inputs: dict[str, tuple[str, ...]], outputs: tuple[str, ...]) -> Node:
    name = each.type.removeprefix("pd_op.").rstrip("_")
    for attribute, allowed in NEUTRAL.items():
        value = each.attributes.get(attribute, allowed[0])
        if value not in allowed:
            return Node(f"{UNKNOWN}{name} with {attribute}={value}", inputs, outputs, {})
    attributes = {ours: each.attributes[theirs] for ours, theirs in entry.attributes.items() if theirs in each.attributes}
    return Node(entry.type, inputs, outputs, attributes)


def _live(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """The nodes on which the outputs depend."""
    wanted, live = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.reads)
            live.append(node)
    return live[::-1]


def _constants(nodes: list[Node]) -> dict[str, Any]:
    """The values that are known beforehand: small integers and numbers, or lists of them."""
    constants = {}
    for node in nodes:
        given = node.attributes
        if node.type in ("full", "full_int_array", "assign_value") and not node.inputs:
            values = _given_values(given) if node.type != "full" else _number(given)
            sizes = given.get("shape", [len(values)] if isinstance(values, list) else [])
            if len(sizes) <= 1 and math.prod(sizes) <= 64:
                values = values if isinstance(values, list) else [values] * math.prod(sizes)
                constants[node.outputs[0]] = list(values) if sizes else values[0]
    return constants


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


# ---- refining ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Context:
    """What is known about the program around a node.

    Attributes:
        spelled: the program.
        constants: the values known beforehand.
    """

    spelled: Spelled
    constants: dict[str, Any]

    def shape(self, value: str) -> tuple[int, ...] | None:
        return self.spelled.shapes.get(value)

    def rank(self, value: str) -> int | None:
        sizes = self.shape(value)
        return None if sizes is None else len(sizes)

    def is_zero(self, value: str) -> bool:
        """Whether this is a constant of nothing but zeros."""
        makers = [node for node in self.spelled.nodes if value in node.outputs]
        if not makers or makers[0].type not in ("full", "full_batch"):
            return False
        filling = makers[0].inputs.get("value")
        known = self.constants.get(filling[0]) if filling else _number({**makers[0].attributes, "dtype": None})
        return known in (0, [0])


def _refined(node: Node, context: Context) -> list[Node]:
    """A spelled-out node as nodes of the vocabulary.

    Raises:
        VariantError: it cannot be expressed.
    """
    if node.type.startswith(UNKNOWN):
        raise VariantError(node.type.removeprefix(UNKNOWN))
    folded = _folded(node, context.constants)
    refine = REFINE.get(node.type)
    nodes = list(refine(folded, context)) if refine else [folded]
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
    padding = [0, 0]
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
    if context.rank(node.inputs["x"][0]) not in (None, 4):
        raise VariantError(f"batch_norm of {context.rank(node.inputs['x'][0])} axes")
    yield _with(node, epsilon=given["epsilon"], momentum=given["momentum"])


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
    yield _with(
        node,
        **{name: _list(given[name]) for name in ("starts", "ends") if name not in node.inputs},
        axes=list(given["axes"]),
        squeezed=list(given.get("squeezed") or []),
        **({"steps": list(steps)} if any(step != 1 for step in steps) else {}),
    )


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
    while len(pairs) > 1 and pairs[0] == [0, 0]:
        pairs.pop(0)
    value = float(_scalar(node.attributes.get("value", 0.0)))
    yield _with(node, inputs={"x": node.inputs["x"]}, padding=[n for pair in reversed(pairs) for n in pair], value=value)


def _pad3d(node: Node, _: Context) -> Iterator[Node]:
    yield _padded(node, _fixed(node, "paddings"))


def _fixed(node: Node, name: str) -> list[int]:
    if name in node.inputs:
        raise VariantError(f"{node.type} with computed {name}")
    return list(node.attributes[name])


def _padded(node: Node, padding: list[int]) -> Node:
    given = node.attributes
    return _with(
        node, "pad", padding=padding, mode=given.get("mode", "constant"), value=float(given.get("value", 0.0))
    )


def _full(node: Node, _: Context) -> Iterator[Node]:
    given = node.attributes
    attributes = {"dtype": _dtype(given.get("dtype", "float32"))}
    if "shape" not in node.inputs:
        attributes["shape"] = [int(_scalar(size)) for size in _list(given["shape"])]
    if "value" not in node.inputs:
        attributes["value"] = _number({**given, "value": _scalar(given.get("value", 0.0))})
    yield _with(node, **attributes)


def _full_int_array(node: Node, _: Context) -> Iterator[Node]:
    values = _given_values(node.attributes)
    yield _with(node, "constant", values=values, shape=[len(values)], dtype=_dtype(node.attributes.get("dtype", "int64")))


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
    **{name: _binary for name in BINARY.values()},
    **{name: _reduction for name in REDUCTIONS},
    **{name: _along for name in ("concat", "stack", "unbind", "softmax", "log_softmax")},
    **{name: _axes for name in ("squeeze", "unsqueeze", "transpose", "flip")},
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
