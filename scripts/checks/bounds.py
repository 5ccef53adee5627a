#!/usr/bin/env python3
"""An environment with the lowest, or the newest, versions of all that setup.cfg declares, to run the tests in.

    pip install packaging
    python scripts/checks/bounds.py lowest FOLDER
    FOLDER/bin/python -m pytest --numprocesses auto

`make` installs the versions of constraints.txt, which say nothing of the others that setup.cfg allows. Here each
package that it names with a range, extras included, is the lowest of it that the index has; or pip takes the newest
that go together. What they need in turn is up to pip. Exits with 1, and pip's words, where they cannot be installed
together: then a bound of setup.cfg is wrong.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[2]
# They draw pages and figures, and no test imports them.
LEFT_OUT = ("docs", "bench")


def declared(setup: Path) -> list[Requirement]:
    """What a setup.cfg requires on this system; what several extras name is listed once, by its first range."""
    parser = configparser.ConfigParser()
    parser.read(setup, encoding="utf-8")
    extras = parser["options.extras_require"]
    texts = [parser["options"]["install_requires"], *(extras[name] for name in extras if name not in LEFT_OUT)]
    found: dict[str, Requirement] = {}
    for requirement in map(Requirement, _lines(texts)):
        if requirement.marker is None or requirement.marker.evaluate():
            found.setdefault(requirement.name, requirement)
    return list(found.values())


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))


def lowest(requirement: Requirement, versions: Iterable[str]) -> Version:
    """The lowest final version in a requirement's range.

    Raises:
        SystemExit: there is none.
    """
    fitting = [each for each in _versions(versions) if requirement.specifier.contains(each, prereleases=False)]
    if not fitting:
        raise SystemExit(f"{requirement}: the index has no such version for this Python")
    return min(fitting)


def _versions(texts: Iterable[str]) -> Iterator[Version]:
    for text in texts:
        with suppress(InvalidVersion):  # some early uploads have a platform in it
            yield Version(text)


def offered(python: Path, name: str) -> list[str]:
    """The versions of a package that the index has for a Python."""
    command = [str(python), "-m", "pip", "index", "versions", name]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    listed = re.search(r"^Available versions: (.*)$", told.stdout, re.MULTILINE)
    if listed is None:
        raise SystemExit(f"{name}: pip lists no versions of it: {told.stderr.strip()[-500:]}")
    return listed[1].split(", ")


def main(arguments: list[str] | None = None) -> int:
    """Make the environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    requirements = declared(ROOT / "setup.cfg")
    venv.create(options.folder, with_pip=True, clear=True)
    python = options.folder / "bin" / "python"
    wanted = [
        f"{each.name}=={lowest(each, offered(python, each.name))}"
        if options.which == "lowest" and each.specifier
        else f"{each.name}{each.specifier}"
        for each in requirements
    ]
    print("\n".join(wanted), flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    # The project itself comes without what it requires: that is what was just chosen.
    done = subprocess.run([*install, *wanted], check=False).returncode
    done = done or subprocess.run([*install, "--no-deps", "--editable", str(ROOT)], check=False).returncode
    done = done or subprocess.run([str(python), "-m", "pip", "check"], check=False).returncode
    return 1 if done else 0


if __name__ == "__main__":
    sys.exit(main())
