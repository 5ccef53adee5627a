"""Images to input arrays: the sizes and values that PaddleOCR's predictors make."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from paddle2torch.architectures.preprocessing import CLASSIFICATION, DETECTION, RECOGNITION_48
from paddle2torch.converter.ocr.preprocess import WIDEST, prepare, resize
from paddle2torch.converter.support.errors import MissingPackageError

LINE, DIRECTION, PAGE = RECOGNITION_48, CLASSIFICATION, DETECTION


def plain(height: int, width: int, colour: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_channels_are_swapped_scaled_and_normalised_in_the_order_that_the_record_says() -> None:
    red = plain(32, 32, (255, 0, 51))
    array = prepare([red], PAGE)
    expected = [(51 / 255 - 0.485) / 0.229, (0 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert array.dtype == np.float32
    assert array[0, :, 0, 0] == pytest.approx(expected, rel=1e-6)
    as_rgb = prepare([red], replace(PAGE, channel_order="RGB"))
    assert as_rgb[0, 0, 0, 0] == pytest.approx((1 - 0.485) / 0.229, rel=1e-6)


@pytest.mark.parametrize(
    ("images", "width"),
    [
        pytest.param([(24, 50)], 320, id="a short line is padded to the usual width"),
        pytest.param([(24, 200)], 400, id="a long line makes the batch wider"),
        pytest.param([(48, 30), (96, 700)], 350, id="the widest of the batch counts"),
        pytest.param([(47, 320)], 326, id="a fraction of a pixel is cut off"),
        pytest.param([(1, 10**6)], WIDEST, id="up to a limit"),
    ],
)
def test_a_batch_of_lines_is_as_wide_as_upstream_makes_it(images: list[tuple[int, int]], width: int) -> None:
    assert prepare([plain(*size) for size in images], LINE).shape == (len(images), 3, 48, width)


def test_what_lies_right_of_a_short_line_is_zero() -> None:
    array = prepare([plain(24, 50)], LINE)
    assert (array[0, :, :, :100] == 1).all()
    assert (array[0, :, :, 100:] == 0).all()


def test_a_line_is_as_wide_as_its_ratio_says_and_at_most_as_the_batch() -> None:
    array = prepare([plain(40, 333), plain(47, 320)], LINE)
    assert array.shape[3] == 399  # 399.6 wide: cut off for the batch, and so for the line, which would be 400
    assert (array[0] == 1).all()
    assert (array[1, :, :, :327] == 1).all()  # 326.8, rounded up
    assert (array[1, :, :, 327:] == 0).all()


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
        pytest.param((161, 1920), (64, 960), id="80.5 is 80 before it is rounded, and halves go to the even multiple"),
        pytest.param((48, 112), (64, 128), id="halves go to the even multiple"),
        pytest.param((1, 1), (32, 32), id="one pixel"),
    ],
)
def test_a_page_gets_sides_that_the_detector_takes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert prepare([plain(*size)], PAGE).shape == (1, 3, *expected)


def test_resizing_is_bilinear_between_pixel_centres_and_does_not_smooth() -> None:
    ramp = np.zeros((1, 2, 3), np.uint8)
    ramp[0, 1] = 100
    assert resize(ramp, 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    dots = np.zeros((1, 9, 3), np.uint8)
    dots[0, 1::3] = 200
    assert resize(dots, 1, 3)[0, :, 0].tolist() == [200, 200, 200]  # an antialiased result would be a third of that


def test_only_resizing_needs_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert prepare([plain(48, 320)], LINE).shape == (1, 3, 48, 320)
    with pytest.raises(MissingPackageError, match=r"needs the package cv2.*pip install 'paddle2torch\[reading\]'"):
        prepare([plain(47, 320)], LINE)
