"""Writes tests/graph_cases.tar.xz: one small program per operator, as Paddle saves it, with what Paddle computes.

The tests of `converter.graph` read it, so that they need no Paddle. Run it once with each generation of Paddle, in
environments of their own:

    python scripts/make_graph_cases.py            PaddlePaddle 2.6 with NumPy 1.26: the `.pdmodel` half
    python scripts/make_graph_cases.py            PaddlePaddle 3.x: the `inference.json` half

Each run replaces its own half and keeps the other. Numbers are small multiples of 1/8, drawn from the case's name.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

import graph_networks

ARCHIVE = Path(__file__).resolve().parent.parent / "tests" / "graph_cases.tar.xz"
DIALECT, PROGRAM = ("pir", "inference.json") if paddle.__version__[0] >= "3" else ("legacy", "inference.pdmodel")

Shape = tuple[int, ...]


@dataclass
class Case:
    """A program of a few operators.

    Attributes:
        build: makes the layer, or is the function itself.
        shapes: of the inputs, one tuple of shapes per call; sizes that differ between calls are dynamic.
        low, high: bounds of the inputs.
        dtype: of the inputs.
    """

    build: Callable[..., Any]
    shapes: list[tuple[Shape, ...]]
    low: float = -3.0
    high: float = 3.0
    dtype: str = "float32"


class Function(nn.Layer):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any, y: Any = None) -> Any:
        return self.function(x) if y is None else self.function(x, y)


class Scaled(nn.Layer):
    """A parameter used in arithmetic, as PP-OCRv4's affine layers have it."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.scale = self.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter(shape, default_initializer=nn.initializer.Constant(0.0), is_bias=True)

    def forward(self, x: Any) -> Any:
        return x * self.scale + self.bias


class Recurrent(nn.Layer):
    """An LSTM from given or from zero states; its last states too."""

    def __init__(self, states: bool = False, **arguments: Any) -> None:
        super().__init__()
        self.states = states
        self.lstm = nn.LSTM(5, 3, **arguments)

    def forward(self, x: Any, first_hidden: Any = None, first_cell: Any = None) -> Any:
        out, (hidden, cell) = self.lstm(x, (first_hidden, first_cell) if self.states else None)
        return (out, hidden, cell) if self.states else out


def repeated(layer: nn.Layer) -> nn.Layer:
    """A layer used twice, so that its parameters are shared."""
    container = Function(lambda x: layer(layer(x)))
    container.inner = layer
    return container


def dynamic_reshape(x: Any) -> Any:
    n, c, h, w = paddle.shape(x)
    return x.reshape([n, c, h * w]).transpose([0, 2, 1])


def half_size(x: Any) -> Any:
    sizes = paddle.shape(x)
    return F.interpolate(x, size=[sizes[2] // 2 + 1, sizes[3] * 2], mode="nearest")


def attention(x: Any) -> Any:
    n, t = paddle.shape(x)[0], paddle.shape(x)[1]
    q, k, v = x.reshape([n, t, 3, 2, 4]).transpose([2, 0, 3, 1, 4])
    weights = F.softmax((q * 0.5).matmul(k.transpose([0, 1, 3, 2])), axis=-1)
    return weights.matmul(v).transpose([0, 2, 1, 3]).reshape([n, t, 8])


IMAGE: list[tuple[Shape, ...]] = [((2, 3, 7, 9),), ((1, 3, 6, 5),)]
SEQUENCE: list[tuple[Shape, ...]] = [((2, 4, 6),), ((1, 3, 6),)]
PAIR: list[tuple[Shape, ...]] = [((2, 3, 4, 5), (2, 3, 4, 5)), ((1, 3, 4, 2), (1, 3, 4, 2))]
ANY: list[tuple[Shape, ...]] = [((2, 3, 5),)]


def unary(function: Callable[..., Any], **bounds: Any) -> Case:
    return Case(lambda: function, ANY, **bounds)


def image(build: Callable[[], Any]) -> Case:
    return Case(build, IMAGE)


def function(f: Callable[..., Any], shapes: list[tuple[Shape, ...]] = IMAGE, **bounds: Any) -> Case:
    return Case(lambda: f, shapes, **bounds)


CASES: dict[str, Case] = {
    # convolutions
    "conv2d": image(lambda: nn.Conv2D(3, 4, 3, bias_attr=False)),
    "conv2d_bias": image(lambda: nn.Conv2D(3, 4, (3, 2), stride=(2, 1), padding=(1, 0))),
    "conv2d_dilated": image(lambda: nn.Conv2D(3, 2, 2, dilation=(2, 3), bias_attr=False)),
    "conv2d_groups": image(lambda: nn.Conv2D(3, 6, 3, padding=1, groups=3)),
    "conv2d_depthwise": image(lambda: nn.Conv2D(3, 3, 3, padding=1, groups=3, bias_attr=False)),
    "conv2d_same": image(lambda: nn.Conv2D(3, 2, (3, 2), padding="SAME")),
    "conv2d_same_strided": image(lambda: nn.Conv2D(3, 2, (3, 2), stride=2, padding="SAME")),
    "conv2d_valid": image(lambda: nn.Conv2D(3, 2, 3, padding="VALID")),
    "conv2d_uneven": image(lambda: nn.Conv2D(3, 2, 3, padding=[1, 0, 2, 1])),
    "conv2d_twice": image(lambda: repeated(nn.Conv2D(3, 3, 3, padding=1))),
    "conv2d_transpose": image(lambda: nn.Conv2DTranspose(3, 4, 2, stride=2)),
    "conv2d_transpose_options": image(
        lambda: nn.Conv2DTranspose(3, 3, 3, stride=2, padding=1, output_padding=1, groups=3, bias_attr=False)
    ),
    # normalisation
    "batch_norm": image(lambda: nn.BatchNorm2D(3)),
    "batch_norm_epsilon": image(lambda: nn.BatchNorm2D(3, epsilon=1e-3)),
    "layer_norm": Case(lambda: nn.LayerNorm(6, epsilon=1e-6), SEQUENCE),
    "layer_norm_two_axes": Case(lambda: nn.LayerNorm([3, 5]), [((2, 3, 5),)]),
    "layer_norm_plain": Case(lambda: nn.LayerNorm(6, weight_attr=False, bias_attr=False), SEQUENCE),
    # linear layers
    "linear": Case(lambda: nn.Linear(6, 4), SEQUENCE),
    "linear_square": Case(lambda: nn.Linear(6, 6, bias_attr=False), SEQUENCE),
    "affine": image(lambda: Scaled([1])),
    "affine_channels": image(lambda: Scaled([3, 1, 1])),
    # recurrent layers
    "lstm": Case(
        lambda: Recurrent(num_layers=2, direction="bidirectional"), [((2, 4, 5),), ((3, 6, 5),)], -1.0, 1.0
    ),
    "lstm_forward": Case(lambda: Recurrent(num_layers=1), [((2, 4, 5),), ((1, 3, 5),)], -1.0, 1.0),
    "lstm_states": Case(
        lambda: Recurrent(states=True, num_layers=2), [((2, 4, 5), (2, 2, 3), (2, 2, 3))], -1.0, 1.0
    ),
    # pooling
    "max_pool": function(lambda x: F.max_pool2d(x, 3, 2, 1)),
    "max_pool_ceil": function(lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True)),
    "max_pool_oblong": function(lambda x: F.max_pool2d(x, (2, 1), (1, 2))),
    "max_pool_uneven": function(lambda x: F.max_pool2d(x, 3, 2, [1, 0, 0, 1])),
    "max_pool_same": function(lambda x: F.max_pool2d(x, 2, 1, "SAME", ceil_mode=True)),
    "max_pool_same_strided": function(lambda x: F.max_pool2d(x, 3, 2, "SAME")),
    "avg_pool": function(lambda x: F.avg_pool2d(x, 2, 2)),
    "avg_pool_exclusive": function(lambda x: F.avg_pool2d(x, 3, 2, 1)),
    "avg_pool_inclusive": function(lambda x: F.avg_pool2d(x, 3, 2, 1, exclusive=False)),
    "avg_pool_ceil": function(lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True)),
    "avg_pool_ceil_inclusive": function(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, exclusive=False)),
    "avg_pool_uneven": function(lambda x: F.avg_pool2d(x, 3, 2, [1, 0, 0, 1])),
    "avg_pool_uneven_inclusive": function(lambda x: F.avg_pool2d(x, 3, 2, [1, 0, 0, 1], exclusive=False)),
    "avg_pool_same": function(lambda x: F.avg_pool2d(x, 3, 2, "SAME")),
    "adaptive_avg_pool": function(lambda x: F.adaptive_avg_pool2d(x, 1)),
    "adaptive_avg_pool_oblong": function(lambda x: F.adaptive_avg_pool2d(x, (2, 3))),
    "adaptive_max_pool": function(lambda x: F.adaptive_max_pool2d(x, (3, 2))),
    # resizing and padding
    "nearest": function(lambda x: F.interpolate(x, scale_factor=2, mode="nearest")),
    "nearest_oblong": function(lambda x: F.interpolate(x, scale_factor=[1.5, 3.0], mode="nearest")),
    "nearest_size": function(lambda x: F.interpolate(x, size=[5, 11], mode="nearest")),
    "nearest_dynamic": function(half_size),
    "bilinear": function(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "bilinear_corners": function(lambda x: F.interpolate(x, size=[5, 11], mode="bilinear", align_corners=True)),
    "bilinear_like": function(
        lambda x, y: F.interpolate(x, size=paddle.shape(y)[2:], mode="bilinear"),
        [((2, 3, 4, 5), (2, 1, 7, 9)), ((1, 3, 4, 5), (1, 1, 3, 8))],
    ),
    "bicubic": function(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    "pad": function(lambda x: F.pad(x, [1, 2, 0, 3])),
    "pad_value": function(lambda x: F.pad(x, [0, 1, 0, 1], value=0.5)),
    "pad_reflect": function(lambda x: F.pad(x, [1, 2, 0, 3], mode="reflect")),
    "pad_replicate": function(lambda x: F.pad(x, [1, 2, 0, 3], mode="replicate")),
    "pad_all_axes": function(lambda x: F.pad(x, [0, 0, 1, 0, 0, 2], value=0.25), ANY),
    # activations
    "relu": unary(F.relu),
    "relu6": unary(lambda x: F.relu6(x * 4)),
    "leaky_relu": unary(lambda x: F.leaky_relu(x, 0.125)),
    "elu": unary(lambda x: F.elu(x, 0.75)),
    "prelu": image(lambda: nn.PReLU(3)),
    "gelu": unary(F.gelu),
    "gelu_tanh": unary(lambda x: F.gelu(x, approximate=True)),
    "hard_swish": unary(lambda x: F.hardswish(x * 2)),
    "hard_sigmoid": unary(lambda x: F.hardsigmoid(x * 2)),
    "hard_sigmoid_slope": unary(lambda x: F.hardsigmoid(x * 2, slope=0.2, offset=0.5)),
    "swish": unary(F.swish),
    "silu": unary(F.silu),
    "mish": unary(F.mish),
    "sigmoid": unary(F.sigmoid),
    "log_sigmoid": unary(F.log_sigmoid),
    "softplus": unary(lambda x: F.softplus(x, 2.0, 4.0)),
    "softsign": unary(F.softsign),
    "softmax": function(lambda x: F.softmax(x, axis=1)),
    "softmax_last": unary(F.softmax),
    "log_softmax": unary(F.log_softmax),
    "clip": unary(lambda x: paddle.clip(x, -0.5, 1.25)),
    "clip_below": unary(lambda x: paddle.clip(x, min=0.25)),
    "dropout": unary(lambda x: F.dropout(x, 0.25, training=False)),
    "dropout_downscale": unary(lambda x: F.dropout(x, 0.25, training=False, mode="downscale_in_infer")),
    # arithmetic
    "abs": unary(paddle.abs),
    "ceil": unary(paddle.ceil),
    "cos": unary(paddle.cos),
    "erf": unary(paddle.erf),
    "exp": unary(paddle.exp),
    "floor": unary(paddle.floor),
    "log": unary(paddle.log, low=0.125),
    "reciprocal": unary(paddle.reciprocal, low=0.125),
    "round": unary(lambda x: paddle.round(x * 1.3)),
    "rsqrt": unary(paddle.rsqrt, low=0.125),
    "sign": unary(paddle.sign),
    "sin": unary(paddle.sin),
    "sqrt": unary(paddle.sqrt, low=0.125),
    "square": unary(paddle.square),
    "tanh": unary(paddle.tanh),
    "pow": unary(lambda x: paddle.pow(x, 2.0)),
    "scale": unary(lambda x: paddle.scale(x, 2.5, 0.5)),
    "scale_bias_first": unary(lambda x: paddle.scale(x, 2.5, 0.5, bias_after_scale=False)),
    "scale_integers": unary(lambda x: paddle.scale(x, 2, 3), dtype="int64"),
    "add": function(lambda x, y: x + y, PAIR),
    "subtract": function(lambda x, y: x - y, PAIR),
    "multiply": function(lambda x, y: x * y, PAIR),
    "divide": function(lambda x, y: x / y, PAIR, low=0.5),
    "maximum": function(paddle.maximum, PAIR),
    "minimum": function(paddle.minimum, PAIR),
    "power": function(paddle.pow, PAIR, low=0.5),
    "floor_divide": function(lambda x, y: x // y, PAIR, low=1, high=7, dtype="int64"),
    "remainder": function(lambda x, y: x % y, PAIR, low=1, high=7, dtype="int64"),
    "add_broadcast": function(lambda x, y: x + y, [((2, 3, 4, 5), (3, 1, 5)), ((1, 3, 4, 2), (3, 1, 2))]),
    "add_shorter_first": function(lambda x, y: x + y, [((3, 1), (2, 3, 5)), ((3, 1), (1, 3, 2))]),
    "add_n": function(lambda x, y: paddle.add_n([x, y, x]), PAIR),
    "compare": function(
        lambda x, y: [
            paddle.cast(each, "float32")
            for each in (x == y, x != y, x < y, x <= y, x > y, x >= y, paddle.logical_and(x < 0, y < 0),
                         paddle.logical_or(x < 0, y < 0), paddle.logical_not(x < 0))
        ],
        [((4, 5), (4, 5))], low=-1.0, high=1.0,
    ),
    "where": function(lambda x, y: paddle.where(x > y, x, y * 2), PAIR),
    "cast": unary(lambda x: paddle.cast(paddle.cast(x, "int32"), "float32") * 2),
    "matmul": function(paddle.matmul, [((2, 3, 4), (2, 4, 5)), ((1, 2, 4), (1, 4, 3))]),
    "matmul_transposed": function(
        lambda x, y: paddle.matmul(x, y, transpose_x=True, transpose_y=True), [((2, 4, 3), (2, 5, 4))]
    ),
    "mean": function(lambda x: paddle.mean(x, axis=[2, 3], keepdim=True)),
    "mean_all": unary(paddle.mean),
    "sum": function(lambda x: paddle.sum(x, axis=1)),
    "max": function(lambda x: paddle.max(x, axis=[1, -1])),
    "min": function(lambda x: paddle.min(x, axis=-1, keepdim=True)),
    "prod": unary(lambda x: paddle.prod(x, axis=[0, 2])),
    "argmax": function(lambda x: paddle.argmax(x, axis=1)),
    "argmax_keepdim": function(lambda x: paddle.argmax(x, axis=-1, keepdim=True, dtype="int32")),
    "argmax_flat": unary(paddle.argmax),
    # rearranging
    "reshape": function(lambda x: x.reshape([0, -1, 3]), [((2, 6, 5),), ((1, 6, 4),)]),
    "reshape_dynamic": function(dynamic_reshape),
    "reshape_by_tensor": function(
        lambda x, y: x.reshape(paddle.shape(y)), [((2, 6), (3, 4)), ((2, 4), (1, 8))]
    ),
    "attention": function(attention, [((2, 3, 24),), ((1, 5, 24),)]),
    "flatten": function(lambda x: paddle.flatten(x, 2, 3)),
    "squeeze": function(lambda x: paddle.squeeze(x, 2), [((2, 3, 1, 4),), ((1, 3, 1, 2),)]),
    "unsqueeze": function(lambda x: paddle.unsqueeze(x, [1, -1]), SEQUENCE),
    "transpose": function(lambda x: x.transpose([0, 3, 1, 2])),
    "concat": function(lambda x, y: paddle.concat([x, y, x], axis=1), PAIR),
    "stack": function(lambda x, y: paddle.stack([x, y], axis=-1), PAIR),
    "split": function(lambda x: paddle.split(x, 2, axis=1), [((2, 4, 5),), ((1, 4, 3),)]),
    "split_sizes": function(lambda x: paddle.split(x, [1, -1, 2], axis=-1), [((2, 4, 6),), ((1, 3, 6),)]),
    "chunk": function(lambda x: paddle.chunk(x, 3, axis=2)[1], SEQUENCE),
    "unbind": function(lambda x: paddle.unbind(x, axis=1), [((2, 3, 5),), ((1, 3, 2),)]),
    "unstack": function(lambda x: paddle.unstack(x, axis=1), [((2, 3, 5),), ((1, 3, 2),)]),
    "slice": function(lambda x: x[:, 1:, :-1, 2]),
    "slice_strided": function(lambda x: x[:, :, ::2, 1::3]),
    "slice_dynamic": function(
        lambda x, y: x[:, : paddle.shape(y)[1]], [((2, 6, 3), (2, 4)), ((1, 6, 3), (1, 2))]
    ),
    "expand": function(lambda x: paddle.expand(x, [-1, 4, 6]), [((2, 1, 6),), ((1, 1, 6),)]),
    "expand_like_batch": function(
        lambda x, y: paddle.expand(x, [paddle.shape(y)[0], 3, 5]), [((1, 3, 5), (2, 4)), ((1, 3, 5), (4, 4))]
    ),
    "tile": function(lambda x: paddle.tile(x, [1, 2, 3]), SEQUENCE),
    "gather": function(lambda x: paddle.gather(x, paddle.to_tensor([2, 0], dtype="int64"), axis=1), SEQUENCE),
    "flip": function(lambda x: paddle.flip(x, [1, 2]), SEQUENCE),
    # whole networks
    "mobile_detector": Case(graph_networks.mobile_detector, [((1, 3, 32, 64),), ((2, 3, 64, 32),)], -1.0, 1.0),
    "mobile_recogniser": Case(graph_networks.mobile_recogniser, [((2, 3, 24, 40),), ((1, 3, 24, 56),)], -1.0, 1.0),
    "server_recogniser": Case(graph_networks.server_recogniser, [((2, 3, 24, 20),), ((1, 3, 24, 28),)], -1.0, 1.0),
    # constants
    "full": unary(lambda x: x + paddle.full([3, 1], 1.5)),
    "full_dynamic": function(lambda x: paddle.ones([paddle.shape(x)[0], 2]) * 2.5, SEQUENCE),
    "full_like": unary(lambda x: paddle.full_like(x, 0.75) - x),
    "zeros_like": unary(lambda x: paddle.zeros_like(x) + x),
    "assign": unary(lambda x: paddle.assign(x) + 1),
    "assign_value": unary(lambda x: x + paddle.assign(np.array([[0.5], [1.0], [2.0]], "float32"))),
    "size_arithmetic": function(
        lambda x: x.reshape([-1, paddle.shape(x)[1] * 2, (paddle.shape(x)[2] + 1) // 2]), [((4, 3, 6),), ((2, 3, 6),)]
    ),
}  # fmt: skip

NEAREST = {"interp_method": "nearest"}

# What today's Paddle no longer writes but old files have: (operator, inputs by slot, outputs, attributes). A shape that
# is a list is a parameter's.
RAW: dict[str, tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any]]] = {
    "mul": ("mul", {"X": (2, 3, 4), "Y": [4, 5]}, ("Out",), {"x_num_col_dims": 2}),
    "mul_flattened": ("mul", {"X": (2, 3, 2, 2), "Y": [12, 5]}, ("Out",), {"x_num_col_dims": 1}),
    "matmul_alpha": ("matmul", {"X": (2, 3, 4), "Y": [4, 5]}, ("Out",), {"alpha": 0.5}),
    "matmul_flags": ("matmul", {"X": (2, 4, 3), "Y": (2, 5, 4)}, ("Out",), {"transpose_X": True, "transpose_Y": True}),
    "nearest_v1": ("nearest_interp", {"X": (2, 3, 4, 5)}, ("Out",), {**NEAREST, "scale": 2.0, "align_corners": False}),
    "nearest_v1_corners": ("nearest_interp", {"X": (2, 3, 4, 5)}, ("Out",), {**NEAREST, "out_h": 7, "out_w": 8}),
    "nearest_v1_one": ("nearest_interp", {"X": (2, 3, 4, 5)}, ("Out",), {**NEAREST, "out_h": 1, "out_w": 8}),
    "bilinear_v1": (
        "bilinear_interp", {"X": (2, 3, 4, 5)}, ("Out",), {"scale": 2.0, "align_corners": False, "align_mode": 0}
    ),
    "bilinear_v1_corners": ("bilinear_interp", {"X": (2, 3, 4, 5)}, ("Out",), {"out_h": 7, "out_w": 8}),
    "flatten_old": ("flatten2", {"X": (2, 3, 4)}, ("Out", "XShape"), {"axis": 1}),
    "transpose_old": ("transpose", {"X": (2, 3, 4)}, ("Out",), {"axis": [2, 0, 1]}),
    "reshape_old": ("reshape", {"X": (2, 3, 4)}, ("Out",), {"shape": [0, -1]}),
    "pad_old": ("pad", {"X": (2, 3, 4)}, ("Out",), {"paddings": [0, 0, 1, 2, 0, 1], "pad_value": 0.5}),
    "add_axis": ("elementwise_add", {"X": (2, 3, 4, 5), "Y": (3, 4)}, ("Out",), {"axis": 1}),
    "add_axis_ones": ("elementwise_add", {"X": (2, 3, 4, 5), "Y": (2, 1, 1)}, ("Out",), {"axis": 0}),
    "multiply_axis": ("elementwise_mul", {"X": (2, 3, 4), "Y": (2,)}, ("Out",), {"axis": 0}),
    "global_pool": (
        "pool2d", {"X": (2, 3, 4, 5)}, ("Out",), {"pooling_type": "avg", "ksize": [1, 1], "global_pooling": True}
    ),
    "swish_beta": ("swish", {"X": (2, 3, 5)}, ("Out",), {"beta": 1.5}),
    "full_batch": (
        "fill_constant_batch_size_like", {"Input": (4, 3)}, ("Out",),
        {"shape": [2, -1, 3], "value": 0.5, "dtype": 5, "input_dim_idx": 0, "output_dim_idx": 1},
    ),
    "mean_old": ("mean", {"X": (2, 3, 5)}, ("Out",), {}),
    "depthwise_transpose": (
        "depthwise_conv2d_transpose", {"Input": (2, 3, 4, 5), "Filter": [3, 1, 2, 2]}, ("Output",),
        {"strides": [2, 2], "paddings": [0, 0], "dilations": [1, 1], "groups": 3},
    ),
    "relu6_old": ("relu6", {"X": (2, 3, 5)}, ("Out",), {"threshold": 6.0}),
    "log_softmax_axis": ("log_softmax", {"X": (2, 3, 5)}, ("Out",), {"axis": 1}),
    "conv2d_old": (
        "conv2d", {"Input": (2, 3, 6, 5), "Filter": [4, 3, 3, 3], "Bias": [4]}, ("Output",),
        {"strides": [1, 1], "paddings": [1, 1], "dilations": [1, 1], "groups": 1},
    ),
}  # fmt: skip


def numbers(name: str, shape: Shape, low: float, high: float, dtype: str = "float32") -> np.ndarray:
    """Multiples of 1/8 (whole numbers for integers), owed to the name."""
    steps = 1 if "int" in dtype else 8
    drawn = np.random.default_rng(zlib.crc32(name.encode())).integers(int(low * steps), int(high * steps) + 1, shape)
    return (drawn / steps).astype(dtype)


def save_case(name: str, case: Case, folder: Path) -> dict[str, np.ndarray]:
    """Save a case's program, and return its inputs and outputs by file name."""
    built = case.build()
    layer = built if isinstance(built, nn.Layer) else Function(built)
    layer.eval()
    for key, tensor in layer.state_dict().items():
        positive = key.endswith("_variance")
        tensor.set_value(
            numbers(f"{name}.{key}", tuple(tensor.shape), 0.5 if positive else -1.0, 2.0 if positive else 1.0)
        )
    first = case.shapes[0]
    specs = [
        paddle.static.InputSpec(
            [
                size if all(shapes[k][axis] == size for shapes in case.shapes) else None
                for axis, size in enumerate(shape)
            ],
            case.dtype,
            f"x{k}",
        )
        for k, shape in enumerate(first)
    ]
    paddle.jit.save(layer, str(folder / "inference"), input_spec=specs)
    program = paddle.jit.load(str(folder / "inference"))
    arrays = {}
    for call, shapes in enumerate(case.shapes):
        inputs = [
            numbers(f"{name}.{call}.{k}", shape, case.low, case.high, case.dtype) for k, shape in enumerate(shapes)
        ]
        results = program(*[paddle.to_tensor(each) for each in inputs])
        results = results if isinstance(results, (list, tuple)) else [results]
        arrays |= {f"{call}.in{k}.npy": each for k, each in enumerate(inputs)}
        arrays |= {f"{call}.out{k}.npy": each.numpy() for k, each in enumerate(results)}
    return arrays


def save_raw(name: str, folder: Path) -> dict[str, np.ndarray]:
    """The same for a single operator, written as old versions did."""
    kind, slots, outputs, attributes = RAW[name]
    paddle.enable_static()
    main, start = paddle.static.Program(), paddle.static.Program()
    scope, executor = paddle.static.Scope(), paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(scope), paddle.static.program_guard(main, start), paddle.utils.unique_name.guard():
        block, feeds, inputs, arrays = main.global_block(), [], {}, {}
        for slot, shape in slots.items():
            if isinstance(shape, list):
                inputs[slot] = paddle.static.create_parameter(shape, "float32")
            else:
                inputs[slot] = paddle.static.data(f"x{len(feeds)}", shape)
                arrays[f"0.in{len(feeds)}.npy"] = numbers(f"{name}.{slot}", shape, -2.0, 2.0)
                feeds.append(inputs[slot])
        results = {slot: block.create_var(dtype="float32") for slot in outputs}
        block.append_op(type=kind, inputs=inputs, outputs=results, attrs=attributes)
        executor.run(start)
        for slot, shape in slots.items():
            if isinstance(shape, list):
                scope.find_var(inputs[slot].name).get_tensor().set(
                    numbers(f"{name}.{slot}", shape, -1.0, 1.0), paddle.CPUPlace()
                )
        paddle.static.save_inference_model(
            str(folder / "inference"), feeds, [results[outputs[0]]], executor, program=main
        )
        feed = {f"x{k}": arrays[f"0.in{k}.npy"] for k in range(len(feeds))}
        (arrays["0.out0.npy"],) = executor.run(main, feed, [results[outputs[0]]])
    paddle.disable_static()
    return arrays


def read_archive() -> dict[str, bytes]:
    if not ARCHIVE.exists():
        return {}
    with tarfile.open(ARCHIVE) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}


def write_archive(files: dict[str, bytes]) -> None:
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        # Programs next to programs and arrays next to arrays compress best.
        for name in sorted(files, key=lambda name: (name.rpartition("/")[2], name)):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            archive.addfile(entry, io.BytesIO(files[name]))


def without_stacks(program: bytes) -> bytes:
    """A program without the stack traces and places of the machine that made it."""
    if DIALECT == "pir":
        content = json.loads(program)
        for each in content["program"]["regions"][0]["blocks"][0]["ops"]:
            each["A"] = [entry for entry in each["A"] if not isinstance(entry, dict) or entry["N"] != "struct_name"]
        return json.dumps(content, separators=(",", ":")).encode()
    from paddle.base import framework

    message = framework.framework_pb2.ProgramDesc.FromString(program)
    for each in message.blocks[0].ops:
        kept = [entry for entry in each.attrs if not entry.name.startswith("op_")]
        del each.attrs[:]
        each.attrs.extend(kept)
    return message.SerializeToString()


def main() -> None:
    warnings.filterwarnings("ignore")  # about programs without parameters
    files = {name: data for name, data in read_archive().items() if not name.startswith(f"{DIALECT}/")}
    jobs: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
        name: lambda folder, name=name, case=case: save_case(name, case, folder) for name, case in CASES.items()
    }
    if DIALECT == "legacy":
        jobs |= {name: lambda folder, name=name: save_raw(name, folder) for name in RAW}
    for name, save in jobs.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            arrays = save(folder)
            files[f"{DIALECT}/{name}/{PROGRAM}"] = without_stacks((folder / PROGRAM).read_bytes())
            parameters = folder / "inference.pdiparams"
            if parameters.exists() and parameters.stat().st_size:
                files[f"{DIALECT}/{name}/{parameters.name}"] = parameters.read_bytes()
            for file, array in arrays.items():
                stream = io.BytesIO()
                np.save(stream, np.asarray(array, order="C"))
                files[f"{DIALECT}/{name}/{file}"] = stream.getvalue()
    write_archive(files)
    print(f"{ARCHIVE}: {len(jobs)} cases of {DIALECT}, {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
