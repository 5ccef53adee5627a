"""The zoo: `model_zoo.yaml`, with the measurements of its lock file, as typed records.

The file is written for people (groups, defaults, patterns; its head explains the keys). Here it is expanded, and every
mistake in it is collected before anything is reported, so that one run shows them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from paddle2torch.converter.support.errors import SourceError, ZooError
from paddle2torch.converter.zoo.lock import Key, KnownFile, lock_path, read_lock

TASKS = ("det", "rec", "cls")
GENERATIONS = ("PP-OCRv6", "PP-OCRv5", "PP-OCRv4", "PP-OCRv3", "PP-OCRv2", "v2.0", "SVTRv2", "PP-LCNet", "embedded")
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
        known: revisions of it that others have seen; one of them is taken whatever was there before, and others may be,
            too. What is known besides is looked up by the file's name, see `paddle2torch.converter.zoo.known`.
    """

    kind: str
    url: str
    alternatives: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    known: tuple[KnownFile, ...] = ()

    def behind(self, first: Artifact | None) -> Artifact:
        """The same tarball, with another's URLs tried before its own."""
        if first is None:
            return self
        urls = dict.fromkeys((first.url, *first.alternatives, self.url, *self.alternatives))
        return replace(first, alternatives=tuple(urls)[1:])


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
    aliases: dict[str, dict[str, Artifact]]
    task: str
    generation: str
    revisions: tuple[str, ...]
    languages: tuple[str, ...]
    description: str
    size: str | None
    architecture: str
    parameters: dict[str, object]
    artifacts: dict[str, Artifact]
    dictionary: Dictionary | None

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is called, its own name first."""
        return (self.name, *self.aliases)

    def under(self, name: str) -> Model:
        """The model as one asks for it by another of its names: called so, with that name's own tarballs first."""
        if name == self.name:
            return self
        others = {self.name: {}, **{alias: own for alias, own in self.aliases.items() if alias != name}}
        own = self.aliases[name]
        artifacts = {kind: artifact.behind(own.get(kind)) for kind, artifact in self.artifacts.items()}
        return replace(self, name=name, aliases=others, artifacts=artifacts)


@dataclass(frozen=True)
class Zoo:
    """The models by their names, in the file's order. `name in zoo` says whether there is one of that name or alias."""

    models: dict[str, Model]

    @cached_property
    def _owners(self) -> dict[str, Model]:
        return {name: model for model in self.models.values() for name in model.names}

    def __contains__(self, name: object) -> bool:
        return name in self._owners

    def __iter__(self) -> Iterator[Model]:
        """The models by every name that they have."""
        return (model.under(name) for name, model in self._owners.items())

    @cached_property
    def tarballs(self) -> dict[Key, Artifact]:
        """Every tarball by the name under which it was published, and its kind."""
        found: dict[Key, Artifact] = {}
        for model in self.models.values():
            for name, artifacts in {model.name: model.artifacts, **model.aliases}.items():
                found |= {(name, kind): artifact for kind, artifact in artifacts.items()}
        return found

    def find(self, name: str) -> Model | None:
        """The model of that name or alias, under that name (see `Model.under`), or None."""
        owner = self._owners.get(name)
        return None if owner is None else owner.under(name)

    def get(self, name: str) -> Model:
        """The model of that name or alias, under that name (see `Model.under`).

        Raises:
            SourceError: there is none; the message offers names that look alike.
        """
        if model := self.find(name):
            return model
        alike = _alike(name, self._owners)
        hint = f"did you mean {' or '.join(alike)}?" if alike else "`python -m paddle2torch list` shows all;"
        raise SourceError(
            f"{name}: no model of that name in the zoo; {hint} others are converted from their tarball, folder or "
            "file, and any inference model by its graph (--as-graph)"
        )

    def filter(
        self, task: str | None = None, generation: str | None = None, language: str | None = None
    ) -> tuple[Model, ...]:
        """The models that fit all that is given, in any case; a language fits where it is part of a language's name."""
        return tuple(
            model
            for model in self.models.values()
            if (task is None or model.task == task.casefold())
            and (generation is None or model.generation.casefold() == generation.casefold())
            and (language is None or any(language.casefold() in known.casefold() for known in model.languages))
        )

    def explain_nothing(
        self, task: str | None = None, generation: str | None = None, language: str | None = None
    ) -> str | None:
        """Which of a filter's words fit nothing, and what would fit in their place; None where some model fits all.

        Args:
            task: as for `filter`.
            generation: as for `filter`.
            language: as for `filter`.
        """
        if self.filter(task, generation, language):
            return None
        reasons = []
        if generation is not None and not self.filter(generation=generation):
            known = tuple(dict.fromkeys(model.generation for model in self.models.values()))
            reasons.append(f"there is no generation {generation!r}; there are {', '.join(known)}")
        if language is not None and not self.filter(language=language):
            known = tuple(sorted({each for model in self.models.values() for each in model.languages}))
            alike = _alike(language, known)
            there_are = f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(known)}"
            reasons.append(f"no model names the language {language!r}; {there_are}")
        if reasons:
            return "; ".join(reasons)
        given = {"task": task, "generation": generation, "language": language}
        said = {key: value for key, value in given.items() if value is not None}
        rest = {key: len(self.filter(**{**said, key: None})) for key in said}
        without = ", ".join(f"without --{key} {count}" for key, count in rest.items())
        return f"no model fits all of {', '.join(f'--{key} {value}' for key, value in said.items())}; {without}"


def _alike(word: str, known: Iterable[str]) -> list[str]:
    """Up to three of some words that look like one: those that only say more than it does, then the nearest."""
    folded = {each.casefold(): each for each in known}
    parts = set(word.casefold().split("_"))
    fuller = [each for each in folded if len(parts) > 1 and parts < set(each.split("_"))]
    near = difflib.get_close_matches(word.casefold(), folded, n=3, cutoff=0.75)
    return [folded[each] for each in dict.fromkeys((*fuller, *near))][:3]


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

_ALIASES = _Key(
    "a list of names, or a mapping of name → {inference, trained}",
    lambda value: _is_texts(value) or (isinstance(value, dict) and value != {}),
)

_TOP_KEYS = {
    "server": _TEXT._replace(required=True),
    "places": _MAPPING,
    "dictionaries": _TEXTS._replace(required=True),
    "groups": _MAPPING._replace(required=True),
}
_MODEL_KEYS = {
    "generation": _one_of(GENERATIONS, required=True),
    "revisions": _TEXTS,
    "aliases": _ALIASES,
    "task": _one_of(TASKS, required=True),
    "description": _TEXT._replace(required=True),
    "languages": _TEXTS._replace(required=True),
    "size": _Key("a size such as 3.8M", _matches(r"\d+(\.\d+)?[kMG]")),
    "architecture": _TEXT._replace(required=True),
    "parameters": _MAPPING,
    "inference": _TARBALL._replace(required=True),
    "trained": _TARBALL,
    "pretrained": _TARBALL,
    "dictionary": _TEXT,
    "space": _Key("true or false", lambda value: isinstance(value, bool)),
}
_GROUP_KEYS = {key: rule._replace(required=False) for key, rule in _MODEL_KEYS.items() if key != "aliases"} | {
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
        self.places: dict[str, str] = {}
        self.dictionaries: tuple[str, ...] = ()

    def zoo(self, content: object) -> Zoo:
        top = self._checked("the file", content, _TOP_KEYS)
        self.server = top.get("server", "https://missing")  # stands in, so that its absence is one mistake
        self.dictionaries = tuple(top.get("dictionaries", ()))
        for name, place in top.get("places", {}).items():
            if _is_text(place) and _matches(_NAME)(name):
                self.places[name] = place
            else:
                self.mistakes.add("the file, places", repr(name), f"expected a name and a URL, found {place!r:.60}")
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
        owners = {name: name for name in models}
        for model in models.values():
            for alias in model.aliases:
                if owners.setdefault(alias, model.name) != model.name or alias == model.name:
                    self.mistakes.add(model.name, "aliases", f"{alias} is a name of {owners[alias]} already")
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
        aliases = self._aliases(name, own.get("aliases", {}))
        artifacts = {
            kind: self._artifact(name, kind, entry[kind], [each[kind] for each in aliases.values() if kind in each])
            for kind in KINDS
            if kind in entry
        }
        for alias, others in aliases.items():
            for kind in others.keys() - artifacts.keys():
                self.mistakes.add(f"{name}, aliases, {alias}", kind, "the model itself has no such tarball")
        languages = tuple(entry.get("languages", ()))
        description = self._fill(name, "description", entry.get("description", ""), languages=", ".join(languages))
        complete = all(key in entry for key, rule in _MODEL_KEYS.items() if rule.required)
        if not complete or len(self.mistakes.lines) > before:
            return None
        return Model(
            name=name,
            aliases=aliases,
            task=entry["task"],
            generation=entry["generation"],
            revisions=tuple(entry.get("revisions", ())),
            languages=languages,
            description=description,
            size=entry.get("size"),
            architecture=entry["architecture"],
            parameters=dict(entry.get("parameters", {})),
            artifacts=artifacts,
            dictionary=dictionary,
        )

    def _aliases(self, name: str, content: Any) -> dict[str, dict[str, Artifact]]:
        """A model's other names, with the tarballs that were published under each."""
        aliases: dict[str, dict[str, Artifact]] = {}
        for alias in content:
            where = f"{name}, aliases"
            own = content[alias] if isinstance(content, dict) else {}
            if not _matches(_NAME)(alias):
                self.mistakes.add(where, repr(alias), "expected a name of letters, digits, dots, dashes, underscores")
            elif alias in aliases:
                self.mistakes.add(where, alias, "stands a second time")
            else:
                entry = self._entry(
                    f"{where}, {alias}", own, {kind: _MODEL_KEYS[kind]._replace(required=False) for kind in KINDS}
                )
                aliases[alias] = {kind: self._artifact(alias, kind, entry[kind]) for kind in KINDS if kind in entry}
        return aliases

    def _artifact(self, name: str, kind: str, entry: Mapping[str, Any], others: Sequence[Artifact] = ()) -> Artifact:
        """One tarball.

        Args:
            name: of the model, or an alias of it.
            kind: of the tarball.
            entry: its keys.
            others: the same as it was published under other names, to be tried after all that is its own.
        """
        where = f"{name}, {kind}"
        if "url" not in entry:
            self.mistakes.add(where, "url", "missing; expected the tarball's URL or its path on the server")
        url = self._url(where, "url", entry["url"], name=name) if "url" in entry else ""
        alternatives = tuple(
            self._url(where, "alternatives", other, name=name) for other in entry.get("alternatives", ())
        )
        alternatives += tuple(place for other in others for place in (other.url, *other.alternatives))
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
        filled = self._fill(where, key, pattern, **values, **self.places)
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
