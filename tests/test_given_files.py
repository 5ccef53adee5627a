"""Files that the user names: pipes and devices are not waited for, and a wish that cannot be met is an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from paddle2torch.cli import main
from paddle2torch.converter.support import given
from paddle2torch.converter.support.errors import SourceError
from paddle2torch.converter.support.given import read_given
from paddle2torch.converter.zoo import catalog
from support.checkpoints import random_tensors, write_checkpoint

EMBEDDED = Path(catalog.__file__).with_name("embedded")
SAMPLE = str(EMBEDDED / "sample.png")
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in an empty folder with a checkpoint, mine.pdparams."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "mine.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11))
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def test_only_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.txt").write_bytes(b"a\n")
    assert read_given(tmp_path / "d.txt", "dictionary") == b"a\n"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(
            SourceError, match=f"^{path}: the dictionary is to be a file, and this is a folder, pipe or"
        ):
            read_given(path, "dictionary")
    for path in (tmp_path / "none", Path("x" * 2000), Path("a\0b")):
        with pytest.raises(SourceError, match=r": the dictionary cannot be read \(.*\); check the path$"):
            read_given(path, "dictionary")
    monkeypatch.setattr(given, "LARGEST", 1)
    with pytest.raises(SourceError, match=r"d\.txt: is too large for a dictionary \(2 bytes\)"):
        read_given(tmp_path / "d.txt", "dictionary")


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "mine.pdparams", "--dict", "pipe"),
        ("convert", "mine.pdparams", "--config", "pipe"),
        ("verify", "mine.pdparams", "--dict", "pipe"),
        ("export", "mine.pdparams", "--dict", "/dev/zero"),
        ("read", SAMPLE, "--det", "none", "--rec", "mine.pdparams", "--dict", "pipe"),
    ],
)
def test_no_command_waits_for_a_pipe(arguments: tuple[str, ...], run: Run) -> None:
    os.mkfifo("pipe")
    result = run(*arguments)
    assert result.exit_code == 3
    assert "is to be a file, and this is a folder, pipe or device" in result.stderr


SHORT, LABELS = "short.txt", "labels.txt"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("convert", "mine.pdparams", "--dict", SHORT), 8, "2 characters makes 3 or 4 classes, the head has 11"),
        (("export", "mine.pdparams", "--dict", SHORT), 8, "2 characters makes 3 or 4 classes, the head has 11"),
        (("export", "done/mine.pth", "--dict", SHORT), 8, "2 characters makes 3 or 4 classes, the head has 11"),
        (("read", SAMPLE, "--det", "none", "--rec", "mine.pdparams", "--dict", SHORT), 8, "makes 3 or 4 classes, the he"),
        (("read", SAMPLE, "--det", "none", "--rec", "done/mine.pth", "--dict", SHORT), 8, "makes 3 or 4 classes, the he"),
        (("convert", "mine.pdparams", "--kind", "trained"), 3, "mine.pdparams: is no model of the zoo, for which alone"),
        (("convert", "embedded_rec", "--as-graph", "--config", SHORT), 3, "program itself is the network, for which --config"),
        (("convert", "embedded_rec", "--as-graph", "--architecture", "det_x"), 3, "for which --architecture means noth"),
        (("verify", "embedded_rec", "--as-graph", "--branch", "Teacher"), 3, "for which --branch means nothing; leave"),
        (("verify", "embedded_rec", "--reference", "graph", "--tolerance", "nan"), 3, "--tolerance: nan is no relative err"),
        (("verify", "embedded_rec", "--reference", "graph", "--tolerance", "inf"), 3, "--tolerance: inf is no relative err"),
        (("verify", "embedded_rec", "--reference", "graph", "--tolerance", "-1"), 3, "--tolerance: -1.0 is no relative er"),
        (("convert", "embedded_rec", "--reference", "graph"), 2, "--reference goes with --verify"),
        (("convert", "--to", "paddle", "done/mine.pth", "--verify"), 2, "--verify goes with --to torch"),
        (("convert", "--to", "paddle", "done/mine.pth", "--dict", SHORT), 3, "--dict means nothing; leave it out"),
        (("export", "done/mine.pth", "--as-graph"), 3, "done/mine.pth: is a converted file, for which --as-graph means"),
        (("inspect", "done/mine.pth", "--branch", "Teacher"), 3, "for which --branch means nothing"),
        (("convert", "done/mine.pth"), 3, "done/mine.pth: holds PyTorch weights already: paddle2torch.load_model loads"),
        (("verify", "done/mine.safetensors"), 3, "`verify SOURCE --weights done/mine.safetensors` compares them"),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_met_is_an_error_and_nothing_is_written(
    arguments: tuple[str, ...], code: int, message: str, run: Run
) -> None:
    assert run("convert", "mine.pdparams", "--output", "done").exit_code == 0
    Path(SHORT).write_text("a\nb\n")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_list_of_labels_is_a_dictionary_too(run: Run) -> None:
    Path(LABELS).write_text("".join(f"{label}\n" for label in ["blank", *"0123456789"]))
    assert run("convert", "mine.pdparams", "--output", "done").exit_code == 0
    for source in ("mine.pdparams", "done/mine.pth"):
        result = run("export", source, "--format", "torchscript", "--dict", LABELS, "--output", "out")
        assert result.exit_code == 0, result.stderr
        assert "no labels" not in result.stderr


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_inspect_says_of_a_converted_file_what_it_is_and_what_to_do(suffix: str, run: Run) -> None:
    assert run("convert", "mine.pdparams", "--output", "done").exit_code == 0
    lines = run("inspect", f"done/mine.{suffix}").stdout
    assert "rec_mobilenet_v3_bilstm_ctc, scale = 0.5, " in lines
    assert "hidden_size = 48, classes = 11\n" in lines
    assert "from mine.pdparams, sha256 " in lines
    assert f'paddle2torch.load_model("done/mine.{suffix}")' in lines
    assert f"paddle2torch verify mine.pdparams --weights done/mine.{suffix}" in lines
    Path("done/mine.json").unlink()
    assert ("told by the tensors" in run("inspect", f"done/mine.{suffix}").stdout) == (suffix == "pth")
    assert '"metadata": ' in run("inspect", f"done/mine.{suffix}", "--json").stdout


def test_results_of_one_name_are_told_apart_by_every_command(run: Run) -> None:
    for folder in ("plates", "meters"):
        Path(folder).mkdir()
        Path("mine.pdparams").with_name("best.pdparams").write_bytes(Path("mine.pdparams").read_bytes())
        Path("best.pdparams").rename(f"{folder}/best.pdparams")
    sources = ("plates/best.pdparams", "meters/best.pdparams")
    assert run("convert", *sources, "--output", "done").exit_code == 0
    assert run("export", *sources, "--format", "torchscript", "--output", "exported").exit_code == 0
    assert {path.stem for path in Path("done").iterdir()} == {"plates_best", "meters_best"}
    assert {path.name for path in Path("exported").iterdir()} == {"plates_best.torchscript", "meters_best.torchscript"}
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(f"{folder}/model.tar").write_bytes((EMBEDDED / "embedded_rec_infer.tar").read_bytes())
        Path(f"{folder}/best.pth").write_bytes(Path("done/plates_best.pth").read_bytes())
    assert run("convert", "--to", "paddle", "a/best.pth", "b/best.pth", "--output", "back").exit_code == 0
    assert {path.name for path in Path("back").iterdir()} == {"a_best.pdparams", "b_best.pdparams"}
    verified = run("verify", "a/model.tar", "b/model.tar", "--reference", "graph", "--report", "reports")
    assert verified.exit_code == 0, verified.stderr
    assert {path.name for path in Path("reports").iterdir()} == {"a_model", "b_model"}
    result = run("convert", "done/plates_best.pth", "done/plates_best.safetensors", "--to", "paddle", "--output", "no")
    assert (result.exit_code, Path("no").exists()) == (3, False)
    assert "their results would have one name" in result.stderr
