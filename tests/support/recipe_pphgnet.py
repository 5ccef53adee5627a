"""The recipe for the PPHGNet networks: recipe.py's, with factors for layers that only they have."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from . import recipe

# (pattern of a name, factor), as in recipe.py: no name matches a pattern of both. They keep the signal alive where no
# activation follows a convolution, where three convolutions are summed, and before the sigmoid of the refined map.
FACTORS = (
    (r"layers\.\d\.conv1\.conv\.weight", 0.7),
    (r"neck\.incl\d\.[cvq]_layer_\dx\d\.weight", 0.4),
    (r"head\.cbn_layer\.last_1\.weight", 0.25),
)


def weights(shapes: Mapping[str, recipe.Shape]) -> dict[str, np.ndarray]:
    """Every parameter of a Paddle network; see `recipe.weights`."""
    drawn = recipe.weights(shapes)
    for name, array in drawn.items():
        for pattern, factor in FACTORS:
            if re.search(pattern, name):
                array *= np.float32(factor)
    return drawn
