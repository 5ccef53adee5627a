"""Names of results, made from the names of what they are made from; nothing else makes them.

    result_names(["plates/best_accuracy.pdparams", "meters/best_accuracy.pdparams"])
    # {"plates/…": "plates_best_accuracy", "meters/…": "meters_best_accuracy"}

A name is the stem of files in the output folder: it is no path, is not hidden, and can be a file's name on every system
(see `paddle2torch.architectures.records.name_problem`).
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Container, Sequence
from pathlib import Path

from paddle2torch.architectures.hub import CONFIG, SCHEME, WEIGHTS
from paddle2torch.architectures.records import DEVICES, FORBIDDEN_IN_NAMES, is_printable
from paddle2torch.converter.support.errors import SourceError

# What is cut off the names of models; the first that fits.
MODEL_SUFFIXES = (
    ".tar.gz", ".tgz", ".tar", ".zip", ".pdparams", ".pdmodel", ".pdiparams.info", ".pdiparams", ".json", ".pth",
    ".safetensors",
)  # fmt: skip
# Bytes; branches of a checkpoint are appended, and suffixes.
LONGEST = 180
_DIGEST = 8  # hexadecimal digits that tell names apart which were cut
_PUBLISHED_HASH = re.compile(r"-[0-9a-f]{8}$")


def result_name(source: str | os.PathLike[str]) -> str:
    """The name of the result of one source; see `result_names`."""
    (name,) = result_names([os.fspath(source)]).values()
    return name


def result_names(
    sources: Sequence[str], known: Container[str] = (), branch: str | None = None, suffixes: Sequence[str] | None = None
) -> dict[str, str]:
    """A name of its own for the result of each source.

    It is the source's without suffix, or its folder's where nothing is left of it. Where sources share one, the names
    of the folders that they lie in are put before it, as many as tell them apart.

    Args:
        sources: paths, names of models in `known`, or addresses on the Hub (hf:ORG/NAME). A path that was given before
            is left out.
        known: names that stand for themselves, those of the zoo.
        branch: which network of each checkpoint is wanted; it may become part of the name, see `with_branch`.
        suffixes: what to cut off the names; those of models by default, none at all for ().

    Raises:
        SourceError: names of two sources cannot be told apart, or one has no name; the message lists them.
    """
    parts = {source: _parts(source, known, MODEL_SUFFIXES if suffixes is None else suffixes) for source in sources}
    distinct: dict[str, str] = {}
    for source, path in parts.items():
        if not path:
            raise SourceError(f"{source}: has no name that its result could have; rename it, or its folder")
        distinct.setdefault(source if source in known else _place(source), source)
    depths = dict.fromkeys(distinct.values(), 1)
    while True:
        names = {source: _joined(parts[source][:depth]) for source, depth in depths.items()}
        shared = _shared(names, branch)
        deeper = [source for source in shared if depths[source] < len(parts[source])]
        if not shared:
            return names
        if not deeper:
            raise SourceError(
                f"{' and '.join(shared)}: their results would have one name, {_joined(parts[shared[0]][:1])}; nothing "
                "was written; give them one at a time, each its own --output"
            )
        for source in deeper:
            depths[source] += 1


def with_branch(name: str, branch: str) -> str:
    """The name of the result for one network of a checkpoint that holds several."""
    return _joined([branch, name])


def _place(source: str) -> str:
    """The same for the same file or folder, however it was spelled; a link is not what it points to."""
    return source if source.startswith(SCHEME) else os.path.abspath(source)  # noqa: PTH100


def _parts(source: str, known: Container[str], suffixes: Sequence[str]) -> list[str]:
    """The source's own name, and those of the folders that it lies in, from the inside out; empty ones are left out."""
    if source in known:
        return [source]
    if source.startswith(SCHEME):
        repository = source.removeprefix(SCHEME).partition("@")[0]
        return [*filter(_clean, reversed(repository.split("/")))]
    path = Path(_place(source))
    published = os.path.isfile(path.parent / CONFIG)  # noqa: PTH113 (False for what no path can be)
    if published and path.name == WEIGHTS:
        path = path.parent
    name = _stem(path.name, suffixes)
    if published:
        name = _PUBLISHED_HASH.sub("", name)
    return [*filter(_clean, [name, *(folder.name for folder in path.parents)])]


def _stem(name: str, suffixes: Sequence[str]) -> str:
    return next((name[: -len(suffix)] for suffix in suffixes if name.casefold().endswith(suffix)), name)


def _clean(text: str) -> str:
    """A text with nothing in it that a name cannot have; empty where nothing is left that tells anything."""
    kept = "".join(
        character if is_printable(character) and character not in FORBIDDEN_IN_NAMES else "_"
        for character in unicodedata.normalize("NFC", text)
    )
    return kept.lstrip(". ").rstrip(". ") if kept.strip("_-. ") else ""


def _joined(parts: Sequence[str]) -> str:
    """Names from the inside out as one, of bounded length."""
    name = "_".join(filter(None, map(_clean, reversed(parts))))
    if name.partition(".")[0].rstrip().upper() in DEVICES:
        name = f"_{name}"
    data = name.encode()
    if len(data) <= LONGEST:
        return name
    digest = hashlib.sha256(data).hexdigest()[:_DIGEST]
    return data[: LONGEST - _DIGEST - 1].decode(errors="ignore") + f"-{digest}"


def _shared(names: dict[str, str], branch: str | None) -> list[str]:
    """The sources of the first name that more than one result may have, also where case makes no difference."""
    owners: dict[str, list[str]] = {}
    for source, name in names.items():
        for each in {name, with_branch(name, branch)} if branch else {name}:
            owners.setdefault(each.casefold(), []).append(source)
    return next((sources for sources in owners.values() if len(sources) > 1), [])
