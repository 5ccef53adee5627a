"""Pictures to input arrays, as a model's preprocessing record says; the arithmetic is that of PaddleOCR's predictors.

A record is what a converted model's metadata holds under `preprocessing`:

    {"channel_order": "BGR", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "scale": 1/255, "size": {...}}

`size` has a `mode`:

    "height"         height fixed, aspect kept; a batch is as wide as `width` or its widest picture, zeros to the right
    "height_padded"  the same, but exactly `width` wide; a wider picture is squeezed
    "multiple"       the longer side at most `limit_side`, both sides rounded to a multiple of `multiple`
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddle2torch.converter.ocr.extras import opencv

WIDEST = 8192  # pixels; no line of text comes near, and a strip of one pixel's height does not fill the memory


def prepare(pictures: Sequence[np.ndarray], record: Mapping[str, Any], width: int | None = None) -> np.ndarray:
    """The input array of a batch.

    Args:
        pictures: uint8 (H, W, 3) each, RGB; in mode "multiple" all of one size.
        record: a preprocessing record.
        width: of the batch, in place of what the record says (modes with a fixed height).

    Returns:
        float32 (N, 3, H, W).

    Raises:
        MissingPackageError: a picture has to be resized, and OpenCV is not installed.
    """
    size = record["size"]
    if size["mode"] == "multiple":
        return np.stack([_normalise(_fit_multiple(picture, size), record) for picture in pictures])
    height = size["height"]
    ratios = [picture.shape[1] / picture.shape[0] for picture in pictures]
    if width is None:
        width = _batch_width(ratios, size)
    batch = np.zeros((len(pictures), 3, height, width), np.float32)
    for row, picture, ratio in zip(batch, pictures, ratios, strict=True):
        own_width = min(math.ceil(height * ratio), width)
        row[:, :, :own_width] = _normalise(resize(picture, height, own_width), record)
    return batch


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear without antialiasing, by OpenCV, as the models were trained on.

    Args:
        picture: uint8 (H, W, 3).

    Returns:
        uint8 (height, width, 3).

    Raises:
        MissingPackageError: OpenCV is not installed; a picture that has the size already does not need it.
    """
    if picture.shape[:2] == (height, width):
        return picture
    return opencv().resize(picture, (width, height))


def _batch_width(ratios: Sequence[float], size: Mapping[str, Any]) -> int:
    if size["mode"] == "height_padded":
        return size["width"]
    return min(int(size["height"] * max(size["width"] / size["height"], *ratios)), WIDEST)


def _fit_multiple(picture: np.ndarray, size: Mapping[str, Any]) -> np.ndarray:
    ratio = min(1.0, size["limit_side"] / max(picture.shape[:2]))
    multiple = size["multiple"]
    # Cut to whole pixels before rounding to the multiple, and halves to the even one, as published.
    height, width = (max(round(int(side * ratio) / multiple) * multiple, multiple) for side in picture.shape[:2])
    return resize(picture, height, width)


def _normalise(picture: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """uint8 (H, W, 3) RGB to float32 (3, H, W) in the record's channel order."""
    if record["channel_order"] == "BGR":
        picture = picture[:, :, ::-1]
    mean, std = (np.asarray(record[key], np.float32) for key in ("mean", "std"))
    values = (picture.astype(np.float32) * np.float32(record["scale"]) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))
