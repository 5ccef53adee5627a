"""The tarballs of a mirror of the zoo: all of them, or the smallest of each architecture and kind.

CI takes the smallest; every one is converted and verified by `make parity`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conftest import MIRROR_VARIABLE
from paddle2torch.converter.zoo.catalog import load_zoo


@dataclass(frozen=True)
class Tarball:
    """A file of the mirror.

    Attributes:
        model: its name in the zoo.
        kind: "inference", "trained" or "pretrained".
        released: whether it has the released weights; generated ones stand in for them elsewhere.
        path: of the file.
    """

    model: str
    kind: str
    released: bool
    path: Path


@cache
def tarballs() -> tuple[Tarball, ...]:
    """Those of models of the zoo; none where there is no mirror."""
    folder = Path(os.environ.get(MIRROR_VARIABLE, ""))
    index = folder / "mirror.json"
    if not os.environ.get(MIRROR_VARIABLE) or not index.is_file():
        return ()
    known = load_zoo()
    return tuple(
        Tarball(entry["model"], entry["kind"], entry["weights"].startswith("released"), folder / path)
        for path, entry in sorted(json.loads(index.read_text(encoding="utf-8")).items())
        if entry["model"] in known
    )


@cache
def smallest() -> tuple[Tarball, ...]:
    """The smallest tarball of each architecture and kind, released weights first."""
    zoo = load_zoo()
    found: dict[tuple[str, str], Tarball] = {}
    for each in sorted(tarballs(), key=lambda each: (not each.released, each.path.stat().st_size, each.model)):
        found.setdefault((zoo.get(each.model).architecture, each.kind), each)
    return tuple(found.values())
