"""Images, networks and measures that the tests of reading share."""

from __future__ import annotations

import cv2
import numpy as np

from paddle2torch.architectures.records import Preprocessing, Size
from paddle2torch.reading import Network


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two convex quadrilaterals."""
    shared, _ = cv2.intersectConvexConvex(np.float32(box), np.float32(other))
    return shared / (cv2.contourArea(np.float32(box)) + cv2.contourArea(np.float32(other)) - shared)


# ---- a world of coloured bars: the detector marks what is not black, the recogniser names colours ----------------------

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "pink": (255, 0, 255),
}
LABELS = ["blank", *COLOURS]


def unscaled(size: Size) -> Preprocessing:
    """Pixels from 0 to 1, RGB."""
    return Preprocessing(size, "RGB", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


PAGE = unscaled(Size("multiple", multiple=32, limit_side=960))
LINE = unscaled(Size("height", 32, 64))
DIRECTION = unscaled(Size("height_padded", 48, 192))


def mark_bars(inputs: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) → map (N, 1, H, W)."""
    return (inputs.max(1, keepdims=True) > 0.5).astype(np.float32)


def name_colours(inputs: np.ndarray, certainty: float = 0.9) -> np.ndarray:
    """(N, 3, H, W) → probabilities (N, 1, classes) of the first colour from the left, in the middle of the height."""
    rows = np.round(inputs[:, :, inputs.shape[2] // 2])
    first = rows.max(1).argmax(1)
    colours = [tuple((255 * row[:, column]).astype(int)) for row, column in zip(rows, first, strict=True)]
    classes = [[(0, 0, 0), *COLOURS.values()].index(colour) for colour in colours]
    probabilities = np.full((len(inputs), 1, len(LABELS)), (1 - certainty) / (len(LABELS) - 1), np.float32)
    probabilities[range(len(inputs)), 0, classes] = certainty
    return probabilities


DETECTOR = Network("bars", "det", mark_bars, PAGE)
RECOGNISER = Network("colours", "rec", name_colours, LINE, LABELS)


def classifier(turned: float) -> Network:
    """One that is so sure of every line that it is upside down."""
    return Network(
        "angle", "cls", lambda inputs: np.float32([[1 - turned, turned]] * len(inputs)), DIRECTION, ["0", "180"]
    )


def bars(*rows: tuple[str, int]) -> np.ndarray:
    """A black image with a bar of each (colour, width), one below the other."""
    image = np.zeros((60 * len(rows) + 40, 640, 3), np.uint8)
    for index, (colour, width) in enumerate(rows):
        image[60 * index + 40 : 60 * index + 60, 100 : 100 + width] = COLOURS[colour]
    return image
