"""The README and the pages of docs/ as tests see them: their blocks of commands and code, and where to run them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from paddle2torch.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL, PYTHON = "sh", "python"

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)(?P<rest>.*)\n(?P<text>(?:.*\n)*?)(?P=fence)$", re.MULTILINE)
# A list's continuation lines are indented too, but begin no line after a blank one with a program's name.
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}\S.*\n)+")
_COMMENT = re.compile(r"\s{2,}#.*$")


@dataclass(frozen=True)
class Block:
    """Something that a reader may copy.

    Attributes:
        language: "sh", "python", or another word after the fence; indented blocks are "sh".
        text: as it stands there.
        file: of the repository that it is taken from, where it has a title.
    """

    language: str
    text: str
    file: str = ""

    @property
    def commands(self) -> list[str]:
        """One a line, without what is said of it."""
        return [_COMMENT.sub("", line) for line in self.text.splitlines() if line.strip()]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    found = {}
    for match in _FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match["rest"])
        found[match.start()] = Block(match["language"], match["text"], title[1] if title else "")
    fenceless = _FENCE.sub(lambda match: re.sub(r"[^\n]", "x", match[0]), text)
    for match in _INDENTED.finditer(fenceless):
        found[match.start()] = Block(SHELL, textwrap.dedent(match[0]))
    return [found[place] for place in sorted(found)]


def commands(page: Path) -> list[str]:
    """All commands of a page."""
    return [command for block in blocks(page) if block.language == SHELL for command in block.commands]


def invocations(command: str) -> Iterator[list[str]]:
    """The arguments of each `paddle2torch` in a command of the shell."""
    for match in re.finditer(r"\bpaddle2torch ([^|;&)]+)", command):
        yield shlex.split(match[1])


def unknown_options(arguments: list[str]) -> list[str]:
    """Options that the command does not have.

    Raises:
        KeyError: there is no such command.
    """
    subcommand: click.Command = main
    words = list(arguments)
    while isinstance(subcommand, click.Group):
        subcommand = subcommand.commands[words.pop(0)]
    known = {option for parameter in subcommand.params for option in parameter.opts}
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]


def all_options(command: click.Command = main) -> set[str]:
    """Those of a command and of all below it."""
    own = {option for parameter in command.params for option in parameter.opts}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union(*map(all_options, below), {"--help"})
