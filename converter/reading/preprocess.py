"""Pictures to input arrays, as a model's preprocessing record says.

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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from converter.errors import SourceError


def load_picture(path: Path) -> np.ndarray:
    """Read a picture of any format that Pillow knows.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        SourceError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise SourceError(f"{path}: is not a picture that Pillow can read; give a PNG or JPEG file") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: cannot be read as a picture ({error}); check the path and the file") from error


def prepare(pictures: Sequence[np.ndarray], record: Mapping[str, Any], width: int | None = None) -> np.ndarray:
    """The input array of a batch.

    Args:
        pictures: uint8 (H, W, 3) each, RGB; in mode "multiple" all of one size.
        record: a preprocessing record.
        width: of the batch, in place of what the record says (modes with a fixed height).

    Returns:
        float32 (N, 3, H, W).
    """
    size = record["size"]
    if size["mode"] == "multiple":
        return np.stack([_normalise(_fit_multiple(picture, size), record) for picture in pictures])
    height = size["height"]
    wanted = [math.ceil(height * picture.shape[1] / picture.shape[0]) for picture in pictures]
    if width is None:
        width = max(size["width"], *wanted) if size["mode"] == "height" else size["width"]
    batch = np.zeros((len(pictures), 3, height, width), np.float32)
    for row, picture, own_width in zip(batch, pictures, wanted, strict=True):
        own_width = min(own_width, width)
        row[:, :, :own_width] = _normalise(resize(picture, height, own_width), record)
    return batch


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear without antialiasing, pixel centres at .5: what OpenCV's default does, which the models were trained on.

    Args:
        picture: uint8 (H, W, 3).

    Returns:
        uint8 (height, width, 3).
    """
    if picture.shape[:2] == (height, width):
        return picture
    top, bottom, down = _neighbours(picture.shape[0], height)
    left, right, across = _neighbours(picture.shape[1], width)
    rows = picture[top] * (1 - down)[:, None, None] + picture[bottom] * down[:, None, None]
    values = rows[:, left] * (1 - across)[None, :, None] + rows[:, right] * across[None, :, None]
    return np.rint(values).astype(np.uint8)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per new pixel: the two old pixels that it lies between, and the weight of the second."""
    position = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(position).astype(np.int64)
    return first, np.minimum(first + 1, old - 1), (position - first).astype(np.float32)


def _fit_multiple(picture: np.ndarray, size: Mapping[str, Any]) -> np.ndarray:
    ratio = min(1.0, size["limit_side"] / max(picture.shape[:2]))
    multiple = size["multiple"]
    height, width = (max(round(side * ratio / multiple) * multiple, multiple) for side in picture.shape[:2])
    return resize(picture, height, width)


def _normalise(picture: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """uint8 (H, W, 3) RGB to float32 (3, H, W) in the record's channel order."""
    if record["channel_order"] == "BGR":
        picture = picture[:, :, ::-1]
    mean, std = (np.asarray(record[key], np.float32) for key in ("mean", "std"))
    values = (picture.astype(np.float32) * np.float32(record["scale"]) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))
