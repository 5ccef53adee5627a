"""YAML from outside: plain values only, of bounded size and depth."""

from __future__ import annotations

from typing import Any

import yaml

LARGEST = 4 << 20  # bytes; the longest dictionary in an inference.yml makes about 200 KB
DEEPEST = 64  # levels of nesting; upstream's files have about ten
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(data: bytes) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: it is none, holds more than plain values, or is absurdly large or deep.
    """
    if len(data) > LARGEST:
        raise ValueError(f"{len(data)} bytes are too many (at most {LARGEST})")
    try:
        _check_depth(data)
        return yaml.load(data, LOADER)
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem or error.context}{place}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).partition("\n")[0]) from error


def _check_depth(data: bytes) -> None:
    """Refuse a file that is nested too deeply: the quick loader descends in C, where nothing guards the stack."""
    depth = 0
    for event in yaml.parse(data, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} levels deep")
