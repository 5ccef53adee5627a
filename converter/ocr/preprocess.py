"""Images to input arrays, as a model's preprocessing says; the arithmetic is that of PaddleOCR's predictors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from paddle2torch.architectures.records import Preprocessing, Size
from paddle2torch.converter.ocr.extras import opencv

WIDEST = 8192  # pixels; no line of text comes near, and a strip of one pixel's height does not fill the memory
# Upstream's pages: below the sum of both sides an image gets black margins, until no side is shorter than the second.
TINY, LEAST_SIDE = 64, 32


def prepare(images: Sequence[np.ndarray], preprocessing: Preprocessing, width: int | None = None) -> np.ndarray:
    """The input array of a batch.

    Args:
        images: uint8 (H, W, 3) each, RGB; in the modes of pages, "multiple" and those that begin so, all of one size.
        preprocessing: how images become the input.
        width: of the batch, in place of what the preprocessing says (modes with a fixed height).

    Returns:
        float32 (N, 3, H, W).

    Raises:
        MissingPackageError: an image has to be resized, and OpenCV is not installed.
    """
    size = preprocessing.size
    if size.mode in PAGES:
        pages = [pad_tiny(image) for image in images]
        return np.stack([_normalise(resize(page, *page_size(page, size)), preprocessing) for page in pages])
    if size.mode in FIXED:
        return np.stack([_normalise(FIXED[size.mode](image, size), preprocessing) for image in images])
    height, least = size.height or 0, size.width or 0
    ratios = [image.shape[1] / image.shape[0] for image in images]
    if width is None:
        width = least if size.mode == "height_padded" else min(int(height * max(least / height, *ratios)), WIDEST)
    batch = np.zeros((len(images), 3, height, width), np.float32)
    for row, image, ratio in zip(batch, images, ratios, strict=True):
        own_width = min(math.ceil(height * ratio), width)
        row[:, :, :own_width] = _normalise(resize(image, height, own_width), preprocessing)
    return batch


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear without antialiasing, by OpenCV, as the models were trained on.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        uint8 (height, width, 3).

    Raises:
        MissingPackageError: OpenCV is not installed; an image that has the size already does not need it.
    """
    if image.shape[:2] == (height, width):
        return image
    return opencv().resize(image, (width, height))


def pad_tiny(image: np.ndarray) -> np.ndarray:
    """A page with black to its right and below it, where it is too small for a detector; others as they are."""
    height, width = image.shape[:2]
    if height + width >= TINY:
        return image
    padded = np.zeros((max(height, LEAST_SIDE), max(width, LEAST_SIDE), 3), np.uint8)
    padded[:height, :width] = image
    return padded


def page_size(image: np.ndarray, size: Size) -> tuple[int, int]:
    """Height and width that a page comes to, in the modes of pages."""
    multiple = size.multiple or 1
    height, width = (max(side, multiple) for side in PAGES[size.mode](image.shape[0], image.shape[1], size, multiple))
    return height, width


# As published, sides are cut to whole pixels before they are rounded to a multiple, and halves go to the even one.


def _nearest(side: int, multiple: int) -> int:
    return round(side / multiple) * multiple


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _at_most(height: int, width: int, size: Size, multiple: int) -> tuple[int, int]:
    ratio = min(1.0, (size.limit_side or WIDEST) / max(height, width))
    return _nearest(int(height * ratio), multiple), _nearest(int(width * ratio), multiple)


def _at_least(height: int, width: int, size: Size, multiple: int) -> tuple[int, int]:
    short_side, long_side = size.short_side or 0, size.long_side or WIDEST
    ratio = max(1.0, short_side / min(height, width))
    height, width = int(height * ratio), int(width * ratio)
    if max(height, width) > long_side:
        ratio = long_side / max(height, width)
        height, width = int(height * ratio), int(width * ratio)
    return _nearest(height, multiple), _nearest(width, multiple)


def _long(height: int, width: int, size: Size, multiple: int) -> tuple[int, int]:
    ratio = (size.long_side or 0) / max(height, width)
    return _nearest(int(height * ratio), multiple), _nearest(int(width * ratio), multiple)


def _long_up(height: int, width: int, size: Size, multiple: int) -> tuple[int, int]:
    ratio = (size.long_side or 0) / max(height, width)
    return _up(int(height * ratio), multiple), _up(int(width * ratio), multiple)


def _fixed_height(height: int, width: int, size: Size, multiple: int) -> tuple[int, int]:
    fixed = size.height or 0
    return fixed, min(_up(math.ceil(width * fixed / height), multiple), _up(WIDEST, multiple))


# Modes of pages → height, width, size and multiple to height and width.
PAGES: dict[str, Callable[[int, int, Size, int], tuple[int, int]]] = {
    "multiple": _at_most,
    "multiple_at_least": _at_least,
    "multiple_long": _long,
    "multiple_long_up": _long_up,
    "multiple_height": _fixed_height,
}


def _stretch(image: np.ndarray, size: Size) -> np.ndarray:
    return resize(image, size.height or 0, size.width or 0)


def _crop(image: np.ndarray, size: Size) -> np.ndarray:
    ratio = (size.short_side or 0) / min(image.shape[:2])
    image = resize(image, *(round(side * ratio) for side in image.shape[:2]))
    height, width = size.height or 0, size.width or 0
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


# Modes in which every image comes to the same size, whatever its own.
FIXED = {"stretch": _stretch, "crop": _crop}


def _normalise(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 (H, W, 3) RGB to float32 (3, H, W) in the preprocessing's channel order."""
    if preprocessing.channel_order == "BGR":
        image = image[:, :, ::-1]
    mean, std = (np.asarray(each, np.float32) for each in (preprocessing.mean, preprocessing.std))
    values = (image.astype(np.float32) * np.float32(preprocessing.scale) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))
