"""Weights and inputs that anybody can make again: drawn from names and shapes alone, the same bits everywhere.

Only what NumPy promises never to change is used: the raw words of the Philox generator, and exact arithmetic on them.
Magnitudes are chosen so that every layer's output varies from place to place and no activation is saturated, and so
that small things show: one channel in four of each batch norm, and what enters the layer norms, has a variance near
their epsilons.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping

import numpy as np

Shape = tuple[int, ...]

SMALL_CHANNEL, SMALL_VARIANCE = 4, 2.0**-10  # one channel in so many; its variance and squared gain, times this

# The last part of a name, and the bounds between which a batch norm's tensor is drawn.
NORM_BOUNDS = {"weight": (0.7, 1.2), "bias": (-0.3, 0.7), "_mean": (-0.3, 0.3), "_variance": (0.5, 1.5)}
BIAS_BOUNDS = (-0.2, 0.2)
SCALE_BOUNDS = (0.8, 1.4)  # of an affine layer
LSTM_SPREAD = 2.0
# (pattern of a name, factor); names in both layouts of a re-parameterised network. First the transformer: what its layer
# norms read, and all that is added to it, is made small, so that its variance is. The others keep the signal alive
# through narrow layers without activation, and within bounds where branches and residuals are summed and before a
# sigmoid.
FACTORS = (
    (r"encoder\.conv2\.norm\.(weight|bias)", 2.0**-7),
    (r"encoder\.(conv_reduce\.norm|local_conv\.1)\.(weight|bias)", 2.0**-7),
    (r"mixer\.proj\.(weight|bias)", 2.0**-7),
    (r"mlp\.fc2\.(weight|bias)", 2.0**-7),
    (r"expand_conv\.conv\.weight", 0.7),
    (r"blocks\.\d+\.bottleneck_conv\.bn\.weight", 1.8),
    (r"_(depthwise|pointwise)_conv\._batch_norm\.weight", 1.2),
    (r"linear_conv\.bn\.weight", 0.7),
    (r"bb_\d_\d\.conv[12]\._batch_norm\.weight", 0.6),
    (r"neck\.(in|p)\w*_conv\.", 0.5),
    (r"head\.binarize\.conv3\.weight", 0.25),
    (r"head\.fc\.weight", 0.4),
    # PPHGNet
    (r"layers\.\d\.conv1\.conv\.weight", 0.7),
    (r"neck\.incl\d\.[cvq]_layer_\dx\d\.weight", 0.4),
    (r"head\.cbn_layer\.last_1\.weight", 0.25),
    # PPLCNetV3
    (r"\.(conv_kxk\.\d+\.bn|conv_1x1\.bn|identity)\.(weight|bias)$", 0.4),
    # PPLCNetV4
    (r"token_mixer\.(dw_conv|rep_dw\.reparam_conv)\.weight", 0.7),
    (r"token_mixer\.rep_dw\.conv1\.weight", 0.3),
    (r"token_mixer\.rep_dw\.bn\.weight", 0.7),
    (r"token_mixer\.dw_conv\.bn\.weight", 1.2),
    (r"channel_mixer\.compress\.(bn\.)?weight", 0.65),
    (r"(origin_bn|dil_bn_k\d_\d)\.weight", 0.5),
    (r"lk_origin\.weight", 0.7),
    # PP-LCNet
    (r"^fc\.weight", 4.0),
)


def uniform(name: str, shape: Shape, low: float, high: float) -> np.ndarray:
    """Float32 numbers between two bounds, owed to the name."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(math.prod(shape))
    return (low + (high - low) * (words >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32).reshape(shape)


def weights(shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Every parameter of a Paddle network.

    Args:
        shapes: structured name → shape.

    Returns:
        Structured name → float32 array.
    """
    return {name: weight(name, shape, f"{name.rpartition('.')[0]}._mean" in shapes) for name, shape in shapes.items()}


def weight(name: str, shape: Shape, batch_norm: bool) -> np.ndarray:
    """One parameter.

    Args:
        name: its structured name.
        shape: in Paddle.
        batch_norm: whether it belongs to a batch norm.
    """
    leaf = name.rpartition(".")[2]
    if batch_norm or (leaf == "weight" and len(shape) == 1):
        array = uniform(name, shape, *NORM_BOUNDS[leaf])
    elif leaf == "scale":
        array = uniform(name, shape, *SCALE_BOUNDS)
    elif ".cell_" in name:
        array = uniform(name, shape, *_around_zero(LSTM_SPREAD / math.sqrt(shape[-1])))
    elif leaf == "bias":
        array = uniform(name, shape, *BIAS_BOUNDS)
    else:
        fan_in = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
        array = uniform(name, shape, *_around_zero(math.sqrt(2 / fan_in)))
    array *= np.float32(math.prod(factor for pattern, factor in FACTORS if re.search(pattern, name)))
    if batch_norm and leaf in ("weight", "_variance"):
        power = 0.5 if leaf == "weight" else 1.0
        array[1::SMALL_CHANNEL] *= np.float32(SMALL_VARIANCE**power)
    return array


def image(shape: Shape) -> np.ndarray:
    """A network's input, float32 between -2 and 2: patches, finer patches and noise, so that it has edges and plains.

    Args:
        shape: (N, 3, H, W).
    """
    total = np.zeros(shape, np.float64)
    for scale, share in ((8, 1.0), (4, 0.5), (1, 0.5)):
        coarse = (*shape[:2], -(-shape[2] // scale), -(-shape[3] // scale))
        patches = uniform(f"input, patches of {scale}", coarse, -share, share)
        total += patches.repeat(scale, 2).repeat(scale, 3)[:, :, : shape[2], : shape[3]]
    return total.astype(np.float32)


def _around_zero(deviation: float) -> tuple[float, float]:
    """Bounds of a uniform distribution of this standard deviation."""
    bound = deviation * math.sqrt(3)
    return -bound, bound
