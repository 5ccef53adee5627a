"""Text lines drawn with Pillow's own font: what the embedded recogniser is trained and judged on.

Needs NumPy and Pillow (with FreeType), neither Paddle nor a font file. Everything is drawn from seeded generators, so
that a seed names a picture. Words whose checksum falls into the held-out share are never shown in training.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CHARACTERS = string.digits + string.ascii_lowercase + string.ascii_uppercase  # class ids 1…62; 0 is the CTC blank
HEIGHT = 32
PIXELS_PER_CHARACTER = 14  # an average letter of a 32 pixels high line, with margins
HELD_OUT = 20  # one word in so many is kept for judging
SAMPLE_TEXT = "PaddleOCR2026"

# How a word picks its characters; the last one, a free mix, is what serial numbers and file names look like.
STYLES: tuple[Callable[[np.random.Generator, int], str], ...] = (
    lambda rng, length: _pick(rng, string.digits, length),
    lambda rng, length: _pick(rng, string.ascii_lowercase, length),
    lambda rng, length: _pick(rng, string.ascii_uppercase, length),
    lambda rng, length: _pick(rng, string.ascii_uppercase, 1) + _pick(rng, string.ascii_lowercase, length - 1),
    lambda rng, length: _pick(rng, string.ascii_letters, length),
    lambda rng, length: _pick(rng, CHARACTERS, length),
)


@dataclass(frozen=True)
class Batch:
    """Pictures of one width and what they say.

    Attributes:
        images: uint8 (N, HEIGHT, W, 3), blue first as Paddle's recognisers expect; right of a text is grey (127).
        fills: float32 (N,), the share of the width that the text takes; the rest is set to 0 after normalisation.
        texts: the N words.
    """

    images: np.ndarray
    fills: np.ndarray
    texts: list[str]

    def inputs(self) -> np.ndarray:
        """Network input, float32 (N, 3, HEIGHT, W): (x / 255 - 0.5) / 0.5, and 0 right of each text."""
        pixels = self.images.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1.0
        columns = np.arange(pixels.shape[-1], dtype=np.float32)
        return pixels * (columns < self.fills[:, None] * pixels.shape[-1])[:, None, None, :].astype(np.float32)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Class ids, int32 (N, longest) padded with 0, and lengths, int64 (N,)."""
        lengths = np.array([len(text) for text in self.texts], np.int64)
        ids = np.zeros((len(self.texts), lengths.max()), np.int32)
        for row, text in zip(ids, self.texts, strict=True):
            row[: len(text)] = [CHARACTERS.index(character) + 1 for character in text]
        return ids, lengths


def is_held_out(word: str) -> bool:
    """Whether the word belongs to the share that training never shows."""
    return zlib.crc32(word.encode()) % HELD_OUT == 0


def draw_word(rng: np.random.Generator, shortest: int, longest: int, held_out: bool) -> str:
    """A random word of the wanted share, of `shortest` to `longest` characters."""
    while True:
        style = STYLES[rng.integers(len(STYLES))]
        word = style(rng, int(rng.integers(shortest, longest + 1)))
        if is_held_out(word) == held_out:
            return word


def render(word: str, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of the word: size, weight, colours, slant, rotation, blur and noise vary with the generator."""
    size = int(rng.integers(22, 56))
    ink, paper = _colours(rng)
    font = ImageFont.load_default(size)
    stroke = int(rng.integers(0, 1 + size // 18))
    ascent, descent = font.getmetrics()
    left, right = (rng.uniform(0.05, 0.6, 2) * size).astype(int)
    top, bottom = (rng.uniform(-0.08, 0.25, 2) * size).astype(int)
    width = int(font.getlength(word)) + 2 * stroke + left + right
    picture = Image.new("RGB", (width, ascent + descent + top + bottom), paper)
    ImageDraw.Draw(picture).text((left + stroke, top), word, font=font, fill=ink, stroke_width=stroke, stroke_fill=ink)
    picture = _bend(picture, rng, paper)
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.035) * size))
    pixels = np.asarray(picture, np.float32)
    pixels = pixels + rng.normal(0, rng.uniform(0, 16), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_batch(seed: int, step: int, size: int, held_out: bool = False) -> Batch:
    """The batch that a seed and a step name; wide batches are rarer, as they cost more.

    Args:
        seed: names the run.
        step: number of the batch within the run.
        size: how many pictures.
        held_out: whether the words come from the held-out share.
    """
    rng = np.random.default_rng([seed, step, int(held_out)])
    width = int(rng.choice([64, 96, 128, 160, 320], p=[0.2, 0.35, 0.25, 0.13, 0.07]))
    longest = width // PIXELS_PER_CHARACTER
    words = [draw_word(rng, 1 + longest // 4, longest, held_out) for _ in range(size)]
    return gather([render(word, rng) for word in words], words, width)


def gather(pictures: list[Image.Image], texts: list[str], width: int) -> Batch:
    """Bring the pictures to one height, keeping their proportions where the width allows, and stack them."""
    images = np.full((len(pictures), HEIGHT, width, 3), 127, np.uint8)
    fills = np.empty(len(pictures), np.float32)
    for index, picture in enumerate(pictures):
        fitting = min(width, natural_width(picture))
        resized = np.asarray(picture.resize((fitting, HEIGHT), Image.Resampling.BILINEAR))
        images[index, :, :fitting] = resized[:, :, ::-1]
        fills[index] = fitting / width
    return Batch(images, fills, texts)


def natural_width(picture: Image.Image) -> int:
    """The picture's width in pixels once it is HEIGHT high."""
    return max(1, round(picture.width * HEIGHT / picture.height))


def sample_picture() -> Image.Image:
    """The picture that the README's first command reads aloud: SAMPLE_TEXT on tinted paper."""
    font = ImageFont.load_default(36)
    picture = Image.new("RGB", (int(font.getlength(SAMPLE_TEXT)) + 24, 48), (238, 233, 220))
    ImageDraw.Draw(picture).text((12, 1), SAMPLE_TEXT, font=font, fill=(32, 48, 92))
    return picture


def _pick(rng: np.random.Generator, alphabet: str, length: int) -> str:
    return "".join(alphabet[index] for index in rng.integers(0, len(alphabet), length))


def _colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ink and paper, far enough apart in brightness to be read."""
    while True:
        ink, paper = rng.integers(0, 256, (2, 3))
        if abs(int(ink.sum()) - int(paper.sum())) > 3 * 70:
            return tuple(map(int, ink)), tuple(map(int, paper))


def _bend(picture: Image.Image, rng: np.random.Generator, paper: tuple[int, ...]) -> Image.Image:
    """Slant, rotate by a few degrees and stretch; each maps output to input coordinates around the centre."""
    angle, slant = np.deg2rad(rng.uniform(-2, 2)), rng.uniform(-0.15, 0.15)
    stretch = float(np.exp(rng.uniform(-0.2, 0.2)))
    width, height = round(picture.width * stretch), picture.height
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1 / stretch, slant], [0, 1]])
    offset = np.array([picture.width, height]) / 2 - matrix @ np.array([width, height]) / 2
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return picture.transform(
        (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=paper
    )
