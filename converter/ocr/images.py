"""Image files to arrays."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from paddle2torch.converter.support.errors import SourceError

# What is read, by Pillow's names. Others start programs (EPS), or are nothing that text is photographed in.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000")
# Of one image: with all that is made of them less than a gigabyte. A page of 30 × 42 cm at 600 dots per inch has 70
# million. The decoders of some formats take more memory than others.
MOST_PIXELS = 72_000_000
MOST_PIXELS_OF = {"WEBP": 48_000_000, "JPEG2000": 36_000_000}
STRIP = 1 << 20  # pixels that are converted at a time
ORIENTATION = 0x0112  # in EXIF
EIGHT_BITS, SIXTEEN_BITS = 0xFF, 0xFFFF
WHITE, BLACK = (255, 255, 255), (0, 0, 0)  # what a transparent image is laid on
# Of the pixels that can be seen, those that are darker than all others: where they are light, letters are too.
DARKEST = 0.02
LIGHT = 128


def load_image(source: str | os.PathLike[str] | Image.Image) -> np.ndarray:
    """Read an image file of one of FORMATS, or take an image of Pillow's, upright as its EXIF orientation says.

    Of 16 bits the upper 8 are kept, as OpenCV does. What is transparent becomes white, or black where all that can be
    seen is light. Of several frames or pages the first is taken.

    Args:
        source: path, or image.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        SourceError: the file is missing, broken or no image, has more than MOST_PIXELS, or its pixels are numbers
            without a known range.
        TypeError: it is neither path nor image.
    """
    if isinstance(source, Image.Image):
        return _to_array(source, "the image")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"an image is a path, one of Pillow's or an array (H, W, 3), not {type(source).__name__}")
    path = Path(source)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"{path}: cannot be read as an image: it is a folder, pipe or device; give a file")
        with warnings.catch_warnings():
            # Pillow warns from half of a limit of its own on; ours is told of below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _to_array(image, str(path))
    except FileNotFoundError as error:
        raise SourceError(f"{path}: there is no such image; check the path") from error
    except UnidentifiedImageError as error:
        raise SourceError(f"{path}: is not an image of a format that is read ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise _too_large(str(path), MOST_PIXELS) from error
    except SourceError:
        raise
    except Exception as error:  # on broken files decoders raise nearly anything
        raise SourceError(f"{path}: cannot be read as an image ({error}); check the path and the file") from error


def _too_large(name: str, most: int) -> SourceError:
    return SourceError(f"{name}: has more pixels than are read at once ({most:,}); scale it down or cut it into pieces")


def _to_array(image: Image.Image, name: str) -> np.ndarray:
    most = min(MOST_PIXELS, MOST_PIXELS_OF.get(image.format or "", MOST_PIXELS))
    if image.width * image.height > most:
        raise _too_large(name, most)
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    result = np.empty((image.height, image.width, 3), np.uint8)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        shift = _shift(image, name)
        for rows, strip in _strips(image):
            result[rows] = (np.asarray(strip) >> shift)[..., None]
        return result
    paper = (BLACK if _is_light(image) else WHITE) if image.has_transparency_data else None
    for rows, strip in _strips(image):
        result[rows] = np.asarray(strip.convert("RGB") if paper is None else _laid_on(paper, strip.convert("RGBA")))
    return result


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """An image in parts as wide as itself, each with its rows; several times a part takes less memory than twice it."""
    height = max(1, STRIP // max(1, image.width))
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _laid_on(paper: tuple[int, int, int], image: Image.Image) -> Image.Image:
    """An RGBA image as RGB."""
    whole = Image.new("RGB", image.size, paper)
    whole.paste(image, mask=image.getchannel("A"))
    return whole


def _shift(image: Image.Image, name: str) -> int:
    """By how many bits the grey values of an image of more than 8 are to be moved to be of 8."""
    lowest, highest = (0, SIXTEEN_BITS)
    if image.mode in ("I", "F"):
        # 32 bits are nobody's range: there it is that of the values.
        lowest, highest = image.getextrema()  # type: ignore[assignment]
    if image.mode == "F" or lowest < 0 or highest > SIXTEEN_BITS:
        raise SourceError(f"{name}: its pixels are numbers of unknown range; save it as a PNG with 8 bits per channel")
    return 0 if highest <= EIGHT_BITS else 8


def _is_light(image: Image.Image) -> bool:
    """Whether nothing of an image with transparency would be seen on white."""
    counts = np.zeros(256, np.int64)
    for _, strip in _strips(image):
        coloured = strip.convert("RGBA")
        visible = coloured.getchannel("A").point(lambda alpha: 255 if alpha >= LIGHT else 0)
        counts += coloured.convert("L").histogram(visible)
    darker = np.searchsorted(np.cumsum(counts), DARKEST * counts.sum(), side="right")
    return bool(counts.sum() and darker >= LIGHT)
