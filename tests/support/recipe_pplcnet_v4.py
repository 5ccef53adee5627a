"""The recipe for the PPLCNetV4 networks: recipe.py's, with factors for layers that only they have."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from . import recipe

# (pattern of a name, factor), in addition to those of recipe.py, for both layouts. The first make small what the layer
# norms read, so that their epsilons show. The others keep the signal within bounds where nothing is activated and
# where branches and residuals are summed.
FACTORS = (
    (r"encoder\.(conv_reduce\.norm|local_conv\.1)\.(weight|bias)", 2.0**-7),
    (r"token_mixer\.(dw_conv|rep_dw\.reparam_conv)\.weight", 0.7),
    (r"token_mixer\.rep_dw\.conv1\.weight", 0.3),
    (r"token_mixer\.rep_dw\.bn\.weight", 0.7),
    (r"token_mixer\.dw_conv\.bn\.weight", 1.2),
    (r"channel_mixer\.compress\.(bn\.)?weight", 0.65),
    (r"(origin_bn|dil_bn_k\d_\d)\.weight", 0.5),
    (r"lk_origin\.weight", 0.7),
    (r"^fc\.weight", 4.0),
    (r"neck\.incl\d\.[cvq]_layer_\dx\d\.weight", 0.4),
)


def weights(shapes: Mapping[str, recipe.Shape]) -> dict[str, np.ndarray]:
    """Every parameter of a Paddle network; see `recipe.weights`."""
    drawn = recipe.weights(shapes)
    for name, array in drawn.items():
        for pattern, factor in FACTORS:
            if re.search(pattern, name):
                array *= np.float32(factor)
    return drawn
