"""What is printed: nothing in it acts on a terminal, whoever prints it, and nobody has to read ten thousand lines."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from paddle2torch.cli import Group, main
from paddle2torch.converter.cli.common import listing, note, print_json
from paddle2torch.converter.support.errors import FormatError
from paddle2torch.converter.support.terminal import (
    LONGEST_LINE,
    MOST_CHARACTERS,
    MOST_LINES,
    Cleaned,
    bare,
    bounded,
    clean,
    clean_json,
    clean_lines,
    message,
    without_users,
)

HARMFUL = {
    "\x00": r"\x00",
    "\x07": r"\x07",
    "\b": r"\x08",
    "\r": r"\r",
    "\x1b[2J": r"\x1b[2J",
    "\x7f": r"\x7f",
    "\x85": r"\x85",
    "\x9b31m": r"\x9b31m",
    "\u2028": r"\u2028",
    "\u202e": r"\u202e",
    "\u2066": r"\u2066",
    "\udce9": r"\udce9",
}
DIRT = "".join(HARMFUL)
SPELLED = "".join(HARMFUL.values())
HARMLESS = "naïve 中文 ال‌عربية é € 🙂 \u200d\u200c\u3000\xa0"


@pytest.mark.parametrize(("harmful", "spelled"), HARMFUL.items(), ids=HARMFUL.values())
def test_what_acts_on_a_terminal_is_spelled_out(harmful: str, spelled: str) -> None:
    assert clean(f"a{harmful}b") == clean_lines(f"a{harmful}b") == f"a{spelled}b"


def test_what_people_write_stays() -> None:
    assert clean(HARMLESS) == clean_lines(HARMLESS) == clean_json(HARMLESS) == HARMLESS
    assert clean_lines("a\tb\nc\n") == "a\tb\nc\n"
    assert clean("a\tb\nc") == r"a\tb\nc"


def test_json_stays_what_it_says() -> None:
    text = json.dumps({DIRT: [HARMLESS, "\n"]}, ensure_ascii=False, indent=1)
    assert json.loads(clean_json(text)) == json.loads(text)
    assert clean_lines(clean_json(text)) == clean_json(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/x", "https://host/x"),
        ("https://me:s3cr3t@host:8/x?y", "https://host:8/x?y"),
        ("http://token@host", "http://host"),
        ("see http://a:b@c@host/d@e, https://f:g@h", "see http://host/d@e, https://h"),
        ("mail me@host", "mail me@host"),
        ("http:/me:s3cr3t@host/p.png: not there", "http:/host/p.png: not there"),
        (r"HTTP:\\me:s3cr3t@host", r"HTTP:\\host"),
        (r"C:\me@host", r"C:\me@host"),
    ],
)
def test_urls_tell_no_user(url: str, shown: str) -> None:
    assert without_users(url) == shown


def test_no_line_passes_for_a_message_of_its_own() -> None:
    assert message("a: bad\nerror: all is well\n  a list") == "a: bad\n  error: all is well\n  a list"


def test_long_lines_lose_their_middle_and_long_lists_their_end() -> None:
    assert bounded("short\n" * 10) == "short\n" * 10
    line = bounded("file: " + "x" * 10_000 + "; do that")
    assert len(line) <= LONGEST_LINE
    assert line.startswith("file: xxx")
    assert line.endswith("xxx; do that")
    lines = bounded("name\n" * 10_000).splitlines()
    assert lines == ["name"] * MOST_LINES + [f"… and {10_000 - MOST_LINES:,} more lines"]
    wide = bounded(("y" * 5000 + "\n") * 10_000)
    assert len(wide) < MOST_CHARACTERS + 100
    assert wide.splitlines()[-1].startswith("… and 9,9")


def test_an_error_is_clean_on_other_people_s_terminals_too() -> None:
    assert str(FormatError(f"a{DIRT}.pdparams", "bad")) == f"a{SPELLED}.pdparams: bad"


def test_what_a_stream_cannot_say_is_spelled_out() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Cleaned(stream).write("中\n")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\u4e2d\n"  # type: ignore[attr-defined]


def test_there_is_no_way_around_the_stream() -> None:
    cleaned = Cleaned(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not hasattr(cleaned, "buffer")
    with pytest.raises(TypeError):
        cleaned.write(b"\x1b")  # type: ignore[arg-type]


# ---- the command line --------------------------------------------------------------------------------------------


@click.group(cls=Group, context_settings={"color": True})
def noisy() -> None:
    """Commands that say what they should not."""
    logger = logging.getLogger("noisy")
    logger.handlers[:] = [logging.StreamHandler()]


@noisy.command("echo")
def _echo() -> None:
    click.echo(DIRT + "http://me:read@text")
    click.echo(DIRT + "http://me:s3cr3t@host", err=True)


@noisy.command("print")
def _print() -> None:
    print(DIRT)
    print(DIRT, file=sys.stderr)


@noisy.command("list")
def _list() -> None:
    listing([f"a{DIRT}\nb"] * 10_000)


@noisy.command("note")
def _note() -> None:
    note(f"{DIRT}\nerror: no")


@noisy.command("log")
def _log() -> None:
    logging.getLogger("noisy").warning("%s http://me:s3cr3t@host", DIRT)


@noisy.command("json")
def _json() -> None:
    print_json([DIRT] * 10_000)


@noisy.command("raise")
def _raise() -> None:
    raise FormatError(f"a{DIRT}\nerror: no", "bad http://me:s3cr3t@host\n" * 10_000)


@noisy.command("usage")
def _usage() -> None:
    raise click.UsageError(f"{DIRT}\nerror: no")


@pytest.mark.parametrize("name", sorted(noisy.commands))
def test_whoever_prints_it_is_clean_and_short(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest's own handlers would keep halves of characters, which cannot be sent from one process of the tests to another.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    result = CliRunner().invoke(noisy, [name])
    said = result.stdout + result.stderr
    assert clean_lines(said) == said
    assert "s3cr3t" not in said
    assert sum(line.lower().startswith("error:") for line in said.splitlines()) == (name in ("raise", "usage"))
    if name == "json":
        assert json.loads(result.stdout) == [DIRT] * 10_000
    else:
        assert SPELLED in said
        assert len(said) < 1.1 * MOST_CHARACTERS
    if name in ("raise", "usage"):
        assert result.exit_code
    if name == "echo":
        assert "http://me:read@text" in result.stdout  # what was read in an image is no message


def test_the_streams_are_as_before_afterwards() -> None:
    before = sys.stdout, sys.stderr
    main(["list"], standalone_mode=False)
    assert (sys.stdout, sys.stderr) == before
    assert bare(sys.stdout) is sys.stdout


def test_a_traceback_is_clean_too(tmp_path: Path) -> None:
    arguments = ["-P", "-m", "paddle2torch", "--debug", "inspect", f"no/such\x1b[31m\x9b{tmp_path.name}.pdparams"]
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert "Traceback" in result.stderr
    assert r"no/such\x1b[31m\x9b" in result.stderr
    assert clean_lines(result.stderr) == result.stderr
