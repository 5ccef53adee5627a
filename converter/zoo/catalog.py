"""The zoo: `model_zoo.yaml`, with the measurements of its lock file, as typed records.

The file is written for people (groups, defaults, patterns; its head explains the keys). Here it is expanded, and every
mistake in it is collected before anything is reported, so that one run shows them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from paddle2torch.converter.support.errors import SourceError, ZooError
from paddle2torch.converter.zoo.lock import Key, KnownFile, lock_path, read_lock

TASKS = ("det", "rec", "cls")
RELEASES = ("PP-OCRv3", "PP-OCRv2", "v2.0", "embedded")
KINDS = ("inference", "trained", "pretrained")
EMBEDDED = "embedded:"
"""The scheme of URLs that name a file of this package."""


@dataclass(frozen=True)
class Artifact:
    """One tarball of a model.

    Attributes:
        kind: `inference`, `trained` or `pretrained`.
        url: where it is, `https://…` or `embedded:FILE`.
        alternatives: URLs to try in order where `url` has nothing.
        sha256: its hash in lower-case hex, where the lock file has it.
        size: its length in bytes, where the lock file has it.
        known: its releases that are known; one of them is taken whatever was there before, and others may be, too.
    """

    kind: str
    url: str
    alternatives: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    known: tuple[KnownFile, ...] = ()


@dataclass(frozen=True)
class Dictionary:
    """The characters of a recogniser: a text file with one per line.

    Attributes:
        url: where it is, `https://…` or `embedded:FILE`.
        alternatives: URLs to try in order where `url` has nothing.
        space: whether a space comes after the last character.
    """

    url: str
    alternatives: tuple[str, ...]
    space: bool


@dataclass(frozen=True)
class Model:
    """One entry of the zoo; `model_zoo.yaml` explains the fields."""

    name: str
    task: str
    release: str
    revisions: tuple[str, ...]
    languages: tuple[str, ...]
    description: str
    size: str
    architecture: str
    parameters: dict[str, object]
    artifacts: dict[str, Artifact]
    dictionary: Dictionary | None


@dataclass(frozen=True)
class Zoo:
    """All models by name, in the file's order."""

    models: dict[str, Model]

    def get(self, name: str) -> Model:
        """The model of that name.

        Raises:
            SourceError: there is none; the message offers names that look alike.
        """
        if name in self.models:
            return self.models[name]
        folded = {known.casefold(): known for known in self.models}
        alike = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.75)]
        hint = f"did you mean {' or '.join(alike)}?" if alike else "`python -m paddle2torch list` shows all"
        raise SourceError(f"{name}: no model of that name in the zoo; {hint}")

    def filter(
        self, task: str | None = None, release: str | None = None, language: str | None = None
    ) -> tuple[Model, ...]:
        """The models that fit all that is given; a language fits where it is part of a language's name, in any case."""
        return tuple(
            model
            for model in self.models.values()
            if (task is None or model.task == task)
            and (release is None or model.release == release)
            and (language is None or any(language.casefold() in known.casefold() for known in model.languages))
        )


def zoo_path() -> Path:
    """Where `model_zoo.yaml` lies: inside an installed package, at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "model_zoo.yaml"
    return installed if installed.exists() else package.parents[1] / "model_zoo.yaml"


def load_zoo(path: Path | None = None) -> Zoo:
    """Read and check the zoo.

    Args:
        path: the file, beside which its lock file lies; `zoo_path()` where None.

    Raises:
        ZooError: one of them cannot be read, or has mistakes; the message names entry and key of every one.
    """
    path = path or zoo_path()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path}: the zoo cannot be read ({error}); give a readable YAML file in UTF-8") from error
    return parse_zoo(text, str(path), read_lock(lock_path(path)))


def parse_zoo(text: str, name: str, pins: Mapping[Key, KnownFile] | None = None) -> Zoo:
    """The zoo in a YAML text.

    Args:
        text: the file's content.
        name: what messages call it.
        pins: what the lock file has.

    Raises:
        ZooError: see `load_zoo`.
    """
    mistakes = _Mistakes()
    try:
        loader = _Loader(text)
        loader.mistakes = mistakes
        content = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ZooError(f"{name}{where}: not YAML ({error.problem}); correct the file") from error
    except yaml.YAMLError as error:
        raise ZooError(f"{name}: not YAML ({error}); correct the file") from error
    zoo = _Reader(mistakes, pins or {}).zoo(content)
    if mistakes.lines:
        count = "1 mistake" if len(mistakes.lines) == 1 else f"{len(mistakes.lines)} mistakes"
        raise ZooError(f"{name}: {count} in the zoo, to be corrected:\n  " + "\n  ".join(mistakes.lines))
    return zoo


@dataclass
class _Mistakes:
    lines: list[str] = field(default_factory=list)

    def add(self, where: str, key: str, problem: str) -> None:
        self.lines.append(f"{where}, {key}: {problem}")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the quick one where it is there
    """PyYAML's safe loader, which would let a key that stands twice overwrite its first value in silence."""

    mistakes: _Mistakes

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and first.setdefault(key.value, line) != line:
                self.mistakes.add(f"line {line}", key.value, f"stands a second time (first in line {first[key.value]})")
        return super().construct_mapping(node, deep)


# ---- what each key may hold --------------------------------------------------------------------------------------


class _Key(NamedTuple):
    expected: str
    accepts: Callable[[Any], bool]
    required: bool = False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_text, value))


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _one_of(values: tuple[str, ...], *, required: bool) -> _Key:
    return _Key("one of " + ", ".join(values), lambda value: value in values, required)


_TEXT = _Key("a text", _is_text)
_TEXTS = _Key("a list of texts", _is_texts)
_MAPPING = _Key("a mapping of one key or more", lambda value: isinstance(value, dict) and value != {})
_TARBALL = _Key(
    "a URL, or a mapping of url, alternatives",
    lambda value: _is_text(value) or (bool(value) and isinstance(value, dict)),
)

_TOP_KEYS = {
    "server": _TEXT._replace(required=True),
    "dictionaries": _TEXTS._replace(required=True),
    "groups": _MAPPING._replace(required=True),
}
_MODEL_KEYS = {
    "release": _one_of(RELEASES, required=True),
    "revisions": _TEXTS,
    "task": _one_of(TASKS, required=True),
    "description": _TEXT._replace(required=True),
    "languages": _TEXTS._replace(required=True),
    "size": _Key("a size such as 3.8M", _matches(r"\d+(\.\d+)?[kMG]"), required=True),
    "architecture": _TEXT._replace(required=True),
    "parameters": _MAPPING,
    "inference": _TARBALL._replace(required=True),
    "trained": _TARBALL,
    "pretrained": _TARBALL,
    "dictionary": _TEXT,
    "space": _Key("true or false", lambda value: isinstance(value, bool)),
}
_GROUP_KEYS = {key: rule._replace(required=False) for key, rule in _MODEL_KEYS.items()} | {
    "models": _MAPPING._replace(required=True)
}
_ARTIFACT_KEYS = {
    "url": _TEXT,
    "alternatives": _TEXTS,
}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PLACEHOLDER = re.compile(r"\{(.*?)\}")


# ---- from YAML's content to records ------------------------------------------------------------------------------


class _Reader:
    """Turns the file's content into records, and keeps on after a mistake so that the next one is found too."""

    def __init__(self, mistakes: _Mistakes, pins: Mapping[Key, KnownFile]) -> None:
        self.mistakes = mistakes
        self.pins = pins
        self.server = ""
        self.dictionaries: tuple[str, ...] = ()

    def zoo(self, content: object) -> Zoo:
        top = self._checked("the file", content, _TOP_KEYS)
        self.server = top.get("server", "https://missing")  # stands in, so that its absence is one mistake
        self.dictionaries = tuple(top.get("dictionaries", ()))
        models: dict[str, Model] = {}
        for title, group in top.get("groups", {}).items():
            where = f"group {title}"
            defaults = self._entry(where, group, _GROUP_KEYS)
            for name, entry in defaults.pop("models", {}).items():
                if not _matches(_NAME)(name):
                    self.mistakes.add(
                        where, repr(name), "expected a name of letters, digits, dots, dashes, underscores"
                    )
                elif name in models:
                    self.mistakes.add(name, where, "the model stands in an earlier group too")
                elif model := self._model(name, defaults, entry, mentioned=_keys(group) | _keys(entry)):
                    models[name] = model
        return Zoo(models)

    def _checked(self, where: str, content: object, keys: Mapping[str, _Key]) -> dict[str, Any]:
        """Those of the mapping's keys that are known and hold what they should."""
        if not isinstance(content, dict):
            self.mistakes.add(where, "content", f"expected a mapping with {', '.join(keys)}, found {content!r:.60}")
            return {}
        good = {}
        for key, value in content.items():
            if key not in keys:
                alike = difflib.get_close_matches(str(key), keys, n=1)
                hint = f"did you mean {alike[0]}?" if alike else f"known are {', '.join(keys)}"
                self.mistakes.add(where, str(key), f"unknown key; {hint}")
            elif not keys[key].accepts(value):
                self.mistakes.add(where, key, f"expected {keys[key].expected}, found {value!r:.60}")
            else:
                good[key] = value
        for key, rule in keys.items():
            if rule.required and key not in content:
                self.mistakes.add(where, key, f"missing; expected {rule.expected}")
        return good

    def _entry(self, where: str, content: object, keys: Mapping[str, _Key]) -> dict[str, Any]:
        """A group's or a model's own keys, each tarball as a mapping."""
        entry = self._checked(where, content, keys)
        for kind in KINDS:
            if kind in entry:
                tarball = entry[kind] if isinstance(entry[kind], dict) else {"url": entry[kind]}
                entry[kind] = self._checked(f"{where}, {kind}", tarball, _ARTIFACT_KEYS)
        return entry

    def _model(self, name: str, defaults: Mapping[str, Any], content: object, mentioned: set[object]) -> Model | None:
        """One model; None where it has mistakes. `mentioned` keys are there, rightly or not, and so not missing."""
        before = len(self.mistakes.lines)
        keys = {
            key: rule._replace(required=rule.required and key not in mentioned) for key, rule in _MODEL_KEYS.items()
        }
        own = self._entry(name, content, keys)
        entry = {**defaults, **own}
        for key in (*KINDS, "parameters"):
            if key in defaults and key in own:
                entry[key] = {**defaults[key], **own[key]}
        dictionary = self._dictionary(name, entry, mentioned)
        artifacts = {kind: self._artifact(name, kind, entry[kind]) for kind in KINDS if kind in entry}
        languages = tuple(entry.get("languages", ()))
        description = self._fill(name, "description", entry.get("description", ""), languages=", ".join(languages))
        complete = all(key in entry for key, rule in _MODEL_KEYS.items() if rule.required)
        if not complete or len(self.mistakes.lines) > before:
            return None
        return Model(
            name=name,
            task=entry["task"],
            release=entry["release"],
            revisions=tuple(entry.get("revisions", ())),
            languages=languages,
            description=description,
            size=entry["size"],
            architecture=entry["architecture"],
            parameters=dict(entry.get("parameters", {})),
            artifacts=artifacts,
            dictionary=dictionary,
        )

    def _artifact(self, name: str, kind: str, entry: Mapping[str, Any]) -> Artifact:
        where = f"{name}, {kind}"
        if "url" not in entry:
            self.mistakes.add(where, "url", "missing; expected the tarball's URL or its path on the server")
        url = self._url(where, "url", entry["url"], name=name) if "url" in entry else ""
        alternatives = tuple(
            self._url(where, "alternatives", other, name=name) for other in entry.get("alternatives", ())
        )
        pin = self.pins.get((name, kind))
        return Artifact(kind, url, alternatives, pin.sha256 if pin else None, pin.size if pin else None)

    def _dictionary(self, name: str, entry: Mapping[str, Any], mentioned: set[object]) -> Dictionary | None:
        wanted = entry.get("task") == "rec"
        for key in ("dictionary", "space"):
            if wanted and key not in mentioned:
                self.mistakes.add(name, key, f"missing; a recogniser needs {_MODEL_KEYS[key].expected}")
            if not wanted and key in entry and "task" in entry:
                self.mistakes.add(name, key, f"only a recogniser (task: rec) has one; this is task: {entry['task']}")
        if not wanted or "dictionary" not in entry:
            return None
        file = entry["dictionary"]
        patterns = (file,) if _is_whole(file) else self.dictionaries
        urls = [self._url(name, "dictionary", pattern, file=file) for pattern in patterns]
        return Dictionary(urls[0], tuple(urls[1:]), entry.get("space", False)) if urls else None

    def _url(self, where: str, key: str, pattern: str, **values: str) -> str:
        """The whole URL that a pattern stands for."""
        filled = self._fill(where, key, pattern, **values)
        url = filled if _is_whole(filled) else self.server.rstrip("/") + "/" + filled
        if not _is_usable(url):
            self.mistakes.add(where, key, f"expected a path, an https:// URL or {EMBEDDED}FILE, found {filled!r:.120}")
        return url

    def _fill(self, where: str, key: str, pattern: str, **values: str) -> str:
        """The pattern with its {placeholders} filled in."""

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                self.mistakes.add(where, key, f"unknown {match[0]}; known is {{{'}, {'.join(values)}}}")
            return values.get(match[1], "")

        return _PLACEHOLDER.sub(value, pattern)


def _keys(content: object) -> set[object]:
    return set(content) if isinstance(content, dict) else set()


def _is_whole(url: str) -> bool:
    return "://" in url or url.startswith(EMBEDDED)


def _is_usable(url: str) -> bool:
    """Whether the downloader can do something with the URL, and can make a file name of it that stays in its folder."""
    if not url.isprintable() or any(character in url for character in " \\{}"):
        return False
    if url.startswith(EMBEDDED):
        return re.fullmatch(_NAME, url.removeprefix(EMBEDDED)) is not None
    try:
        parts = urlsplit(url)
        at_a_port = parts.port != 0
    except ValueError:
        return False
    path = PurePosixPath(parts.path)
    named = path.name != "" and ".." not in path.parts
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and at_a_port and named
