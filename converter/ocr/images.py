"""Picture files to arrays."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from paddle2torch.converter.support.errors import SourceError

PAPER = (255, 255, 255, 255)  # what a transparent picture is laid on
SIXTEEN_BITS = 0xFFFF


def load_picture(path: Path) -> np.ndarray:
    """Read a picture of any format that Pillow knows, upright as its EXIF orientation says.

    Of 16 bits the upper 8 are kept, as OpenCV does; transparent parts become white; of several frames or pages the
    first is taken.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        SourceError: the file is missing, broken or no picture, has more than 179 megapixels (Pillow's guard against
            small files that unpack to gigabytes), or its pixels are numbers without a known range.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on; pages scanned finely get there.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image), path))
    except FileNotFoundError as error:
        raise SourceError(f"{path}: there is no such picture; check the path") from error
    except UnidentifiedImageError as error:
        raise SourceError(f"{path}: is not a picture that Pillow can read; give a PNG or JPEG file") from error
    except Image.DecompressionBombError as error:
        raise SourceError(
            f"{path}: has more pixels than are read at once ({2 * Image.MAX_IMAGE_PIXELS:,}); scale it down or cut it"
        ) from error
    except SourceError:
        raise
    except Exception as error:  # on broken files decoders raise nearly anything
        raise SourceError(f"{path}: cannot be read as a picture ({error}); check the path and the file") from error


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.getextrema()[1] > SIXTEEN_BITS):
        raise SourceError(f"{path}: its pixels are numbers of unknown range; save it as a PNG with 8 bits per channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, PAPER), image).convert("RGB")
    return image.convert("RGB")
