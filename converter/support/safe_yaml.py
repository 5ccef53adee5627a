"""YAML from outside: plain values only, of bounded size, depth and number.

Plain scalars are what JSON has them for: numbers, `true`, `false` and `null`; the truth values also as Python writes
them, and nothing at all is None. Everything else that YAML 1.1 takes for a number, a date or a truth value (`12:30`,
`0x1f`, `no`, `=`, `~`) is text here, as it is meant in a list of characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

LARGEST = 4 << 20  # bytes; the longest dictionary in an inference.yml makes about 200 KB
DEEPEST = 64  # levels of nesting; upstream's files have about ten
MOST = 250_000  # values, those behind aliases counted each time; the longest dictionary has 18,710 characters
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WORDS = {"": None, "null": None, "true": True, "True": True, "false": False, "False": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_EXPONENT = "[eE][+-]?[0-9]{1,3}"
_FRACTION = re.compile(rf"-?(?:0|[1-9][0-9]{{0,17}})(?:\.[0-9]{{1,99}}(?:{_EXPONENT})?|{_EXPONENT})")
_TEXT = "tag:yaml.org,2002:str"
_NONE = object()


def load_yaml(data: bytes) -> Any:
    """The content of a YAML file: dicts, lists, text, numbers, truth values and None.

    An alias is replaced by what it stands for. Merge keys (`<<`) and tags are refused.

    Raises:
        ValueError: it is none, holds more than plain values, or is absurdly large or deep.
    """
    if len(data) > LARGEST:
        raise ValueError(f"{len(data)} bytes are too many (at most {LARGEST})")
    try:
        return _Builder().build(yaml.parse(data, LOADER))
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem or error.context}{place}") from error
    except ValueError:
        raise
    except Exception as error:  # whatever else the library raises
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from error


@dataclass
class _Open:
    """A list or dict that is being filled.

    Attributes:
        value: itself.
        anchor: the name by which aliases refer to it.
        size: how many values there are in it, with itself.
        key: of the dict, whose value is still to come.
    """

    value: list[Any] | dict[Any, Any]
    anchor: str | None
    size: int = 1
    key: object = _NONE


class _Builder:
    """Makes values of the parser's events, one after another: neither its depth nor its time depend on nesting."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.count = 0

    def build(self, events: Iterable[yaml.Event]) -> Any:
        for event in events:
            if isinstance(event, yaml.ScalarEvent):
                self.add(event, _scalar(event), 1, event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self.add(
                    event, *self.anchors.get(event.anchor or "") or _fail(event, f"*{event.anchor} stands for nothing")
                )
            elif isinstance(event, yaml.CollectionStartEvent):
                if event.tag not in (None, "!"):
                    _fail(event, f"the tag {event.tag}")
                if len(self.open) == DEEPEST:
                    _fail(event, f"nested more than {DEEPEST} levels deep")
                self.open.append(_Open([] if isinstance(event, yaml.SequenceStartEvent) else {}, event.anchor))
            elif isinstance(event, yaml.CollectionEndEvent):
                done = self.open.pop()
                self.add(event, done.value, done.size, done.anchor)
        if len(self.documents) > 1:
            raise ValueError(f"{len(self.documents)} documents in one file")
        return self.documents[0] if self.documents else None

    def add(self, event: yaml.Event, value: Any, size: int, anchor: str | None = None) -> None:
        """Put a value where it belongs."""
        if anchor is not None:
            self.anchors[anchor] = value, size
        if not self.open:
            self.documents.append(value)
            return
        inside = self.open[-1]
        inside.size += size
        if inside.size > MOST:
            _fail(event, f"more than {MOST:,} values")
        if isinstance(inside.value, list):
            inside.value.append(value)
        elif inside.key is not _NONE:
            inside.value[inside.key] = value
            inside.key = _NONE
        elif isinstance(value, (list, dict)):
            _fail(event, "a key that is a list or a table")
        elif value == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            _fail(event, "a merge key (<<), which is not followed; write out what it stands for")
        else:
            inside.key = value


def _scalar(event: yaml.ScalarEvent) -> Any:
    if event.tag not in (None, "!", _TEXT):
        _fail(event, f"the tag {event.tag}")
    text = str(event.value)
    if not event.implicit[0]:  # quoted, or said to be text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text


def _fail(event: yaml.Event, problem: str) -> Any:
    line = event.start_mark.line + 1 if event.start_mark else 0
    raise ValueError(f"{problem} in line {line}")
