"""Boxes cut out of an image."""

from __future__ import annotations

import numpy as np

from paddle2torch.converter.ocr.extras import opencv

TALL = 1.5  # height over width from which a line is taken to run downwards


def cut_out(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A box straightened; one much taller than wide is turned a quarter to the left, so that its text lies.

    Args:
        image: uint8 (H, W, 3).
        box: (4, 2), x and y clockwise from the top left.

    Returns:
        uint8 (height, width, 3), the longer of the box's opposite sides each.

    Raises:
        MissingPackageError: OpenCV is not installed.
    """
    cv2 = opencv()
    corners = box.astype(np.float32)
    width, height = sides(corners)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    crop = cv2.warpPerspective(
        image,
        cv2.getPerspectiveTransform(corners, target),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(np.rot90(crop)) if height / width >= TALL else crop


def sides(box: np.ndarray) -> tuple[int, int]:
    """Width and height of a box: the longer of two opposite sides, in whole pixels, cut off."""
    top, right, bottom, left = (np.linalg.norm(box[i] - box[i - 3]) for i in range(4))
    return int(max(top, bottom)), int(max(left, right))
