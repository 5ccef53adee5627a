"""The networks that one training checkpoint holds: students, teachers, and what wrappers put before their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from paddle2torch.converter.support.errors import MappingError

# A parameter's name from its part on; anything ahead of that is wrapper or branch.
PART = re.compile(r"^(?:(?P<prefix>.*?)\.)??(?P<name>(?:transform|backbone|neck|head)\..+)$")
# What data-parallel training puts before every name; says nothing about the network.
WRAPPERS = frozenset({"module", "_layers", "model"})
# The branch that the released model is exported from comes first.
EXPORTED_FIRST = ("", "Student", "student_model", "Student2", "student2_model", "Teacher", "teacher_model")


@dataclass(frozen=True)
class Branch:
    """One network of a checkpoint.

    Attributes:
        name: its prefix without wrappers, for example "Student"; empty for a checkpoint of a single network.
        names: structured name within the network → name in the file.
    """

    name: str
    names: dict[str, str]


def census(names: Iterable[str]) -> list[Branch]:
    """All branches of a checkpoint, the exported one first; names outside any part count as the unprefixed branch's."""
    found: dict[str, dict[str, str]] = {}
    for full in names:
        match = PART.match(full)
        prefix, name = (match["prefix"] or "", match["name"]) if match else ("", full)
        label = ".".join(word for word in prefix.split(".") if word not in WRAPPERS)
        found.setdefault(label, {})[name] = full
    known = {label: i for i, label in enumerate(EXPORTED_FIRST)}
    return [Branch(label, found[label]) for label in sorted(found, key=lambda label: known.get(label, len(known)))]


def choose(branches: list[Branch], wanted: str | None, file: str) -> Branch:
    """The branch to convert: the wanted one, or the one that the released model is exported from.

    Args:
        branches: the census.
        wanted: a branch's name, or None.
        file: the checkpoint's name, for messages.

    Raises:
        MappingError: there is no such branch, or several of which none is known as the exported one, or none at all.
    """
    if not branches:
        raise MappingError(f"{file}: holds no tensors, so there is nothing to recognise; is it the whole model?")
    names = ", ".join(branch.name or "(no prefix)" for branch in branches)
    if wanted is not None:
        for branch in branches:
            if branch.name == wanted.rstrip("."):
                return branch
        raise MappingError(f"{file}: has no branch {wanted!r}; it has: {names}")
    if len(branches) > 1 and branches[0].name not in EXPORTED_FIRST:
        raise MappingError(f"{file}: holds several networks ({names}); say which with --branch")
    return branches[0]
