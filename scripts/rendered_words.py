"""Text lines drawn with Pillow's own font: what the embedded recogniser is trained and judged on.

Needs NumPy and Pillow (with FreeType), neither Paddle nor a font file. Everything is drawn from seeded generators, so
that a seed names a picture. Words whose checksum falls into the held-out share are never shown in training.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from architectures.registry import RECOGNITION_32
from reading.preprocess import prepare

CHARACTERS = string.digits + string.ascii_lowercase + string.ascii_uppercase  # class ids 1…62; 0 is the CTC blank
HELD_OUT = 20  # one word in so many is kept for judging
JUDGED_SEED, JUDGED_WORDS, JUDGED_LENGTHS = 20260101, 1000, (2, 10)
SAMPLE_TEXT = "PaddleOCR2026"

# A batch is this wide, its words have these lengths, and so many batches in a hundred are like it. Narrow batches cost
# least and are what a run starts with; the last two are what a model meets in use, where a short word is padded with
# zeros to 320 pixels.
WIDTHS = (
    (64, (1, 5), 15),
    (96, (2, 7), 30),
    (128, (3, 9), 28),
    (160, (4, 12), 13),
    (320, (1, 10), 8),
    (320, (8, 24), 6),
)
FIRST_WIDTHS = WIDTHS[:2]

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
    """Pictures as a network takes them, and what they say.

    Attributes:
        inputs: float32 (N, 3, 32, W), preprocessed as every recogniser of 32 rows wants it.
        texts: the N words.
    """

    inputs: np.ndarray
    texts: list[str]

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Class ids, int32 (N, longest) padded with 0, and lengths, int64 (N,)."""
        lengths = np.array([len(text) for text in self.texts], np.int64)
        ids = np.zeros((len(self.texts), lengths.max()), np.int32)
        for row, text in zip(ids, self.texts, strict=True):
            row[: len(text)] = [CHARACTERS.index(character) + 1 for character in text]
        return ids, lengths


def training_batch(seed: int, step: int, size: int, first: bool) -> Batch:
    """The batch that a run's seed and a step name.

    Args:
        seed: of the run.
        step: within the run.
        size: how many words.
        first: whether the run is still in its first, narrow part.
    """
    rng = np.random.default_rng([seed, step])
    widths = FIRST_WIDTHS if first else WIDTHS
    shares = np.array([share for _, _, share in widths])
    width, lengths, _ = widths[rng.choice(len(widths), p=shares / shares.sum())]
    words = [draw_word(rng, lengths, held_out=False) for _ in range(size)]
    return Batch(prepare([render(word, rng) for word in words], RECOGNITION_32, width), words)


def judged_batches(size: int = 50) -> Iterator[Batch]:
    """The same JUDGED_WORDS held-out words for every model and every seed, padded as in use."""
    rng = np.random.default_rng(JUDGED_SEED)
    for _ in range(JUDGED_WORDS // size):
        words = [draw_word(rng, JUDGED_LENGTHS, held_out=True) for _ in range(size)]
        yield Batch(prepare([render(word, rng) for word in words], RECOGNITION_32), words)


def is_held_out(word: str) -> bool:
    """Whether the word belongs to the share that training never shows."""
    return zlib.crc32(word.encode()) % HELD_OUT == 0


def draw_word(rng: np.random.Generator, lengths: tuple[int, int], held_out: bool) -> str:
    """A random word of the wanted share, its length within the (inclusive) bounds."""
    while True:
        style = STYLES[rng.integers(len(STYLES))]
        word = style(rng, int(rng.integers(lengths[0], lengths[1] + 1)))
        if is_held_out(word) == held_out:
            return word


def render(word: str, rng: np.random.Generator) -> np.ndarray:
    """A picture of the word, uint8 RGB (H, W, 3).

    Size, weight, colours, margins, slant, rotation, stretch, blur and noise vary with the generator.
    """
    size = int(rng.integers(22, 56))
    ink, paper = _colours(rng)
    font = ImageFont.load_default(size)
    stroke = int(rng.integers(0, 1 + size // 24))
    left, right = (rng.uniform(0.05, 0.6, 2) * size).astype(int)
    top, bottom = (rng.uniform(-0.05, 0.25, 2) * size).astype(int)
    width = int(font.getlength(word)) + 2 * stroke + left + right
    picture = Image.new("RGB", (width, sum(font.getmetrics()) + top + bottom), paper)
    ImageDraw.Draw(picture).text((left + stroke, top), word, font=font, fill=ink, stroke_width=stroke, stroke_fill=ink)
    picture = _bend(picture, rng, paper)
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.025) * size))
    pixels = np.asarray(picture, np.float32)
    pixels = pixels + rng.normal(0, rng.uniform(0, 10), pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def sample_picture() -> Image.Image:
    """The picture that the README's first command reads aloud: SAMPLE_TEXT on tinted paper."""
    font = ImageFont.load_default(36)
    picture = Image.new("RGB", (int(font.getlength(SAMPLE_TEXT)) + 24, 48), (238, 233, 220))
    ImageDraw.Draw(picture).text((12, 1), SAMPLE_TEXT, font=font, fill=(32, 48, 92))
    return picture


def edit_distance(left: str, right: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def _pick(rng: np.random.Generator, alphabet: str, length: int) -> str:
    return "".join(alphabet[index] for index in rng.integers(0, len(alphabet), length))


def _colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ink and paper, far enough apart in brightness to be read."""
    while True:
        ink, paper = rng.integers(0, 256, (2, 3))
        if abs(int(ink.sum()) - int(paper.sum())) > 3 * 80:
            return tuple(map(int, ink)), tuple(map(int, paper))


def _bend(picture: Image.Image, rng: np.random.Generator, paper: tuple[int, ...]) -> Image.Image:
    """Slant, rotate by a degree or so, and stretch, around the centre."""
    angle, slant = np.deg2rad(rng.uniform(-1.5, 1.5)), rng.uniform(-0.12, 0.12)
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    size = (round(picture.width * stretch), picture.height)
    cos, sin = np.cos(angle), np.sin(angle)
    # Pillow wants the way back, from a new pixel to an old one.
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1 / stretch, slant], [0, 1]])
    offset = np.array(picture.size) / 2 - matrix @ np.array(size) / 2
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return picture.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=paper)
