"""Images to input arrays, as a model's preprocessing says; the arithmetic is that of PaddleOCR's predictors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from paddle2torch.architectures.records import Preprocessing, Size
from paddle2torch.converter.ocr.extras import opencv

WIDEST = 8192  # pixels; no line of text comes near, and a strip of one pixel's height does not fill the memory


def prepare(images: Sequence[np.ndarray], preprocessing: Preprocessing, width: int | None = None) -> np.ndarray:
    """The input array of a batch.

    Args:
        images: uint8 (H, W, 3) each, RGB; in mode "multiple" all of one size.
        preprocessing: how images become the input.
        width: of the batch, in place of what the preprocessing says (modes with a fixed height).

    Returns:
        float32 (N, 3, H, W).

    Raises:
        MissingPackageError: an image has to be resized, and OpenCV is not installed.
    """
    size = preprocessing.size
    if size.mode == "multiple":
        return np.stack([_normalise(_fit_multiple(image, size), preprocessing) for image in images])
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


def _fit_multiple(image: np.ndarray, size: Size) -> np.ndarray:
    multiple, limit = size.multiple or 1, size.limit_side or WIDEST
    ratio = min(1.0, limit / max(image.shape[:2]))
    # Cut to whole pixels before rounding to the multiple, and halves to the even one, as published.
    height, width = (max(round(int(side * ratio) / multiple) * multiple, multiple) for side in image.shape[:2])
    return resize(image, height, width)


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
