"""What errors call the things that a user can say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import paddle2torch
from paddle2torch.cli import main
from paddle2torch.converter.cli.common import choosing_with_labels
from paddle2torch.converter.support.arguments import ARGUMENTS, SAME, as_arguments
from paddle2torch.converter.support.errors import ConverterError
from support.checkpoints import random_tensors, write_checkpoint


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("give it with --dict", "give it with dictionary"),
        ("--as-graph converts it", "as_graph=True converts it"),
        ("(--mirror DIR)", "(mirror DIR)"),
        ("pick one with --member:\n  a", "pick one with member:\n  a"),
        ("`verify x --weights y` compares; --weights takes one", "`verify x --weights y` compares; weights takes one"),
        ("my--dict.txt, x--config, --dictionary, --output", "my--dict.txt, x--config, --dictionary, --output"),
    ],
)
def test_options_become_arguments(message: str, told: str) -> None:
    assert as_arguments(message) == told


def test_every_option_that_chooses_a_model_has_an_argument() -> None:
    command = choosing_with_labels(lambda choice: None)
    options = {name for each in command.__click_params__ for name in each.opts}
    assert options == {f"--{name}" for name in (*ARGUMENTS, *SAME)} & options
    taken = paddle2torch.convert.__kwdefaults__
    assert {each.partition("=")[0] for each in ARGUMENTS.values()} | set(SAME) - {
        "reference",
        "tolerance",
        "weights",
    } <= set(taken)


CALLS: dict[str, tuple[Callable[[str, Path], object], str]] = {
    "convert": (lambda source, short: paddle2torch.convert(source, dictionary=short), "dictionary: "),
    "Reader": (lambda source, short: paddle2torch.Reader(None, None, source, dictionary=short), "dictionary: "),
    "Reader without": (lambda source, _: paddle2torch.Reader(None, None, source), "give its dictionary (dictionary)"),
    "no graph": (lambda source, _: paddle2torch.convert(source, as_graph=True), "so as_graph=True cannot convert it"),
}


@pytest.mark.parametrize(("call", "words"), CALLS.values(), ids=CALLS)
def test_python_s_errors_name_arguments(call: Callable[[str, Path], object], words: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "mine.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11))
    (tmp_path / "short.txt").write_text("a\nb\n")
    with pytest.raises(ConverterError) as caught:
        call(str(source), tmp_path / "short.txt")
    assert words in str(caught.value)
    assert "--" not in str(caught.value)


def test_the_command_s_errors_name_options(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "mine.pdparams", random_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11))
    (tmp_path / "short.txt").write_text("a\nb\n")
    sample = str(Path(paddle2torch.converter.__file__).parent / "zoo" / "embedded" / "sample.png")
    for command in (["convert", str(source)], ["read", sample, "--det", "none", "--rec", str(source)]):
        result = CliRunner().invoke(main, [*command, "--dict", str(tmp_path / "short.txt")])
        assert "error: --dict: short.txt with 2 characters makes 3 or 4 classes" in result.stderr
