"""Images of text, the same at every call: samples to run networks on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SEED = 20220428
PAPER, INK = (250, 248, 240), (20, 24, 60)
GRAIN = 8  # standard deviation, of 255


def render_line(text: str, height: int, width: int) -> np.ndarray:
    """A line of text that fills the image.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    font = ImageFont.load_default(size=height)
    left, top, right, bottom = font.getbbox(text)
    line = Image.new("RGB", (int(right - left) + height // 2, int(bottom - top) + height // 3), PAPER)
    ImageDraw.Draw(line).text((height // 4 - left, height // 6 - top), text, INK, font)
    return _photographed(line.resize((width, height), Image.Resampling.BICUBIC))


def render_page(lines: Sequence[str], height: int, width: int) -> np.ndarray:
    """Lines of text, each smaller than the one above it.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    top = height // 16
    for index, text in enumerate(lines):
        font = ImageFont.load_default(size=max(height // (11 + index), 10))
        draw.text((width // 20 + 4 * index, top), text, INK, font)
        top += int(font.getbbox(text)[3] * 1.5)
    return _photographed(page)


def _photographed(image: Image.Image) -> np.ndarray:
    """The image with uneven light and grain, as a camera would have it.

    Flat paper is also the one input on which Paddle itself is inaccurate: its average pooling adds up thousands of
    equal values in single precision, one after another, and all the roundings go the same way.
    """
    light = np.linspace(1.0, 0.72, image.width)[None, :, None] * np.linspace(1.0, 0.9, image.height)[:, None, None]
    grain = np.random.default_rng(SEED).normal(0, GRAIN, (image.height, image.width, 1))
    return np.clip(np.asarray(image) * light + grain, 0, 255).astype(np.uint8)
