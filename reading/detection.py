"""A detector's map to boxes: the post-processing of DB (https://arxiv.org/abs/1911.08947) as PaddleOCR publishes it.

The network marks the shrunken core of each line of text. Every connected core gets the smallest rectangle around it, is
kept where the map is high within it, and is grown back to the line. For curved text the core's outline takes the place
of the rectangle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from paddle2torch.architectures.records import BoxPostprocessing
from paddle2torch.converter.ocr.extras import clipper, opencv

SAME_ROW = 10  # pixels; boxes whose tops differ by less are read from left to right
MIN_SIDE = 3  # of a region in the map, in pixels; of a grown box two more, of a box in the image one more
DETAIL = 0.002  # of a region's outline: corners that move it by less of its length are left out

PUBLISHED = BoxPostprocessing()


def find_boxes(
    probabilities: np.ndarray, height: int, width: int, settings: BoxPostprocessing = PUBLISHED
) -> np.ndarray:
    """The boxes of one image, in reading order.

    Args:
        probabilities: float32 (H, W), a detector's map.
        height: of the image, which the boxes are scaled to.
        width: of the image.
        settings: thresholds; of whatever type they say boxes are, here they are rectangles.

    Returns:
        float32 (boxes, 4, 2): whole x and y inside the image, clockwise from the top left corner.

    Raises:
        MissingPackageError: OpenCV or pyclipper is not installed.
    """
    map_size, size = np.array(probabilities.shape[::-1], np.float32), np.array([width, height], np.float32)
    boxes = []
    for box in _map_boxes(probabilities, settings):
        # Clipped before the corners are named as well as after: that is what was published, and clipping moves corners.
        box = _name_corners(np.clip(np.round(box / map_size * size), 0, size))
        box = np.clip(box, 0, size - 1)
        if _shorter_side(box) > MIN_SIDE:
            boxes.append(box)
    return np.array(sort_boxes(boxes), np.float32).reshape(-1, 4, 2)


def find_outlines(
    probabilities: np.ndarray, height: int, width: int, settings: BoxPostprocessing = PUBLISHED
) -> list[np.ndarray]:
    """The outlines of lines that need not be straight, in reading order; arguments and errors as for `find_boxes`.

    Returns:
        float32 (corners, 2) each: whole x and y inside the image, from the topmost corner on.
    """
    map_size, size = np.array(probabilities.shape[::-1], np.float32), np.array([width, height], np.float32)
    scaled = [np.clip(np.round(each / map_size * size), 0, size - 1) for each in _outlines(probabilities, settings)]
    return sort_boxes([np.roll(outline, -outline[:, 1].argmin(), axis=0) for outline in scaled])


def box_around(outline: np.ndarray) -> np.ndarray:
    """The smallest rectangle around an outline.

    Args:
        outline: (corners, 2).

    Returns:
        float32 (4, 2), clockwise from the upper of its two left corners.
    """
    return _smallest_rectangle(outline.astype(np.int32))[0]


def sort_boxes(boxes: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Top to bottom by the first corner, and left to right where neighbours begin at nearly the same height.

    Args:
        boxes: (corners, 2) each, the top left corner first.
    """
    rows: list[np.ndarray] = []
    for box in sorted(boxes, key=lambda box: (box[0][1], box[0][0])):
        place = len(rows)
        while place and box[0][1] - rows[place - 1][0][1] < SAME_ROW and box[0][0] < rows[place - 1][0][0]:
            place -= 1
        rows.insert(place, box)
    return rows


def _regions(probabilities: np.ndarray, settings: BoxPostprocessing) -> Iterable[np.ndarray]:
    """The outlines of the connected cores, (points, 1, 2) each."""
    cv2 = opencv()
    mask = (probabilities > settings.thresh).astype(np.uint8)
    if settings.use_dilation:
        mask = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return contours[: settings.max_candidates]


def _map_boxes(probabilities: np.ndarray, settings: BoxPostprocessing) -> Iterator[np.ndarray]:
    """The grown boxes in the map's own pixels."""
    for contour in _regions(probabilities, settings):
        core, side = _smallest_rectangle(contour)
        if side < MIN_SIDE:
            continue
        region = core if settings.score_mode == "fast" else contour.reshape(-1, 2)
        if _mean_inside(probabilities, region) < settings.box_thresh:
            continue
        outline = unclip(core, settings.unclip_ratio)
        if outline is None:
            continue
        box, side = _smallest_rectangle(outline)
        if side >= MIN_SIDE + 2:
            yield box


def _outlines(probabilities: np.ndarray, settings: BoxPostprocessing) -> Iterator[np.ndarray]:
    """The grown outlines in the map's own pixels."""
    cv2 = opencv()
    for contour in _regions(probabilities, settings):
        core = cv2.approxPolyDP(contour, DETAIL * cv2.arcLength(contour, True), True).reshape(-1, 2)
        if len(core) < 4 or _mean_inside(probabilities, core) < settings.box_thresh:
            continue
        outline = unclip(core, settings.unclip_ratio)
        if outline is not None and _smallest_rectangle(outline)[1] >= MIN_SIDE + 2:
            yield outline.astype(np.float32)


def unclip(box: np.ndarray, ratio: float) -> np.ndarray | None:
    """The outline of all points nearer to the box than area × ratio / perimeter.

    Args:
        box: (corners, 2), an outline; fractions of pixels are cut off, as upstream does.
        ratio: 1.5 as published.

    Returns:
        int32 (points, 2); None for a box without area, or where the outline falls into several.
    """
    pyclipper = clipper()
    following = np.roll(box, -1, axis=0).astype(np.float64)
    area = abs((box[:, 0] * following[:, 1] - box[:, 1] * following[:, 0]).sum()) / 2
    perimeter = np.linalg.norm(following - box, axis=1).sum()
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(box, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    outlines = offset.Execute(area * ratio / perimeter)
    return np.array(outlines[0], np.int32) if len(outlines) == 1 else None


def _smallest_rectangle(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The rectangle of least area, turned if need be, clockwise from the upper of its two left corners; and its shorter
    side."""
    cv2 = opencv()
    rectangle = cv2.minAreaRect(points)
    corners = sorted(cv2.boxPoints(rectangle), key=lambda corner: corner[0])
    left, right = (sorted(pair, key=lambda corner: corner[1]) for pair in (corners[:2], corners[2:]))
    return np.stack([left[0], right[0], right[1], left[1]]), min(rectangle[1])


def _mean_inside(probabilities: np.ndarray, outline: np.ndarray) -> float:
    """The mean of the map within an outline."""
    cv2 = opencv()
    last = np.array(probabilities.shape[::-1]) - 1
    left, top = np.clip(np.floor(outline.min(0)), 0, last).astype(int)
    right, bottom = np.clip(np.ceil(outline.max(0)), 0, last).astype(int)
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(outline - np.array([left, top], np.float32)).astype(np.int32)], 1)
    return cv2.mean(probabilities[top : bottom + 1, left : right + 1], mask)[0]


def _name_corners(box: np.ndarray) -> np.ndarray:
    """Clockwise from the top left: least and greatest x + y, and of the other two the upper right one first."""
    first, third = box.sum(1).argmin(), box.sum(1).argmax()
    others = np.delete(box, (first, third), axis=0)
    slant = others[:, 1] - others[:, 0]
    return np.stack([box[first], others[slant.argmin()], box[third], others[slant.argmax()]])


def _shorter_side(box: np.ndarray) -> int:
    """In whole pixels, cut off."""
    return int(min(np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[0] - box[3])))
