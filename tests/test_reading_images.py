"""Image files: every kind that people have becomes RGB, upright, on white; what is broken is named."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle2torch.converter.ocr import images
from paddle2torch.converter.ocr.images import load_image
from paddle2torch.converter.support.errors import SourceError

RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("turns", "orientation"),
    [
        pytest.param(0, None, id="no orientation"),
        pytest.param(0, 1, id="upright"),
        pytest.param(2, 3, id="upside down"),
        pytest.param(1, 6, id="camera turned right"),
        pytest.param(3, 8, id="camera turned left"),
    ],
)
def test_a_photograph_is_turned_as_the_camera_says(turns: int, orientation: int | None, tmp_path: Path) -> None:
    upright = np.full((40, 80, 3), WHITE, np.uint8)
    upright[:16, :16] = RED
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = saved(Image.fromarray(np.rot90(upright, turns)), tmp_path / "photo.png", exif=exif)
    assert load_image(path).tolist() == upright.tolist()


def grey() -> Image.Image:
    return Image.new("L", (2, 1), 200)


def half_clear_grey() -> Image.Image:
    image = Image.new("LA", (2, 1), (0, 255))
    image.putpixel((1, 0), (0, 0))
    return image


def light_letters() -> Image.Image:
    image = Image.new("LA", (2, 1), (255, 255))
    image.putpixel((1, 0), (255, 0))
    return image


def clear_colour() -> Image.Image:
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    return image


def palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    if transparent:
        image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(grey, [(200,) * 3] * 2, id="grey"),
        pytest.param(lambda: Image.new("1", (2, 1), 1), [WHITE] * 2, id="black and white"),
        pytest.param(light_letters, [WHITE, BLACK], id="light letters with transparency"),
        pytest.param(half_clear_grey, [(0,) * 3, WHITE], id="grey with transparency"),
        pytest.param(clear_colour, [RED, WHITE], id="colour with transparency"),
        pytest.param(lambda: palette(False), [RED, BLUE], id="palette"),
        pytest.param(lambda: palette(True), [RED, WHITE], id="palette with transparency"),
        pytest.param(
            lambda: Image.fromarray(np.array([[0x80FF, 0xFFFF]], np.uint16)), [(0x80,) * 3, WHITE], id="16 bits"
        ),
        pytest.param(
            lambda: Image.fromarray(np.array([[0x80FF, 0xFFFF]], np.int32)), [(0x80,) * 3, WHITE], id="16 of 32 bits"
        ),
        pytest.param(
            lambda: Image.fromarray(np.array([[0x80, 0xFF]], np.int32)), [(0x80,) * 3, WHITE], id="8 of 32 bits"
        ),
        pytest.param(lambda: Image.fromarray(np.array([[0x80, 0xFF]], np.uint16)), [BLACK] * 2, id="dark 16 bits"),
    ],
)
def test_any_kind_of_pixels_becomes_rgb_on_white(
    make: Callable[[], Image.Image], expected: list[tuple[int, ...]], tmp_path: Path
) -> None:
    image = make()
    path = saved(image, tmp_path / ("image.tif" if image.mode == "I" else "image.png"))
    assert load_image(path).tolist() == [[list(pixel) for pixel in expected]]


def test_printers_colours_become_rgb(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "print.jpg")
    assert np.abs(load_image(path)[0, 0].astype(int) - RED).max() < 20


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(None, "there is no such image", id="missing"),
        pytest.param(b"", "is not an image", id="empty"),
        pytest.param(b"not an image", "is not an image", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image", id="cut short"),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "line.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"line\.png: .*{expected}"):
        load_image(path)


@pytest.mark.parametrize("error", [RuntimeError, SyntaxError, NotImplementedError, IndexError])  # seen from decoders
def test_whatever_a_decoder_raises_is_one_clear_error(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("bad frame")

    path = saved(grey(), tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(SourceError, match=r"a\.png: cannot be read as an image \(bad frame\)"):
        load_image(path)


def test_no_program_is_started_to_read_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript is what Pillow calls Ghostscript for; a name says nothing."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    path = tmp_path / "line.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 50\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(SourceError, match=r"line\.png: is not an image of a format that is read \(PNG, JPEG"):
        load_image(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "line.png")
    with pytest.raises(SourceError, match=r"line\.png: cannot be read as an image: it is a folder, pipe or device"):
        load_image(tmp_path / "line.png")


def test_an_image_of_pillows_is_taken_as_a_file_is(tmp_path: Path) -> None:
    path = saved(clear_colour(), tmp_path / "line.png")
    with Image.open(path) as image:
        assert load_image(image).tolist() == load_image(path).tolist()
    with pytest.raises(TypeError, match="an image is a path, one of Pillow's or an array"):
        load_image(7)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read as an image"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.float32), np.full((2, 2), 70000, np.int32), np.full((2, 2), -1, np.int32)],
    ids=["float", "large", "negative"],
)
def test_numbers_of_unknown_range_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    path = saved(Image.fromarray(array), tmp_path / "depth.tif")
    with pytest.raises(SourceError, match=rf"^{re.escape(str(path))}: its pixels are numbers of unknown range"):
        load_image(path)


@pytest.mark.parametrize(("pixels", "refused"), [(150, False), (201, True), (500, True)])
@pytest.mark.filterwarnings("error")
def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(
    pixels: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.new("RGB", (pixels, 1)), tmp_path / "bomb.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 200)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 if pixels < 201 else 220)  # which warns, or refuses twice that
    if not refused:
        assert load_image(path).shape == (1, pixels, 3)
        return
    with pytest.raises(SourceError, match=r"bomb\.png: has more pixels than are read at once \(200\)"):
        load_image(path)


def test_formats_that_take_more_memory_have_fewer_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images.MOST_PIXELS_OF, "WEBP", 100)
    assert load_image(saved(Image.new("RGB", (101, 1)), tmp_path / "a.png")).shape == (1, 101, 3)
    with pytest.raises(SourceError, match=r"a\.webp: has more pixels than are read at once \(100\)"):
        load_image(saved(Image.new("RGB", (101, 1)), tmp_path / "a.webp"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"])
def test_strips_make_up_the_image(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).integers(0, 256, (40, 30, 4), np.uint8)
    if mode.startswith("I"):
        image = Image.fromarray(values[..., :2].copy().view(np.uint16)[..., 0])
        image = image.convert("I") if mode == "I" else image
    else:
        image = Image.fromarray(values).convert("RGB" if mode == "P" else "RGBA").convert(mode)
    path = saved(image, tmp_path / "image.tif")
    whole = load_image(path)
    monkeypatch.setattr(images, "STRIP", 100)
    assert load_image(path).tolist() == whole.tolist()
    assert whole.std() > 10


MEMORY = """
import resource, sys
from paddle2torch.converter.ocr.images import load_image
load_image(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels = load_image(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / pixels.shape[0] / pixels.shape[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is told in other units")
def test_an_image_takes_its_decoded_pixels_and_the_array(tmp_path: Path) -> None:
    small = saved(Image.new("RGBA", (9, 9)), tmp_path / "small.png")
    large = saved(Image.new("RGBA", (4000, 4000)), tmp_path / "large.png")
    command = [sys.executable, "-P", "-c", MEMORY, str(small), str(large)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert float(run.stdout) < 9  # bytes a pixel: 4 in Pillow, 3 in the array, and a strip


def encoded(file_format: str) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format, **({} if file_format == "GIF" else {"exif": exif}))
    return stream.getvalue()


FILES = {name: encoded(name) for name in ("PNG", "JPEG", "GIF", "WEBP", "TIFF")}


@given(
    name=st.sampled_from(sorted(FILES)),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_gives_an_image_or_one_clear_error(
    name: str, cut: float, changes: list[tuple[float, int]], tmp_path: Path
) -> None:
    damaged = bytearray(FILES[name])
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    path = tmp_path / f"damaged.{name.lower()}"
    path.write_bytes(damaged[: len(damaged) if cut > 0.7 else int(cut * len(damaged))])
    try:
        image = load_image(path)
    except SourceError as error:
        assert str(error).startswith(str(path))
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
