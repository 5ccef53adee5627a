"""Inputs worth comparing on: rendered text, seeded noise, the user's own pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paddle2torch.architectures.records import Preprocessing
from paddle2torch.converter.ocr.images import load_picture
from paddle2torch.converter.ocr.preprocess import prepare

SEED = 20220428
LINES = ("Parity 2.6", "TORCH & 47", "37,50 EUR")
PAGE = (
    "Paddle and Torch read 1984",
    "Total 37,50 EUR (incl. 19%)",
    "The quick brown fox jumps",
    "over the lazy dog",
    "0123456789",
)
PAPER, INK = (250, 248, 240), (20, 24, 60)
GRAIN = 8  # standard deviation, of 255


@dataclass(frozen=True)
class Case:
    """One batch to run both frameworks on.

    Attributes:
        name: what to call it, for example "3 lines of text, 48 x 213".
        pictures: uint8 (H, W, 3) RGB each: the batch before preprocessing, for people to look at.
        array: float32 (N, 3, H, W), the input of both networks.
    """

    name: str
    pictures: tuple[np.ndarray, ...]
    array: np.ndarray


# Per task: (pictures in the batch, height or None for the record's own, width) of the two batches of text, and of the
# noise. Odd widths show where a stride or a pooling rounds the other way.
SHAPES: dict[str, tuple[tuple[int, int | None, int], ...]] = {
    "rec": ((1, None, 320), (3, None, 213), (2, None, 171)),
    "cls": ((2, None, 192), (3, None, 141), (2, None, 192)),
    "det": ((1, 320, 480), (2, 256, 352), (1, 160, 224)),
}


def default_cases(task: str, record: Preprocessing) -> list[Case]:
    """Rendered text at two batch sizes and two widths or sizes, and noise.

    Args:
        task: "det", "rec" or "cls".
        record: the model's preprocessing record.
    """
    *texts, _ = SHAPES[task]
    return [*(text_case(task, record, *shape) for shape in texts), noise_case(task, record)]


def image_cases(task: str, record: Preprocessing, images: Sequence[Path]) -> list[Case]:
    """The user's pictures, one batch each, and noise.

    Raises:
        SourceError: a file is missing or no picture.
    """
    pictures = [(path.name, load_picture(path)) for path in images]
    return [
        *(Case(name, (picture,), prepare([picture], record)) for name, picture in pictures),
        noise_case(task, record),
    ]


def noise_case(task: str, record: Preprocessing) -> Case:
    """A batch of random pixels, the same at every call."""
    count, height, width = SHAPES[task][-1]
    height = height or record.size.height
    pixels = np.random.default_rng(SEED).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Case(f"noise, {count} x {height} x {width}", tuple(pixels), prepare(list(pixels), record, width))


def text_case(task: str, record: Preprocessing, count: int, height: int | None, width: int) -> Case:
    """A batch of rendered text, the same at every call.

    Args:
        task: "det", "rec" or "cls".
        record: the model's preprocessing record.
        count: pictures.
        height, width: of each, in pixels; the record's height for None.
    """
    height = height or record.size.height
    if task == "det":
        pictures = tuple(render_page(PAGE[index:] + PAGE[:index], height, width) for index in range(count))
    else:
        pictures = tuple(render_line(LINES[index], height, width) for index in range(count))
    if task == "cls":  # the classifier tells upright from upside down; show it both
        pictures = tuple(np.rot90(picture, 2 * (index % 2)) for index, picture in enumerate(pictures))
    return Case(f"text, {count} x {height} x {width}", pictures, prepare(pictures, record, width))


def render_line(text: str, height: int, width: int) -> np.ndarray:
    """A line of text that fills the picture.

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
    """The picture with uneven light and grain, as a camera would have it.

    Flat paper is also the one input on which Paddle itself is inaccurate: its average pooling adds up thousands of
    equal values in single precision, one after another, and all the roundings go the same way.
    """
    light = np.linspace(1.0, 0.72, image.width)[None, :, None] * np.linspace(1.0, 0.9, image.height)[:, None, None]
    grain = np.random.default_rng(SEED).normal(0, GRAIN, (image.height, image.width, 1))
    return np.clip(np.asarray(image) * light + grain, 0, 255).astype(np.uint8)
