"""The command line: what it prints where, its exit codes, and that it stays light."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from paddle2torch.cli import main
from paddle2torch.converter.cli.zoo import fitting
from support.checkpoints import random_tensors, write_checkpoint

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Runs a command in this process; nothing it raises is swallowed but exits."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_folder_with_the_name_of_a_model_of_the_zoo_is_told_of(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embedded_rec").mkdir()
    checkpoint.rename("embedded_rec/best_accuracy.pdparams")
    words = (
        "embedded_rec: a model of the zoo is called so, and is taken; for the file or folder here give ./embedded_rec"
    )
    for command in (("inspect",), ("verify", "--reference", "graph"), ("convert", "--output", "out")):
        result = run(command[0], "embedded_rec", *command[1:])
        assert (result.exit_code, words in result.stderr) == (0, True), result.stderr
    result = run("convert", "./embedded_rec", "--output", "here")
    assert (result.exit_code, words in result.stderr) == (0, False)
    assert json.loads(Path("here/embedded_rec.json").read_text())["architecture"] == "cls_mobilenet_v3"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "angle.pdparams", random_tensors("cls_mobilenet_v3"))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "--json"], ["convert", "--help"], ["info", "ch_PP-OCRv3_rec"]]
)
def test_light_commands_import_no_framework(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom paddle2torch.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'paddle')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_list_shows_every_model_and_filters(run: Run) -> None:
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "TASK", "GENERATION", "SIZE", "LANGUAGES"]
    assert len(lines) == 1 + 96 + 1  # heading, the released models, the embedded one
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in run("list", "--task", "cls").stdout.splitlines()[1:]] == [
        "ch_ppocr_mobile_v2.0_cls",
        "PP-LCNet_x1_0_textline_ori",
        "PP-LCNet_x0_25_textline_ori",
        "PP-LCNet_x1_0_doc_ori",
    ]
    rows = run("list", "--generation", "pp-ocrv5", "--language", "Russian").stdout.splitlines()[1:]
    assert [row.split()[:3] for row in rows] == [
        [f"{script}_PP-OCRv5_mobile_rec", "rec", "PP-OCRv5"] for script in ("eslav", "cyrillic")
    ]


def test_a_long_list_of_languages_is_cut_to_the_width_and_counted(run: Run) -> None:
    (row,) = run("list", "--language", "Newari").stdout.splitlines()[1:]
    assert row.endswith("Devanagari script +11")
    assert fitting(["Chinese", "English"], 16) == "Chinese, English"
    assert fitting(["Chinese", "English", "Thai"], 20) == "Chinese, English +1"
    assert fitting(["Traditional Chinese", "English"], 5) == "Traditional Chinese +1"


def test_a_filter_that_nothing_fits_says_what_it_did_not_match(run: Run) -> None:
    result = run("list", "--generation", "PP-OCRv7")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("there is no generation 'PP-OCRv7'; there are PP-OCRv6, PP-OCRv5, PP-OCRv4,")
    result = run("list", "--json", "--language", "frensh")
    assert json.loads(result.stdout) == []
    assert result.stderr == "no model names the language 'frensh'; did you mean French?\n"
    assert "no model fits all of --task cls, --language Korean; without --task 4, without --language 4" in (
        run("list", "--task", "cls", "--language", "Korean").stderr
    )


def test_list_as_json_can_be_read_back(run: Run) -> None:
    models = json.loads(run("list", "--json", "--release", "PP-OCRv2").stdout)
    assert {model["name"] for model in models} == {"ch_PP-OCRv2_det", "ch_PP-OCRv2_rec"}
    assert models[0]["artifacts"]["inference"]["url"].startswith("https://paddleocr.bj.bcebos.com/PP-OCRv2/")


def test_info_tells_urls_and_dictionary(run: Run) -> None:
    text = run("info", "ch_PP-OCRv2_rec").stdout
    assert "https://paddleocr.bj.bcebos.com/PP-OCRv2/chinese/ch_PP-OCRv2_infer.tar" in text
    assert "or https://paddleocr.bj.bcebos.com/PP-OCRv2/chinese/ch_PP-OCRv2_rec_infer.tar" in text
    assert "ppocr_keys_v1.txt + space" in text


def test_info_is_of_the_name_that_was_asked_for(run: Run) -> None:
    lines = run("info", "ch_PP-OCRv4_rec").stdout.splitlines()
    assert lines[0] == "ch_PP-OCRv4_rec"
    assert "  also called   PP-OCRv4_mobile_rec" in lines
    (first,) = (line for line in lines if line.startswith("  inference "))
    assert first.endswith("/PP-OCRv4/chinese/ch_PP-OCRv4_rec_infer.tar")
    assert "--as-graph" in run("info", "SLANet_plus").stderr


def test_convert_prints_results_on_stdout_and_the_story_on_stderr(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    result = run("convert", checkpoint, "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        str(tmp_path / "out" / f"angle.{end}") for end in ("pth", "safetensors", "json")
    ]
    assert "recognised: 213 of 213 names and shapes match" in result.stderr


def test_inspect_finds_architecture_and_evidence(run: Run, checkpoint: Path) -> None:
    text = run("inspect", checkpoint).stdout
    assert "angle.pdparams: trained model, 213 tensors (213 float32)" in text
    assert "architecture  cls_mobilenet_v3" in text
    report = json.loads(run("inspect", checkpoint, "--json").stdout)
    assert (report["architecture"], report["parameters"]) == ("cls_mobilenet_v3", {"disable_se": False, "classes": 2})


def test_inspect_says_when_nothing_fits(run: Run, tmp_path: Path) -> None:
    tensors = random_tensors("cls_mobilenet_v3")
    tensors["head.extra"] = tensors["head.fc.bias"]
    result = run("inspect", write_checkpoint(tmp_path / "odd.pdparams", tensors))
    assert result.exit_code == 0
    assert "none of this list" in result.stdout
    assert "left over: head.extra" in result.stdout


def test_there_and_back_through_the_command_line(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    run("convert", checkpoint, "--output", tmp_path / "torch")
    back = run("convert", "--to", "paddle", tmp_path / "torch" / "angle.pth", "--output", tmp_path / "paddle")
    assert back.stdout.splitlines() == [str(tmp_path / "paddle" / "angle.pdparams")]
    same = run("compare", checkpoint, tmp_path / "paddle" / "angle.pdparams")
    assert (same.exit_code, same.stdout) == (0, "213 tensors are bit-identical, 0 differ\n")


def test_compare_exits_with_1_when_anything_differs(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other.pdparams", random_tensors("cls_mobilenet_v3", seed=1))
    result = run("compare", checkpoint, other)
    assert result.exit_code == 1
    assert "values     head.fc.weight  max|a−b| = " in result.stdout


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["info", "ch_PP-OCRv3_dett"], 3, "did you mean ch_PP-OCRv3_det"),
    (["convert", "none/x.tar"], 3, "error: none/x.tar: there is no such file or folder"),
    (["convert", "ml_PP-OCRv3_det", "--kind", "pretrained"], 3, "lists no pretrained tarball"),
    (["convert", "--to", "paddle", "none.pth"], 3, "there is no such file"),
    (["convert"], 2, "name a SOURCE, or give --all"),
    (["list", "--task", "ocr"], 2, "'ocr' is not one of 'det', 'rec', 'cls'"),
])  # fmt: skip
def test_errors_are_one_line_with_their_exit_code(run: Run, arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_nothing_is_written_when_anything_is_amiss(run: Run, tmp_path: Path) -> None:
    tensors = random_tensors("cls_mobilenet_v3")
    del tensors["head.fc.bias"]
    path = write_checkpoint(tmp_path / "short.pdparams", tensors)
    result = run("convert", path, "--output", tmp_path / "out")
    assert result.exit_code == 8
    assert "missing: head.fc.bias" in result.stderr
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(run: Run) -> None:
    assert run("--debug", "info", "nothing").exception is not None
    assert type(run("--debug", "info", "nothing").exception).__name__ == "SourceError"


def test_an_interrupt_at_the_very_end_is_not_heeded() -> None:
    """Exit handlers, such as PyTorch's, tidy up in peace."""
    code = (
        "import atexit, os, signal\nfrom paddle2torch.cli import main\n"
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), print('tidied up')))\n"
        "main(['list'], standalone_mode=False)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "tidied up"
    assert "Traceback" not in ended.stderr
