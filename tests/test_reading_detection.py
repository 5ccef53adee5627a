"""Maps to boxes, against rectangles whose boxes follow from geometry; boxes to crops."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle2torch.architectures.records import BoxPostprocessing
from paddle2torch.reading.crops import cut_out
from paddle2torch.reading.detection import box_around, find_boxes, find_outlines, sort_boxes, unclip
from support.reading_samples import overlap

HEIGHT, WIDTH = 160, 320


def page(*rectangles: tuple[int, int, int, int], value: float = 0.9) -> np.ndarray:
    """A map with rectangles (left, top, width, height) of that value."""
    probabilities = np.zeros((HEIGHT, WIDTH), np.float32)
    for left, top, width, height in rectangles:
        probabilities[top : top + height, left : left + width] = value
    return probabilities


def corners(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def grown_by(width: int, height: int) -> int:
    """Area × 1.5 / perimeter of a region's outline, which runs through the middles of its outer pixels."""
    width, height = width - 1, height - 1
    return round(width * height * 1.5 / (2 * (width + height)))


def test_a_box_grows_by_area_times_ratio_over_perimeter() -> None:
    # 99 × 19 between the middles of the outer pixels: 1881 × 1.5 / 236 = 11.96
    (box,) = find_boxes(page((60, 70, 100, 20)), HEIGHT, WIDTH)
    assert box.tolist() == corners(60 - 12, 70 - 12, 159 + 12, 89 + 12)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
def test_a_square_grows_by_a_quarter_of_its_side_times_the_ratio(ratio: float) -> None:
    outline = unclip(np.float32(corners(100, 100, 180, 180)), ratio)
    grown = 80 * ratio / 4
    assert outline.min(0).tolist() == [100 - grown] * 2
    assert outline.max(0).tolist() == [180 + grown] * 2
    # Round at the corners: as far from the corner as the sides are from theirs.
    outside = outline[(outline < 100).all(1)]
    assert np.hypot(*(outside - 100).T) == pytest.approx([grown] * len(outside), abs=1)


@pytest.mark.parametrize("angle", [-60, -30, -10, 5, 20, 40, 70])
def test_a_turned_rectangle_keeps_its_angle_and_grows_on_all_sides(angle: int) -> None:
    side, middle = 800, (400, 400)
    core = cv2.boxPoints((middle, (400, 60), angle))
    probabilities = np.zeros((side, side), np.float32)
    cv2.fillPoly(probabilities, [np.round(core).astype(np.int32)], 0.9)
    grown = 400 * 60 * 1.5 / (2 * (400 + 60))
    (box,) = find_boxes(probabilities, side, side)
    assert overlap(box, cv2.boxPoints((middle, (400 + 2 * grown, 60 + 2 * grown), angle))) > 0.95


def test_boxes_are_scaled_to_the_image_and_cut_off_at_its_edges() -> None:
    (box,) = find_boxes(page((2, 100, 80, 20)), 2 * HEIGHT, 3 * WIDTH)
    grown = grown_by(80, 20)
    assert box.tolist() == corners(0, 2 * (100 - grown), 3 * (81 + grown), 2 * (119 + grown))
    (box,) = find_boxes(page((0, 0, WIDTH, HEIGHT)), HEIGHT, WIDTH)
    assert box.tolist() == corners(0, 0, WIDTH - 1, HEIGHT - 1)


@pytest.mark.parametrize(
    ("probabilities", "settings_of"),
    [
        pytest.param(page(), {}, id="nothing"),
        pytest.param(page((60, 70, 100, 20), value=0.55), {}, id="not sure enough"),
        pytest.param(page((60, 70, 100, 20), value=0.3), {}, id="at the threshold"),
        pytest.param(page((60, 70, 100, 20), value=0.7), {"box_thresh": 0.8}, id="not sure enough for a setting"),
        pytest.param(page((60, 70, 100, 3)), {}, id="too thin"),
        pytest.param(page((60, 70, 1, 1)), {}, id="a single pixel"),
        pytest.param(page((60, 70, 100, 20), value=0.7), {"thresh": 0.75}, id="below a setting's threshold"),
        pytest.param(page((60, 70, 100, 20)), {"max_candidates": 0}, id="no candidates"),
    ],
)
def test_what_is_not_text_gives_no_box(probabilities: np.ndarray, settings_of: dict[str, float]) -> None:
    assert find_boxes(probabilities, HEIGHT, WIDTH, BoxPostprocessing(**settings_of)).shape == (0, 4, 2)


def test_what_is_not_above_the_threshold_does_not_widen_a_box() -> None:
    core = (60, 70, 100, 20)
    haloed = np.maximum(page((50, 64, 120, 32), value=0.3), page(core))
    assert find_boxes(haloed, HEIGHT, WIDTH).tolist() == find_boxes(page(core), HEIGHT, WIDTH).tolist()


@pytest.mark.parametrize(
    ("rows", "ratio", "found"),
    [
        pytest.param(3, 5.0, 0, id="two pixels of outline are too thin, however much they grow"),
        pytest.param(4, 5.0, 1, id="three are not"),
        pytest.param(4, 0.3, 0, id="but have to grow to five"),
        pytest.param(6, 0.3, 1, id="which is where five are"),
    ],
)
def test_regions_have_to_be_three_and_boxes_five_pixels_thick(rows: int, ratio: float, found: int) -> None:
    thin = page((60, 70, 100, rows))
    assert len(find_boxes(thin, 2 * HEIGHT, 2 * WIDTH, BoxPostprocessing(unclip_ratio=ratio))) == found


def test_the_mean_within_the_box_counts_not_the_highest_value() -> None:
    faint = page((60, 70, 100, 20), value=0.4)
    faint[70:90, 60:110] = 1.0  # half: mean 0.7
    assert len(find_boxes(faint, HEIGHT, WIDTH)) == 1
    faint[70:90, 90:110] = 0.4  # three tenths: mean 0.58
    assert len(find_boxes(faint, HEIGHT, WIDTH)) == 0


def test_the_slow_score_is_that_of_the_regions_own_outline() -> None:
    """Of a slanted stroke's rectangle, the corners are dark."""
    probabilities = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.fillPoly(probabilities, [np.int32([[60, 60], [160, 60], [160, 80], [240, 80], [240, 100], [60, 100]])], 0.65)
    assert len(find_boxes(probabilities, HEIGHT, WIDTH)) == 0
    assert len(find_boxes(probabilities, HEIGHT, WIDTH, BoxPostprocessing(score_mode="slow"))) == 1


def test_dilation_joins_regions_a_pixel_apart_and_moves_them_by_one() -> None:
    broken = page((60, 70, 49, 20), (110, 70, 50, 20))
    assert len(find_boxes(broken, HEIGHT, WIDTH)) == 2
    (box,) = find_boxes(broken, HEIGHT, WIDTH, BoxPostprocessing(use_dilation=True))
    (whole,) = find_boxes(page((60, 70, 101, 21)), HEIGHT, WIDTH)
    assert box.tolist() == whole.tolist()


# ---- outlines ----------------------------------------------------------------------------------------------------


def arc(turn: float = 0) -> np.ndarray:
    """A map with half a ring, 16 pixels thick, around the middle of the lower edge."""
    probabilities = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.ellipse(probabilities, (160, 150), (100, 100), turn, 180, 360, 0.9, 16)
    return probabilities


POLYGONS = BoxPostprocessing(box_type="poly")


def test_an_outline_follows_curved_text() -> None:
    (outline,) = find_outlines(arc(), HEIGHT, WIDTH, POLYGONS)
    (box,) = find_boxes(arc(), HEIGHT, WIDTH, BoxPostprocessing(box_thresh=0.1))
    assert outline.dtype == np.float32
    assert (outline == outline.round()).all()
    assert ((outline >= 0) & (outline <= [WIDTH - 1, HEIGHT - 1])).all()
    assert cv2.contourArea(outline) < 0.6 * cv2.contourArea(box)
    assert cv2.pointPolygonTest(outline, (160, 50), False) > 0  # on the arc
    assert cv2.pointPolygonTest(outline, (160, 120), False) < 0  # within it
    assert cv2.contourArea(outline) > np.count_nonzero(arc())
    assert outline[0, 1] == outline[:, 1].min()


def test_outlines_are_scaled_to_the_image_and_come_in_reading_order() -> None:
    rectangles = page((30, 120, 60, 12), (200, 30, 60, 12), (30, 34, 60, 12))
    outlines = find_outlines(rectangles, 2 * HEIGHT, 3 * WIDTH, POLYGONS)
    boxes = find_boxes(rectangles, 2 * HEIGHT, 3 * WIDTH)
    assert len(outlines) == len(boxes) == 3
    for outline, box in zip(outlines, boxes, strict=True):
        assert overlap(box_around(outline), box) > 0.9


@pytest.mark.parametrize(("probabilities", "settings_of"), [
    (arc(), {"thresh": 0.95}),
    (arc() * 0.6, {"box_thresh": 0.7}),
    (arc(), {"max_candidates": 0}),
    (page((60, 70, 1, 1)), {}),
    (page((60, 70, 100, 2)), {"unclip_ratio": 0.3}),
])  # fmt: skip
def test_what_is_not_text_gives_no_outline(probabilities: np.ndarray, settings_of: dict[str, float]) -> None:
    assert len(find_outlines(probabilities, HEIGHT, WIDTH, BoxPostprocessing(box_type="poly", **settings_of))) == 0


def test_boxes_that_the_image_makes_tiny_are_dropped() -> None:
    text = page((60, 70, 100, 20))
    assert len(find_boxes(text, 16, 32)) == 1
    assert len(find_boxes(text, 8, 16)) == 0  # 4 × 2 pixels


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_map_gives_boxes_inside_the_image_clockwise(
    rows: int, columns: int, height: int, width: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).random((rows, columns), np.float32)
    probabilities = cv2.GaussianBlur(noise, (0, 0), 2) if seed % 2 else noise
    boxes = find_boxes(probabilities + 0.2, height, width)
    assert (boxes == boxes.round()).all()
    assert ((boxes >= 0) & (boxes <= [width - 1, height - 1])).all()
    for box in boxes:
        assert cv2.contourArea(box, oriented=True) >= 0


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_rectangle_of_a_grid_is_found_once(data: st.DataObject) -> None:
    cells = data.draw(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=6))
    rectangles = [
        (column * 106 + 25, row * 80 + 25, data.draw(st.integers(12, 50)), data.draw(st.integers(8, 25)))
        for column, row in cells
    ]
    expected = []
    for left, top, width, height in rectangles:
        grown = grown_by(width, height)
        expected.append(corners(left - grown, top - grown, left + width - 1 + grown, top + height - 1 + grown))
    boxes = find_boxes(page(*rectangles), HEIGHT, WIDTH)
    assert len(boxes) == len(expected)
    for box in expected:
        assert max(overlap(found, np.float32(box)) for found in boxes) > 0.9


def box_at(left: float, top: float) -> np.ndarray:
    return np.float32(corners(left, top, left + 30, top + 8))


def test_boxes_of_a_row_are_read_from_left_to_right() -> None:
    places = [(200, 52), (10, 58), (100, 55), (10, 20), (5, 95)]
    ordered = sort_boxes([box_at(*place) for place in places])
    assert [tuple(box[0].tolist()) for box in ordered] == [(10, 20), (10, 58), (100, 55), (200, 52), (5, 95)]


def test_the_boxes_of_a_map_come_in_reading_order() -> None:
    boxes = find_boxes(page((30, 120, 60, 12), (200, 30, 60, 12), (30, 34, 60, 12)), HEIGHT, WIDTH)
    assert [(box[0] > 100).tolist() for box in boxes] == [[False, False], [True, False], [False, True]]


def test_boxes_ten_pixels_apart_are_in_two_rows() -> None:
    upper, lower = box_at(200, 50), box_at(10, 60)
    assert [box[0][0] for box in sort_boxes([lower, upper])] == [200, 10]
    lower[:, 1] -= 1
    assert [box[0][0] for box in sort_boxes([lower, upper])] == [10, 200]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12, unique=True), st.randoms())
@settings(deadline=None, derandomize=True)
def test_the_order_is_that_of_neighbours_changing_places(places: list[tuple[int, int]], random: object) -> None:
    expected = sorted(places, key=lambda place: (place[1], place[0]))
    for last in range(1, len(expected)):
        for j in range(last, 0, -1):
            (x, y), (own_x, own_y) = expected[j - 1], expected[j]
            if not (abs(own_y - y) < 10 and own_x < x):
                break
            expected[j - 1], expected[j] = expected[j], expected[j - 1]
    shuffled = list(places)
    random.shuffle(shuffled)
    ordered = sort_boxes([box_at(*place) for place in shuffled])
    assert [tuple(box[0].tolist()) for box in ordered] == expected


def quarters(height: int, width: int) -> np.ndarray:
    """An image of four colours: red, green / blue, white."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2, 0] = 255
    image[: height // 2, width // 2 :, 1] = 255
    image[height // 2 :, : width // 2, 2] = 255
    image[height // 2 :, width // 2 :] = 255
    return image


NAMES = {(255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue", (255, 255, 255): "white"}


def layout(crop: np.ndarray) -> list[str]:
    """Its corners' colours, clockwise from the top left."""
    places = ((2, 2), (2, -3), (-3, -3), (-3, 2))
    return [NAMES[tuple(crop[place].tolist())] for place in places]


@pytest.mark.parametrize("angle", [0, 15, -25])
def test_a_turned_box_is_straightened(angle: int) -> None:
    turn = cv2.getRotationMatrix2D((200, 200), angle, 1)
    image = np.zeros((400, 400, 3), np.uint8)
    image[170:230, 120:280] = quarters(60, 160)
    image = cv2.warpAffine(image, turn, (400, 400))
    box = np.float32(corners(120, 170, 280, 230)) @ turn[:, :2].T + turn[:, 2]
    crop = cut_out(image, box)
    assert crop.shape == (60, 160, 3) or angle
    assert abs(np.array(crop.shape[:2]) - (60, 160)).max() <= 1
    assert layout(crop) == ["red", "green", "white", "blue"]


@pytest.mark.parametrize(("height", "turned"), [(59, False), (60, True)])
def test_a_tall_box_is_laid_down(height: int, turned: bool) -> None:
    image = quarters(height, 40)
    crop = cut_out(image, np.float32(corners(0, 0, 40, height)))
    assert crop.shape == ((40, height, 3) if turned else (height, 40, 3))
    assert layout(crop) == (["green", "white", "blue", "red"] if turned else ["red", "green", "white", "blue"])


def test_a_crop_is_as_wide_as_the_longer_of_two_sides() -> None:
    box = np.float32([[10, 10], [110, 10], [90, 50], [10, 40]])
    assert cut_out(quarters(100, 200), box).shape == (int(math.hypot(20, 40)), 100, 3)
