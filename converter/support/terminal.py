"""What reaches a terminal: words of ours, and among them names and words of others, which are made harmless here.

File names, labels, server's answers, configurations and records come from anywhere. A control character among them
moves the cursor, renames the window or hides a line; a bidirectional override shows a text backwards. Whatever a
command prints, no matter who prints it, passes `Cleaned`.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO, cast

LONGEST_LINE = 1000
"""Characters of a line; a longer one loses its middle."""
MOST_LINES = 1000
MOST_CHARACTERS = 48_000
"""Of what is printed at a time; the rest is counted."""

# C0, delete, C1; line and paragraph separator; bidirectional embeddings, overrides, isolates; halves of surrogates.
_HARMFUL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_IN_A_LINE = re.compile(f"[{_HARMFUL}]")
_IN_A_TEXT = re.compile(rf"(?![\n\t])[{_HARMFUL}]")
# A path made of a URL has one slash.
_USER = re.compile(r"([a-z][a-z0-9+.-]+:[/\\]+)[^/\\\s?#]*@", re.IGNORECASE)


def clean(text: str) -> str:
    """A text that belongs on one line: whatever would act on a terminal is spelled out (`\\x1b`), line ends too."""
    return _IN_A_LINE.sub(_spelled, text)


def clean_lines(text: str) -> str:
    """The same for a text that may have lines and tabs of its own."""
    return _IN_A_TEXT.sub(_spelled, text)


def clean_json(text: str) -> str:
    """The same for JSON, by JSON's own escapes."""
    return _IN_A_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_users(text: str) -> str:
    """A text whose URLs tell no user and no password (`https://me:secret@host/x` becomes `https://host/x`)."""
    return _USER.sub(r"\1", text)


def message(text: str) -> str:
    """A message that may have further lines: they are indented, so that none passes for a message of its own."""
    first, *others = text.split("\n")
    return "\n".join([first, *(line if line[:1] in ("", " ") else f"  {line}" for line in others)])


def shortened(line: str, longest: int = LONGEST_LINE) -> str:
    """The line, or its beginning and its end where it is too long: messages begin with what and end with advice."""
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - end - 3]} … {line[-end:]}"


def bounded(text: str) -> str:
    """A text of as many lines as anybody reads, none of them too long; the rest is counted."""
    if len(text) <= LONGEST_LINE:
        return text
    end = "\n" if text.endswith("\n") else ""
    lines = text.removesuffix("\n").split("\n")
    shown: list[str] = []
    left = MOST_CHARACTERS
    for line in map(shortened, lines[:MOST_LINES]):
        left -= len(line) + 1
        if left < 0:
            break
        shown.append(line)
    if missing := len(lines) - len(shown):
        shown.append(f"… and {missing:,} more lines")
    return "\n".join(shown) + end


class Cleaned:
    """A text stream in front of another one, which gets nothing that would act on a terminal, and not too much.

    Args:
        stream: where the text goes.
        secretive: whether URLs lose their user and password too: in messages, not in results, which may be read text.
    """

    def __init__(self, stream: TextIO, *, secretive: bool = False) -> None:
        self.bare = stream
        self._secretive = secretive

    def write(self, text: str) -> int:
        """Write a text; see `io.TextIOBase`."""
        if not isinstance(text, str):
            raise TypeError(f"expected a str, not {type(text).__name__}")
        made = bounded(clean_lines(without_users(text) if self._secretive else text))
        encoding = getattr(self.bare, "encoding", None) or "utf-8"
        self.bare.write(made.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # the way around all this
            raise AttributeError(name)
        return getattr(self.bare, name)


def bare(stream: TextIO) -> TextIO:
    """The stream behind, for what cleans itself: JSON, which must stay whole, and bars, which move the cursor."""
    return stream.bare if isinstance(stream, Cleaned) else stream


def clean_streams() -> None:
    """Clean what this process prints from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Cleaned):
            setattr(sys, name, cast(TextIO, Cleaned(stream, secretive=name == "stderr")))
    sys.excepthook = _excepthook


@contextmanager
def clean_output() -> Iterator[None]:
    """Clean what is printed in the block, and also the traceback of an error that ends the program after it."""
    before = sys.stdout, sys.stderr
    clean_streams()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _spelled(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What the interpreter prints of an error that nobody catches."""
    if sys.stderr is not None:
        Cleaned(bare(sys.stderr), secretive=True).write("".join(traceback.format_exception(kind, error, trace)))
