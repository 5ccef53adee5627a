"""A picture with its boxes, and beside it what was read, each line at its place."""

from __future__ import annotations

import colorsys
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paddle2torch.converter.ocr.extras import opencv
from paddle2torch.converter.support.errors import SourceError
from paddle2torch.reading.crops import TALL, sides
from paddle2torch.reading.reader import Line

logger = logging.getLogger(__name__)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

# Files that systems commonly have, in the folders where Pillow looks; the first that has a character draws it.
FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKjp-Regular.otf",
    "SourceHanSans.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "fonts-japanese-gothic.ttf",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "PingFang.ttc",
    "AppleSDGothicNeo.ttc",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "arial.ttf",
)
UNASSIGNED = "\uffff"  # a noncharacter: fonts show their sign for a missing glyph
PROBE_SIZE = 16
MISSING_SHOWN = 20  # characters in a note

SHORTEST_SHOWN, LONGEST_SHOWN = 640, 2400  # pixels of the longer side; in between a picture keeps its size
FILL, INK_HEIGHT = 0.25, 0.78  # opacity of a box; height of letters within it
HUE_STEP = 0.618  # golden ratio: neighbours in the list get hues far apart


@dataclass(frozen=True)
class Typeface:
    """For every character a font that has it.

    Attributes:
        files: character → the font's file; None for the font that comes with Pillow.
        missing: characters that no font here has; they show that font's sign for it.
    """

    files: dict[str, str | None]
    missing: str = ""

    def runs(self, text: str, size: int) -> list[tuple[Font, str]]:
        """The text in pieces of one font each, in the given size in pixels."""
        pieces = groupby(text, lambda character: self.files.get(character))
        return [(_font(file, size), "".join(piece)) for file, piece in pieces]


def draw(picture: np.ndarray, lines: Sequence[Line], font: Path | None = None) -> Image.Image:
    """The picture with coloured boxes on the left, the texts in the same boxes on white on the right.

    Args:
        picture: uint8 (H, W, 3), RGB.
        lines: what was read in it.
        font: file of a font; a system's font that has the characters where None. A note tells what is missing.

    Raises:
        SourceError: the font cannot be read.
        MissingPackageError: OpenCV is not installed.
    """
    cv2 = opencv()
    typeface = choose_typeface("".join(line.text for line in lines), font)
    scale = _scale(picture)
    height, width = (max(round(side * scale), 1) for side in picture.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    left = cv2.resize(picture, (width, height), interpolation=interpolation)
    right = np.full_like(left, 255)
    for line, colour in zip(lines, _colours(), strict=False):
        box = np.array(line.box, np.float32) * scale
        _draw_box(left, box, colour, max(round(max(height, width) / 500), 1))
        _draw_text(right, box, line.text, typeface)
        _draw_box(right, box, colour, 1, fill=0)
    return Image.fromarray(np.hstack([left, right]))


def choose_typeface(text: str, font: Path | None = None) -> Typeface:
    """Fonts for all characters of a text: the given one where it has them, the first of the system's elsewhere.

    Raises:
        SourceError: the given font cannot be read.
    """
    characters = set(text)
    missing = set(characters)
    files: dict[str, str | None] = {}
    for file in (*_given(font), *FONTS, None):
        if missing and (probe := _installed(file)):
            found = {character for character in missing if _has(probe, character)}
            files |= dict.fromkeys(found, file)
            missing -= found
    absent = "".join(sorted(missing))
    if absent:
        shown = absent[:MISSING_SHOWN] + "…" * (len(absent) > MISSING_SHOWN)
        logger.warning(
            "no font here has %d of the text's %d characters (%s); give one that has them with --font",
            len(absent),
            len(characters),
            shown,
        )
    return Typeface(files, absent)


def _given(font: Path | None) -> tuple[str, ...]:
    if font is None:
        return ()
    try:
        _font(str(font), PROBE_SIZE)
    except OSError as error:
        raise SourceError(f"{font}: cannot be read as a font ({error}); give a .ttf, .otf or .ttc file") from error
    return (str(font),)


def _installed(file: str | None) -> Font | None:
    try:
        return _font(file, PROBE_SIZE)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _font(file: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


def _has(font: Font, character: str) -> bool:
    """Whether a character looks different from one that no font has."""
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(UNASSIGNED))


def _scale(picture: np.ndarray) -> float:
    """Small pictures are enlarged and large ones reduced, so that the texts can be read."""
    longer = max(picture.shape[:2])
    return min(max(longer, SHORTEST_SHOWN), LONGEST_SHOWN) / longer


def _colours() -> Iterator[Colour]:
    hue = 0.0
    while True:
        red, green, blue = colorsys.hls_to_rgb(hue, 0.42, 0.85)
        yield round(255 * red), round(255 * green), round(255 * blue)
        hue = (hue + HUE_STEP) % 1


def _draw_box(
    canvas: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], width: int, fill: float = FILL
) -> None:
    cv2 = opencv()
    corners = [np.round(box).astype(np.int32)]
    if fill:
        filled = cv2.fillPoly(canvas.copy(), corners, colour)
        cv2.addWeighted(filled, fill, canvas, 1 - fill, 0, dst=canvas)
    cv2.polylines(canvas, corners, True, colour, width, cv2.LINE_AA)


def _draw_text(canvas: np.ndarray, box: np.ndarray, text: str, typeface: Typeface) -> None:
    """Write into a box, along its longer side where it is tall, darkening the canvas."""
    cv2 = opencv()
    width, height = sides(box)
    if height >= TALL * width:
        box, width, height = np.roll(box, -1, axis=0), height, width
    width, height = max(width, 1), max(height, 1)
    label = np.asarray(_label(text, width, height, typeface))
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    laid = cv2.warpPerspective(
        label,
        cv2.getPerspectiveTransform(source, box),
        canvas.shape[1::-1],
        flags=cv2.INTER_LINEAR,
        borderValue=255,
    )
    np.minimum(canvas, laid[:, :, None], out=canvas)


def _label(text: str, width: int, height: int, typeface: Typeface) -> Image.Image:
    """The text in black on white, as large as fits."""
    margin, size = height // 8, max(round(height * INK_HEIGHT), 1)
    room = max(width - 2 * margin, 1)
    length = _length(typeface.runs(text, size))
    if length > room:
        size = max(int(size * room / length), 1)
    label = Image.new("L", (width, height), 255)
    place = float(margin)
    for font, piece in typeface.runs(text, size):
        ImageDraw.Draw(label).text((place, height / 2), piece, fill=0, font=font, anchor="lm")
        place += font.getlength(piece)
    return label


def _length(runs: Iterable[tuple[Font, str]]) -> float:
    return sum(font.getlength(piece) for font, piece in runs)
