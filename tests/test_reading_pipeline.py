"""From image to lines, with networks that name colours, and with the embedded recogniser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle2torch.architectures import create_model, load_model
from paddle2torch.converter import zoo
from paddle2torch.converter.conversion.convert import Conversion
from paddle2torch.converter.support.errors import ConverterError, DownloadError, MappingError, SourceError
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.download import Fetcher
from paddle2torch.reading import Line, Reader
from paddle2torch.reading.network import Network, convert_source, from_module
from support.reading_samples import (
    COLOURS,
    DETECTOR,
    LABELS,
    LINE,
    PAGE,
    RECOGNISER,
    bars,
    classifier,
    name_colours,
)

EMBEDDED = Path(zoo.__file__).parent / "embedded"
SAMPLE, SAYS = EMBEDDED / "sample.png", (EMBEDDED / "sample.txt").read_text().strip()


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


# ---- the steps -----------------------------------------------------------------------------------------------------


def test_lines_come_from_top_to_bottom_with_their_boxes_and_scores() -> None:
    lines = Reader(DETECTOR, None, RECOGNISER).read(bars(("red", 300), ("blue", 90), ("green", 450)))
    assert texts(lines) == ["red", "blue", "green"]
    for line, top, right in zip(lines, (40, 100, 160), (400, 190, 550), strict=True):
        (left, upper), (edge, _), (_, lower), _ = line.box
        assert left < 100 < right <= edge
        assert upper < top < top + 20 <= lower
        assert line.score == pytest.approx(0.9)


@given(
    rows=st.lists(st.tuples(st.sampled_from(sorted(COLOURS)), st.integers(30, 500)), max_size=9),
    batch_size=st.integers(1, 10),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_each_line_keeps_its_text_whatever_the_batches(rows: list[tuple[str, int]], batch_size: int) -> None:
    reader = Reader(DETECTOR, classifier(turned=0.2), RECOGNISER, batch_size=batch_size)
    image = bars(*rows) if rows else np.zeros((50, 60, 3), np.uint8)
    assert texts(reader.read(image)) == [colour for colour, _ in rows]


def test_lines_of_like_length_share_a_batch() -> None:
    shapes: list[tuple[int, ...]] = []

    def run(inputs: np.ndarray) -> np.ndarray:
        shapes.append(inputs.shape)
        return name_colours(inputs)

    reader = Reader(DETECTOR, None, replace(RECOGNISER, run=run), batch_size=2)
    reader.read(bars(("red", 500), ("blue", 40), ("green", 510), ("red", 45), ("blue", 250)))
    assert [shape[0] for shape in shapes] == [2, 2, 1]
    assert shapes[0][3] == 64  # the usual width
    assert shapes[0][3] < shapes[1][3] < shapes[2][3]


@pytest.mark.parametrize(("certainty", "expected"), [(0.49, []), (0.51, ["red"])])
def test_lines_that_the_recogniser_is_not_sure_of_are_dropped(certainty: float, expected: list[str]) -> None:
    unsure = replace(RECOGNISER, run=lambda inputs: name_colours(inputs, certainty))
    assert texts(Reader(DETECTOR, None, unsure).read(bars(("red", 300)))) == expected
    assert texts(Reader(DETECTOR, None, unsure, drop_score=0).read(bars(("red", 300)))) == ["red"]


@pytest.mark.parametrize(("sure", "expected"), [(0.85, "red"), (0.95, "blue")])
def test_a_line_is_turned_when_the_classifier_is_sure_enough(sure: float, expected: str) -> None:
    image = bars(("red", 300))
    image[:, 250:][image[:, 250:].any(2)] = COLOURS["blue"]  # the bar's right half
    assert texts(Reader(DETECTOR, classifier(sure), RECOGNISER).read(image)) == [expected]


def test_a_line_alone_needs_no_detector_and_is_kept_however_unsure() -> None:
    unsure = replace(RECOGNISER, run=lambda inputs: name_colours(inputs, 0.3))
    (line,) = Reader(det=None, rec=unsure).read(np.full((20, 50, 3), COLOURS["pink"], np.uint8))
    assert line == Line("pink", pytest.approx(0.3), ((0, 0), (49, 0), (49, 19), (0, 19)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2000), (31, 32)])
@pytest.mark.parametrize("level", [0, 255])
def test_images_of_any_shape_pass(shape: tuple[int, int], level: int) -> None:
    image = np.full((*shape, 3), (level, 0, 0), np.uint8)
    lines = Reader(DETECTOR, classifier(turned=0.95), RECOGNISER).read(image)
    assert all(line.text == "red" for line in lines)
    assert lines == [] or level


def test_an_image_without_text_has_no_lines_and_the_recogniser_is_not_asked() -> None:
    def run(inputs: np.ndarray) -> np.ndarray:
        raise AssertionError(inputs.shape)

    reader = Reader(DETECTOR, replace(classifier(0.1), run=run), replace(RECOGNISER, run=run))
    assert reader.read(np.zeros((70, 90, 3), np.uint8)) == []


def test_an_image_with_a_side_that_opencv_cannot_cut_is_refused() -> None:
    with pytest.raises(SourceError, match=r"has 40000 × 2 pixels; make no side longer than 32766"):
        Reader(DETECTOR, None, RECOGNISER).read(np.zeros((2, 40000, 3), np.uint8))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)],
    ids=["grey", "alpha", "floating point", "empty"],
)
def test_an_array_that_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"an image is uint8 \(H, W, 3\)"):
        Reader(DETECTOR, None, RECOGNISER).read(image)


# ---- models --------------------------------------------------------------------------------------------------------


@cache
def embedded() -> Conversion:
    return convert_source("embedded_rec", fetcher=Fetcher(offline=True))


def by_name(_: Path) -> str:
    return "embedded_rec"


def by_tarball(_: Path) -> Path:
    return EMBEDDED / "embedded_rec_train.tar"


def by_file(folder: Path) -> Path:
    return artifacts.write(embedded(), folder)[1]


def by_module(folder: Path) -> torch.nn.Module:
    return load_model(artifacts.write(embedded(), folder)[0]).train()


def by_foreign_file(folder: Path) -> Path:
    torch.save(embedded().state, folder / "foreign.pth")
    return folder / "foreign.pth"


@pytest.mark.parametrize(
    ("model", "dictionary"),
    [
        (by_name, None),
        (by_tarball, "embedded_dict.txt"),
        (by_file, None),
        (by_module, None),
        (by_foreign_file, "embedded_dict.txt"),
    ],
)
def test_a_recogniser_is_a_name_a_file_or_a_module(
    model: Callable[[Path], object], dictionary: str | None, tmp_path: Path
) -> None:
    characters = EMBEDDED / dictionary if dictionary else None
    reader = Reader(det=None, rec=model(tmp_path), dictionary=characters, fetcher=Fetcher(offline=True))
    (line,) = reader.read(SAMPLE)
    assert line.text == SAYS
    assert line.score > 0.9


def other_characters(folder: Path) -> Path:
    (folder / "other.txt").write_text("\n".join(map(chr, range(0x2600, 0x2600 + 62))), encoding="utf-8")
    return folder / "other.txt"


def test_a_dictionary_replaces_the_characters_that_come_with_a_file(tmp_path: Path) -> None:
    reader = Reader(det=None, rec=by_file(tmp_path), dictionary=other_characters(tmp_path))
    characters = (EMBEDDED / "embedded_dict.txt").read_text().splitlines()
    (line,) = reader.read(SAMPLE)
    assert line.text == "".join(chr(0x2600 + characters.index(character)) for character in SAYS)


def refused(tmp_path: Path, role: str) -> Callable[[], object]:
    short = tmp_path / "short.txt"
    short.write_text("a\nb\n")
    unknown = torch.nn.Linear(2, 3)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no")
    return {
        "no such name": lambda: Reader(det=None, rec="embeded_rec"),
        "no such file": lambda: Reader(det=None, rec=tmp_path / "gone.pth"),
        "broken file": lambda: Reader(det=None, rec=broken),
        "another task": lambda: Reader(det=None, rec=DETECTOR),
        "no labels": lambda: Reader(det=None, rec=by_foreign_file(tmp_path)),
        "unfit labels": lambda: Reader(det=None, rec=by_file(tmp_path), dictionary=short),
        "no dictionary": lambda: Reader(det=None, rec=by_file(tmp_path), dictionary=tmp_path / "gone.txt"),
        "unknown module": lambda: Reader(det=None, rec=unknown),
    }[role]


@pytest.mark.parametrize(
    ("role", "error", "message"),
    [
        ("no such name", SourceError, "did you mean embedded_rec"),
        ("no such file", SourceError, r"gone\.pth: there is no such file"),
        ("broken file", SourceError, r"broken\.safetensors: not a safetensors file"),
        ("another task", SourceError, r"bars: is for another task \(detector\); wanted here: recogniser"),
        ("no labels", SourceError, r"foreign\.pth: nothing tells what its classes stand for; give its dictionary"),
        ("unfit labels", MappingError, r"short\.txt with 2 characters makes 3 or 4 classes, the head has 63"),
        ("no dictionary", SourceError, r"gone\.txt: the dictionary cannot be read"),
        ("unknown module", SourceError, "Linear: is none of the known architectures"),
    ],
)
def test_a_model_that_will_not_do_is_named(
    role: str, error: type[ConverterError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        refused(tmp_path, role)()


@pytest.mark.parametrize(
    ("architecture", "task", "labels"),
    [("det_mobilenet_v3_rsefpn", "det", None), ("cls_mobilenet_v3", "cls", ["0", "180"])],
)
def test_a_module_without_metadata_is_recognised(architecture: str, task: str, labels: list[str] | None) -> None:
    module = create_model(architecture)
    network = from_module(module)
    assert (network.task, network.labels, module.training) == (task, labels, False)
    shape = (1, 3, 32, 64) if task == "det" else (1, 3, 48, 192)
    assert network.run(np.zeros(shape, np.float32)).shape == ((1, 1, 32, 64) if task == "det" else (1, 2))


def test_the_mirror_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE2TORCH_MIRROR", str(tmp_path))
    monkeypatch.setenv("PADDLE2TORCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DownloadError, match=re.escape(str(tmp_path))):
        Reader(det=None, rec="french_mobile_v2.0_rec")


def test_any_callable_is_a_network() -> None:
    constant = Network("constant", "rec", lambda inputs: np.float32([[[0, 1], [0, 1]]] * len(inputs)), PAGE, LABELS[:2])
    assert texts(Reader(det=None, rec=constant).read(np.zeros((32, 32, 3), np.uint8))) == ["red"]


# ---- pages that are turned ----------------------------------------------------------------------------------------


def pages(turned: int) -> Network:
    """A classifier of pages that takes every page for turned, by so many quarters clockwise."""
    return Network(
        "pages",
        "cls",
        lambda inputs: np.eye(4, dtype=np.float32)[[turned] * len(inputs)],
        LINE,
        ["0", "90", "180", "270"],
    )


@pytest.mark.parametrize("turned", range(4))
def test_a_turned_page_is_read_upright_and_its_boxes_lie_in_the_page_as_it_was(turned: int) -> None:
    upright = bars(("red", 300), ("green", 200), ("blue", 150))
    page = np.ascontiguousarray(np.rot90(upright, -turned))
    expected = Reader(DETECTOR, None, RECOGNISER).read(upright)
    found = Reader(DETECTOR, None, RECOGNISER, doc=pages(turned)).read(page)
    assert [line.text for line in found] == [line.text for line in expected] == ["red", "green", "blue"]
    for line, colour in zip(found, ("red", "green", "blue"), strict=True):
        (left, top), (right, bottom) = np.min(line.box, 0), np.max(line.box, 0)
        bar, inside = (page == COLOURS[colour]).all(2), np.s_[top : bottom + 1, left : right + 1]
        assert bar[inside].sum() == bar.sum() > 0.3 * bar[inside].size
        # The first side of a box is that above the text.
        along = np.array(line.box[1]) - np.array(line.box[0])
        assert np.array_equal(np.sign(np.round(along / 20)), [(1, 0), (0, 1), (-1, 0), (0, -1)][turned])


def test_a_page_that_is_taken_for_upright_stays_as_it_is() -> None:
    image = bars(("red", 300))
    assert Reader(DETECTOR, None, RECOGNISER, doc=pages(0)).read(image) == Reader(DETECTOR, None, RECOGNISER).read(
        image
    )


def test_a_classifier_of_other_classes_cannot_turn_pages() -> None:
    other = Network("kinds", "cls", lambda inputs: inputs, LINE, ["letter", "bill"])
    with pytest.raises(
        SourceError, match="kinds: its classes are 'letter', 'bill'; for pages a classifier of the angles"
    ):
        Reader(DETECTOR, None, RECOGNISER, doc=other)
