"""Image files to arrays."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from paddle2torch.converter.support.errors import SourceError

# What is read, by Pillow's names. Others start programs (EPS), or are nothing that text is photographed in.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000")
# Of one image, with what is made of them a gigabyte; a page of 30 × 42 cm at 600 dots per inch has 70 million.
MOST_PIXELS = 80_000_000
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
        raise _too_large(str(path)) from error
    except SourceError:
        raise
    except Exception as error:  # on broken files decoders raise nearly anything
        raise SourceError(f"{path}: cannot be read as an image ({error}); check the path and the file") from error


def _too_large(name: str) -> SourceError:
    return SourceError(
        f"{name}: has more pixels than are read at once ({MOST_PIXELS:,}); scale it down or cut it into pieces"
    )


def _to_array(image: Image.Image, name: str) -> np.ndarray:
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(name)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_eight_bits(image, name)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        visible = image.getchannel("A")
        paper = Image.new("RGB", image.size, BLACK if _is_light(image, visible) else WHITE)
        paper.paste(image, mask=visible)
        return np.asarray(paper)
    return np.asarray(image.convert("RGB"))


def _eight_bits(image: Image.Image, name: str) -> np.ndarray:
    """Grey values of more than 8 bits as uint8, (H, W)."""
    values = np.asarray(image)
    lowest, highest = (int(values.min()), int(values.max())) if image.mode == "I" else (0, SIXTEEN_BITS)
    if image.mode == "F" or lowest < 0 or highest > SIXTEEN_BITS:
        raise SourceError(f"{name}: its pixels are numbers of unknown range; save it as a PNG with 8 bits per channel")
    # 32 bits are nobody's range: there it is that of the values.
    return (values if highest <= EIGHT_BITS else values >> 8).astype(np.uint8)


def _is_light(image: Image.Image, visible: Image.Image) -> bool:
    """Whether nothing of an image would be seen on white.

    Args:
        image: RGBA.
        visible: its alpha channel.
    """
    counts = np.asarray(image.convert("L").histogram(visible.point(lambda alpha: 255 if alpha >= LIGHT else 0)))
    darker = np.searchsorted(np.cumsum(counts), DARKEST * counts.sum(), side="right")
    return bool(counts.sum() and darker >= LIGHT)
