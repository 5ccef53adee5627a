"""`paddle2torch read`, with the embedded recogniser: what it prints, draws and refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from paddle2torch.cli import main
from paddle2torch.converter import zoo
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.download import Fetcher
from paddle2torch.reading.command import drawings
from paddle2torch.reading.network import convert_source

LINE = ("--det", "none")
EMBEDDED = Path(zoo.__file__).parent / "embedded"
SAMPLE, SAYS = EMBEDDED / "sample.png", (EMBEDDED / "sample.txt").read_text().strip()

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded recogniser, converted."""
    conversion = convert_source("embedded_rec", fetcher=Fetcher(offline=True))
    return artifacts.write(conversion, tmp_path_factory.mktemp("converted"))[1]


@pytest.fixture
def run(recogniser: Path) -> Run:
    """Runs the command in this process, with that recogniser unless told otherwise."""
    return lambda *arguments: CliRunner().invoke(main, ["read", "--rec", str(recogniser), *map(str, arguments)])


def test_a_line_is_read_without_any_download() -> None:
    result = CliRunner().invoke(main, ["read", str(SAMPLE), *LINE, "--rec", "embedded_rec", "--offline"])
    assert result.stdout.split()[-1] == SAYS


@pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")
def test_paddle_reads_the_same() -> None:
    arguments = ["read", str(SAMPLE), *LINE, "--rec", "embedded_rec", "--offline"]
    assert CliRunner().invoke(main, [*arguments, "--engine", "paddle"]).stdout.split()[-1] == SAYS


def test_it_prints_score_box_and_text(run: Run) -> None:
    result = run(SAMPLE, *LINE)
    assert result.exit_code == 0, result.output
    score, *corners, text = result.stdout.split()
    assert float(score) > 0.9
    assert corners == ["0,0", "296,0", "296,47", "0,47"]
    assert text == SAYS


def test_as_json_it_prints_every_image_with_its_lines(run: Run) -> None:
    (image,) = json.loads(run(SAMPLE, *LINE, "--json").stdout)
    assert image["image"] == str(SAMPLE)
    (line,) = image["lines"]
    assert (line["text"], line["box"]) == (SAYS, [[0, 0], [296, 0], [296, 47], [0, 47]])
    assert 0.9 < line["score"] <= 1


def test_several_images_have_their_names_above_and_a_broken_one_stops_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    Image.new("RGB", (200, 32), "white").save(tmp_path / "blank.png")
    result = run(SAMPLE, tmp_path / "broken.png", tmp_path / "blank.png", *LINE)
    assert result.exit_code == 3
    assert result.stdout.splitlines()[0] == f"{SAMPLE}:"
    assert result.stdout.splitlines()[1].endswith(SAYS)
    assert result.stdout.splitlines()[2:] == [f"{tmp_path / 'blank.png'}:"]
    assert "broken.png: is not an image of a format that is read" in result.stderr
    assert "blank.png: no text found" in result.stderr
    assert result.stderr.endswith("error: 1 of 3 images could not be read\n")


def test_a_checkpoint_is_read_with_its_own_dictionary(run: Run) -> None:
    tarball, dictionary = EMBEDDED / "embedded_rec_train.tar", EMBEDDED / "embedded_dict.txt"
    result = run(SAMPLE, *LINE, "--rec", tarball, "--dict", dictionary)
    assert result.stdout.split()[-1] == SAYS
    assert "its dictionary (--dict)" in run(SAMPLE, *LINE, "--rec", tarball).stderr


def test_the_drawing_of_an_image_is_the_file_named(run: Run, tmp_path: Path) -> None:
    for name in ("line.png", "line.JPG"):
        result = run(SAMPLE, *LINE, "--draw", tmp_path / "drawn" / name)
        assert result.exit_code == 0, result.output
        assert f"drawn: {tmp_path / 'drawn' / name}" in result.stderr
        with Image.open(tmp_path / "drawn" / name) as drawing:
            assert (drawing.format, drawing.width) == ("JPEG" if name.endswith("JPG") else "PNG", 2 * 640)


def test_the_drawings_of_several_images_go_into_a_folder(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (200, 32), "white").save(tmp_path / "blank.png")
    result = run(SAMPLE, tmp_path / "blank.png", *LINE, "--draw", tmp_path / "drawn")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["blank.png", "sample.png"]


def test_one_image_may_be_drawn_into_a_folder_that_is_there(tmp_path: Path) -> None:
    assert drawings((Path("a/b.jpg"),), tmp_path) == {Path("a/b.jpg"): tmp_path / "b.png"}
    assert drawings((Path("a/1.png"), Path("b/1")), tmp_path) == {
        Path("a/1.png"): tmp_path / "a_1.png",
        Path("b/1"): tmp_path / "b_1.png",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param([], 2, "Missing argument 'IMAGE...'", id="no image"),
        pytest.param(["a.png", "--draw", "out.xyz"], 2, "end its name in one of .png, .jpg", id="unknown suffix"),
        pytest.param(
            ["a/1.png", "a/1.jpg", "--draw", "out"], 3, "a/1.png and a/1.jpg: their results", id="drawings of one name"
        ),
        pytest.param(["gone.png", *LINE], 3, "error: gone.png: there is no such image", id="no such image"),
        pytest.param([SAMPLE, "--det", "nonne"], 3, "nonne: no model of that name in the zoo", id="no such model"),
        pytest.param(
            [SAMPLE, "--det", EMBEDDED / "embedded_rec_infer.tar"],
            3,
            "embedded_rec_infer: is for another task (recogniser); wanted here: detector",
            id="wrong task",
        ),
        pytest.param([SAMPLE, *LINE, "--draw", "o.png", "--font", "f.ttf"], 3, "f.ttf: cannot be read", id="no font"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[object], code: int, message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PADDLE2TORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PADDLE2TORCH_MIRROR", raising=False)
    result = run(*arguments, "--offline")
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_installation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    result = run(SAMPLE, *LINE)
    assert result.exit_code == 13
    assert "pip install 'paddle2torch[reading]'" in result.stderr
    assert "Traceback" not in result.output


def test_a_line_alone_asks_for_no_classifier_and_a_page_does(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PADDLE2TORCH_MIRROR", str(tmp_path))  # has nothing
    monkeypatch.setenv("PADDLE2TORCH_CACHE", str(tmp_path / "cache"))
    assert run(SAMPLE, *LINE).exit_code == 0
    assert run(SAMPLE, *LINE, "--no-cls").exit_code == 0
    assert "ch_ppocr_mobile_v2.0_cls" in run(SAMPLE, *LINE, "--cls", "ch_ppocr_mobile_v2.0_cls").stderr
    assert "PP-OCRv6_small_det" in run(SAMPLE, "--no-cls").stderr


def test_a_classifier_and_none_are_not_both_to_be_had(run: Run) -> None:
    result = run(SAMPLE, *LINE, "--cls", "ch_ppocr_mobile_v2.0_cls", "--no-cls")
    assert (result.exit_code, "contradict each other" in result.stderr) == (2, True)


def test_the_first_line_of_the_help_says_what_it_does() -> None:
    assert "Read the text in images" in CliRunner().invoke(main, ["--help"]).stdout
