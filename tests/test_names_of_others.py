"""Names that people and systems give files, whatever bytes they are of: they end in no traceback, and in no terminal."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import paddle2torch
from paddle2torch.architectures.records import is_printable, spelled_out
from paddle2torch.cli import main
from paddle2torch.converter.support.errors import MappingError
from support.graphs import EMBEDDED

LATIN = os.fsdecode(b"caf\xe9")
# Not UTF-8; what steers a terminal; a mark that writing from right to left has in it.
NAMES = {"latin-1": LATIN, "escape": "m\x1b[2J\u202e", "mark": "\u200fשלום", "line": "a\nerror: b"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_file_of_any_name_is_converted_and_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    tarball = tmp_path / f"{name}.tar"
    shutil.copyfile(EMBEDDED / "embedded_rec_infer.tar", tarball)
    converted = paddle2torch.convert(tarball)
    for path in converted.save(tmp_path / "out")[:2]:
        metadata = paddle2torch.load_model(path).metadata
        assert metadata["source"]["file"] == spelled_out(tarball.name)


def test_a_report_on_a_file_of_any_name_is_written(tmp_path: Path) -> None:
    tarball = tmp_path / f"{LATIN}\x1b.tar"
    shutil.copyfile(EMBEDDED / "embedded_rec_infer.tar", tarball)
    written = ["--report", str(tmp_path / LATIN), "--summary", str(tmp_path / "all.json")]
    run = CliRunner().invoke(main, ["verify", str(tarball), "--reference", "graph", *written])
    assert run.exit_code == 0, run.output
    (told,) = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["models"]
    assert told["passed"]
    (folder,) = (tmp_path / LATIN).iterdir()
    for file in folder.iterdir():
        assert "\x1b" not in file.read_text(encoding="utf-8")


def test_what_is_not_printable_is_spelled() -> None:
    assert spelled_out("a\x1b\u202e\ud800\u200fé") == r"a\x1b\u202e\ud800\u200fé"
    assert all(map(is_printable, spelled_out("".join(map(chr, range(0x3000))))))


def test_what_would_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    dictionary = tmp_path / "dictionary.txt"
    dictionary.write_text("x" * 5000 + "\n" + "a\n" * 61)
    converted = paddle2torch.convert("embedded_rec", dictionary=dictionary)
    with pytest.raises(
        MappingError, match="would be refused when they are read: 'labels' holds 'xxx.*nothing was written"
    ):
        converted.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_called_like_one_whose_hash_is_known_is_compared_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tarball = tmp_path / "embedded_rec_infer.tar"
    data = bytearray((EMBEDDED / tarball.name).read_bytes())
    with caplog.at_level(logging.WARNING):
        tarball.write_bytes(data)
        paddle2torch.convert(tarball)
        assert not caplog.messages
        data[len(data) // 2] ^= 1
        tarball.write_bytes(data)
        paddle2torch.convert(tarball)
    (message,) = caplog.messages
    assert "is not the file of that name that the zoo knows, whose sha256 is 66326f8d" in message
