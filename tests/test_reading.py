"""Pictures to arrays and probabilities to text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.errors import SourceError
from converter.reading.ctc import decode
from converter.reading.preprocess import load_picture, prepare, resize

LINE = {
    "channel_order": "BGR",
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "size": {"mode": "height", "height": 48, "width": 320},
}
DIRECTION = {**LINE, "size": {"mode": "height_padded", "height": 48, "width": 192}}
PAGE = {
    **LINE,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "size": {"mode": "multiple", "multiple": 32, "limit_side": 960},
}


def plain(height: int, width: int, colour: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_channels_are_swapped_scaled_and_normalised_in_the_order_that_the_record_says() -> None:
    red = plain(32, 32, (255, 0, 51))
    array = prepare([red], PAGE)
    expected = [(51 / 255 - 0.485) / 0.229, (0 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert array.dtype == np.float32
    assert array[0, :, 0, 0] == pytest.approx(expected, rel=1e-6)
    as_rgb = prepare([red], {**PAGE, "channel_order": "RGB"})
    assert as_rgb[0, 0, 0, 0] == pytest.approx((1 - 0.485) / 0.229, rel=1e-6)


@pytest.mark.parametrize(
    ("pictures", "width"),
    [
        pytest.param([(24, 50)], 320, id="a short line is padded to the usual width"),
        pytest.param([(24, 200)], 400, id="a long line makes the batch wider"),
        pytest.param([(48, 30), (96, 700)], 350, id="the widest of the batch counts"),
        pytest.param([(47, 320)], 327, id="a fraction of a pixel is rounded up"),
    ],
)
def test_a_batch_of_lines_is_as_wide_as_upstream_makes_it(pictures: list[tuple[int, int]], width: int) -> None:
    assert prepare([plain(*size) for size in pictures], LINE).shape == (len(pictures), 3, 48, width)


def test_what_lies_right_of_a_short_line_is_zero() -> None:
    array = prepare([plain(24, 50)], LINE)
    assert (array[0, :, :, :100] == 1).all()
    assert (array[0, :, :, 100:] == 0).all()


def test_a_line_too_long_for_the_classifier_is_squeezed() -> None:
    stripes = plain(48, 400)
    stripes[:, 200:] = 0
    array = prepare([stripes], DIRECTION)
    assert array.shape == (1, 3, 48, 192)
    assert (array[..., :95] == 1).all()
    assert (array[..., 97:] == -1).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((100, 130), (96, 128), id="rounded to the nearest multiple"),
        pytest.param((10, 500), (32, 512), id="at least one multiple"),
        pytest.param((1920, 700), (960, 352), id="limited, aspect kept"),
    ],
)
def test_a_page_gets_sides_that_the_detector_takes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert prepare([plain(*size)], PAGE).shape == (1, 3, *expected)


def test_resizing_is_bilinear_between_pixel_centres() -> None:
    ramp = np.zeros((1, 2, 3), np.uint8)
    ramp[0, 1] = 100
    assert resize(ramp, 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    assert resize(resize(ramp, 1, 4), 1, 2)[0, :, 0].tolist() == [12, 88]


def test_a_grey_picture_with_transparency_is_read_as_colour(tmp_path: Path) -> None:
    Image.new("LA", (5, 4), (200, 255)).save(tmp_path / "grey.png")
    assert load_picture(tmp_path / "grey.png").tolist() == plain(4, 5, (200, 200, 200)).tolist()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(None, "cannot be read as a picture", id="missing"),
        pytest.param(b"not a picture", "is not a picture", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "picture", id="cut short"),
    ],
)
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "line.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"line\.png: .*{expected}"):
        load_picture(path)


def probabilities(classes: list[int], scores: list[float] | None = None) -> np.ndarray:
    """(1, T, 4) with these classes as the best ones."""
    array = np.zeros((1, len(classes), 4), np.float32)
    array[0, range(len(classes)), classes] = scores or [1.0] * len(classes)
    return array


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        pytest.param([0, 1, 1, 0, 2], "ab", id="repeats are merged"),
        pytest.param([1, 0, 1], "aa", id="a blank separates equal characters"),
        pytest.param([3, 3, 1, 2, 2, 0], "cab", id="no blank needed between others"),
        pytest.param([0, 0], "", id="blanks alone are no text"),
    ],
)
def test_greedy_decoding(classes: list[int], text: str) -> None:
    (reading,) = decode(probabilities(classes), ["blank", "a", "b", "c"])
    assert reading.text == text


def test_the_score_is_the_mean_of_the_kept_characters() -> None:
    (reading,) = decode(probabilities([1, 1, 0, 2], [0.5, 0.9, 0.8, 0.7]), ["blank", "a", "b", "c"])
    assert reading.score == pytest.approx(0.6)


def test_without_labels_the_classes_stand_for_themselves() -> None:
    (reading,) = decode(probabilities([0, 3, 3, 1]))
    assert (reading.classes, reading.text, str(reading)) == ((3, 1), None, "classes 3 1")
