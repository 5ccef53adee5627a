"""What the README promises besides its commands, which `test_docs` runs."""

from __future__ import annotations

import configparser
import re

from paddle2torch.converter.support import errors
from support.documents import README, ROOT, commands

# `make` commands that .ci/run runs as they stand; the others are made of parts that have tests.
MADE_BY_CI = {"make convert", "make test"}


def rows(section: str) -> list[str]:
    """The first cells of the table below a heading."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return cells[2:]


def test_ci_runs_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {line.strip() for line in script} & MADE_BY_CI == MADE_BY_CI
    assert set(commands(README)) >= MADE_BY_CI


def test_exit_codes_are_all_listed() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    codes = {kind.exit_code for kind in classes} | {0, 2, 130}
    assert [*map(int, rows("Exit codes"))] == sorted(codes)


def test_extras_are_all_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert re.findall(r"`(\w+)`", " ".join(rows("Extras"))) == list(setup["options.extras_require"])
