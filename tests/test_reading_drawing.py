"""What was read, drawn beside the image."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from paddle2torch.converter.support.errors import SourceError
from paddle2torch.reading import Line
from paddle2torch.reading.drawing import FONTS, choose_typeface, draw

WHITE = np.full((300, 700, 3), 255, np.uint8)
WIDE = Line("Hello", 0.9, ((50, 40), (350, 40), (350, 90), (50, 90)))
TALL = Line("Hello", 0.9, ((600, 20), (640, 20), (640, 280), (600, 280)))


def halves(image: np.ndarray, *lines: Line) -> tuple[np.ndarray, np.ndarray]:
    drawing = np.asarray(draw(image, lines))
    middle = drawing.shape[1] // 2
    return drawing[:, :middle], drawing[:, middle:]


def dark(canvas: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the letters."""
    rows, columns = np.nonzero(canvas.max(2) < 60)
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_boxes_are_drawn_over_the_image_and_texts_beside_it() -> None:
    left, right = halves(WHITE, WIDE)
    assert left.shape == WHITE.shape
    assert (left[60, 200] != 255).any()  # within the box
    assert (left[150, 200] == 255).all()  # below it
    assert not (left.max(2) < 60).any()  # no letters there
    first, top, last, bottom = dark(right)
    assert first >= 50
    assert last <= 350
    assert 40 <= top < bottom <= 90
    assert bottom - top > 20


def test_a_tall_box_has_its_text_downwards() -> None:
    _, right = halves(WHITE, TALL)
    first, top, last, bottom = dark(right)
    assert first >= 600
    assert last <= 640
    assert 20 <= top < bottom <= 280
    assert bottom - top > 60 > last - first


def test_a_text_too_long_for_its_box_is_made_smaller() -> None:
    long = Line(WIDE.text * 20, 0.9, WIDE.box)
    first, top, last, bottom = dark(halves(WHITE, long)[1])
    assert 50 <= first < 70
    assert 300 < last <= 350
    assert 60 < top < bottom < 70  # a few pixels high, in the middle


def test_neighbours_have_different_colours() -> None:
    below = Line("x", 0.9, tuple((x, y + 100) for x, y in WIDE.box))
    left, _ = halves(WHITE, WIDE, below)
    assert np.abs(left[85, 340].astype(int) - left[185, 340]).max() > 30


@pytest.mark.parametrize(
    ("size", "shown"), [((20, 50), (256, 640)), ((900, 4800), (450, 2400)), ((400, 700), (400, 700))]
)
def test_small_images_are_enlarged_and_large_ones_reduced(size: tuple[int, int], shown: tuple[int, int]) -> None:
    left, right = halves(np.full((*size, 3), 255, np.uint8))
    assert left.shape[:2] == right.shape[:2] == shown


@pytest.mark.parametrize(
    "box", [((5, 5),) * 4, ((0, 0), (699, 0), (699, 0), (0, 0)), ((0, 0), (2, 0), (2, 299), (0, 299))]
)
def test_boxes_without_area_do_no_harm(box: tuple[tuple[int, int], ...]) -> None:
    assert draw(WHITE, [Line("text", 1.0, box)]).size == (1400, 300)


def test_characters_that_no_font_has_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        typeface = choose_typeface("a\U000fffff b")
    assert typeface.missing == "\U000fffff"
    assert "no font here has 1 of the text's 4 characters" in caplog.text


def test_without_system_fonts_pillows_own_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle2torch.reading.drawing.FONTS", ())
    assert choose_typeface("abc").files == dict.fromkeys("abc")
    assert halves(WHITE, WIDE)[1].min() < 60


def system_font() -> str:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, 10).path
        except OSError:
            continue
    pytest.skip("this system has none of the fonts")


def test_the_given_font_comes_first() -> None:
    font = system_font()
    assert set(choose_typeface("abc", Path(font)).files.values()) == {font}


def test_what_is_no_font_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.ttf").write_text("no font")
    with pytest.raises(SourceError, match=r"my\.ttf: cannot be read as a font .*give a \.ttf"):
        choose_typeface("abc", tmp_path / "my.ttf")


def test_the_result_can_be_saved(tmp_path: Path) -> None:
    draw(WHITE, [WIDE]).save(tmp_path / "drawing.png")
    assert Image.open(tmp_path / "drawing.png").size == (1400, 300)
