"""Writing measured sizes and hashes into `model_zoo.yaml`, leaving everything else in it as people wrote it.

The text is edited in place: the YAML parser says where in the text each value stands, and nothing is written anew that
was there before. What comes out is read again, and must be the zoo as it was, but for the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from paddle2torch.converter.support.errors import ConverterError, ZooError
from paddle2torch.converter.support.files import atomic_write
from paddle2torch.converter.zoo.catalog import Zoo, parse_zoo
from paddle2torch.converter.zoo.download import Fetched, Fetcher


class _Edit(NamedTuple):
    """Text to put in place of what stands from start to end."""

    start: int
    end: int
    text: str


Key = tuple[str, str]
"""A tarball of the zoo: the model's name, and the kind."""


def measure(
    zoo: Zoo, fetcher: Fetcher, names: Iterable[str] | None = None, jobs: int = 4
) -> tuple[dict[Key, Fetched], list[ConverterError]]:
    """Fetch tarballs whatever the zoo pins of them, to be measured anew.

    Args:
        zoo: the zoo.
        fetcher: where to get them from.
        names: of which models; all where None.
        jobs: downloads at a time.

    Returns:
        The tarballs that came, and why the others did not.

    Raises:
        SourceError: a name that the zoo does not have.
    """
    models = zoo.models.values() if names is None else map(zoo.get, names)
    artifacts = {
        (model.name, kind): replace(artifact, size=None, sha256=None)
        for model in models
        for kind, artifact in model.artifacts.items()
    }
    outcomes = fetcher.try_all(list(artifacts.values()), jobs)
    measured = {key: outcome for key, outcome in zip(artifacts, outcomes, strict=True) if isinstance(outcome, Fetched)}
    return measured, [outcome for outcome in outcomes if isinstance(outcome, ConverterError)]


def lock_zoo(path: Path, measured: Mapping[Key, Fetched]) -> tuple[Key, ...]:
    """Write sizes and sha256 of tarballs into the zoo's file.

    Args:
        path: the file.
        measured: the tarballs by model's name and kind, as `measure` brings them.

    Returns:
        The (name, kind) whose size or sha256 was not in the file like that before.

    Raises:
        ZooError: the file has mistakes, or is written in a way that cannot be edited.
        OutputError: the file cannot be written.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path}: the zoo cannot be read ({error})") from error
    zoo = parse_zoo(text, str(path))
    changed = {
        (name, kind): fetched
        for (name, kind), fetched in measured.items()
        if (zoo.models[name].artifacts[kind].size, zoo.models[name].artifacts[kind].sha256)
        != (fetched.size, fetched.sha256)
    }
    if changed:
        locked = _edited(text, _edits(text, changed))
        if not _reads_as(locked, _expected(zoo, changed)):
            raise ZooError(f"{path}: cannot be edited in place; write its entries as plain blocks, without anchors")
        with atomic_write(path) as stream:
            stream.write(locked.encode("utf-8"))
    return tuple(changed)


def _reads_as(text: str, zoo: Zoo) -> bool:
    try:
        return parse_zoo(text, "the edited zoo") == zoo
    except ZooError:
        return False


def _expected(zoo: Zoo, changed: Mapping[Key, Fetched]) -> Zoo:
    models = dict(zoo.models)
    for (name, kind), fetched in changed.items():
        artifact = replace(models[name].artifacts[kind], size=fetched.size, sha256=fetched.sha256)
        models[name] = replace(models[name], artifacts=models[name].artifacts | {kind: artifact})
    return Zoo(models)


def _edited(text: str, edits: Iterable[_Edit]) -> str:
    # From the end, so that places stay valid. Of two additions at one place the deeper one, whose text sorts first, is
    # made last and so stands first: it belongs to the line that is there.
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _edits(text: str, changed: Mapping[Key, Fetched]) -> list[_Edit]:
    entries = {
        name: entry
        for group in _items(_items(yaml.compose(text, yaml.SafeLoader))["groups"]).values()
        for name, entry in _items(_items(group)["models"]).items()
    }
    edits = []
    for (name, kind), fetched in changed.items():
        values = {"size": str(fetched.size), "sha256": f'"{fetched.sha256}"'}
        tarball = _items(entries[name]).get(kind)
        if tarball is None:
            pairs = ", ".join(f"{key}: {value}" for key, value in values.items())
            edits.append(_added(text, entries[name], {kind: f"{{{pairs}}}"}))
        elif isinstance(tarball, yaml.MappingNode):
            present = _items(tarball)
            edits += [_replaced(present[key], value) for key, value in values.items() if key in present]
            if missing := {key: value for key, value in values.items() if key not in present}:
                edits.append(_added(text, tarball, missing))
        else:
            edits += _unfolded(text, entries[name], tarball, values)
    return edits


def _items(node: yaml.Node | None) -> dict[str, Any]:
    return {key.value: value for key, value in node.value} if node else {}


def _replaced(node: yaml.Node, text: str) -> _Edit:
    return _Edit(node.start_mark.index, node.end_mark.index, text)


def _added(text: str, mapping: yaml.MappingNode, pairs: Mapping[str, str]) -> _Edit:
    """The pairs at the end of a mapping, in the style that the mapping is written in."""
    lines = [f"{key}: {value}" for key, value in pairs.items()]
    if mapping.flow_style:
        end = mapping.end_mark.index - 1
        return _Edit(end, end, "".join(f", {line}" for line in lines))
    return _lines_after(text, mapping.value[-1][1], mapping.start_mark.column, lines)


def _unfolded(text: str, entry: yaml.Node, tarball: yaml.Node, values: Mapping[str, str]) -> list[_Edit]:
    """`kind: URL` as a block of url, size and sha256."""
    column = entry.start_mark.column + 2
    url = text[tarball.start_mark.index : tarball.end_mark.index]
    before = text.rindex(":", 0, tarball.start_mark.index) + 1
    newline = _newline(text)
    return [
        _Edit(before, tarball.end_mark.index, f"{newline}{' ' * column}url: {url}"),
        _lines_after(text, tarball, column, [f"{key}: {value}" for key, value in values.items()]),
    ]


def _lines_after(text: str, node: yaml.Node, column: int, lines: Iterable[str]) -> _Edit:
    """Lines of their own after the one on which a value ends (and after the comment there)."""
    last = len(text[: node.end_mark.index].rstrip())
    end = text.find("\n", last)
    end = len(text) if end < 0 else end - text[:end].endswith("\r")
    return _Edit(end, end, "".join(f"{_newline(text)}{' ' * column}{line}" for line in lines))


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
