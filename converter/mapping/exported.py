"""`inference.yml`, which PaddleOCR writes beside an exported model since PP-OCRv4: its preprocessing and characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from paddle2torch.architectures.records import Preprocessing
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from paddle2torch.converter.support.safe_yaml import load_yaml

_FRACTION = re.compile(r"\s*(\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)\s*")
Record = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What an `inference.yml` says.

    Attributes:
        file: its name.
        steps: name → arguments of the preprocessing's steps, in their order.
        characters: of a recogniser, without the blank; None for other models.
    """

    file: str
    steps: dict[str, dict[str, Any]]
    characters: list[str] | None

    def preprocessing(self, usual: Preprocessing) -> Preprocessing:
        """The usual preprocessing of the model's kind, with what the steps say in place of it.

        Raises:
            FormatError: a step has something else than numbers where they are due.
        """
        record = usual.to_json()
        try:
            for name, read in STEPS.items():
                if name in self.steps:
                    read(self.steps[name], record)
            return Preprocessing.from_json(record, self.file)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise FormatError(
                self.file, f"its preprocessing cannot be read ({error}); export the model again"
            ) from error


def _decode(step: Mapping[str, Any], record: Record) -> None:
    record["channel_order"] = {"BGR": "BGR", "RGB": "RGB"}[step.get("img_mode", record["channel_order"])]


def _normalise(step: Mapping[str, Any], record: Record) -> None:
    record |= {name: _three(step[name]) for name in ("mean", "std") if step.get(name)}
    if step.get("scale") is not None:
        record["scale"] = _number(step["scale"])


def _resize_line(step: Mapping[str, Any], record: Record) -> None:
    _, height, width = (int(size) for size in step["image_shape"])
    record["size"] |= {"height": height, "width": width}


def _resize_picture(step: Mapping[str, Any], record: Record) -> None:
    width, height = (int(size) for size in step["size"])
    record["size"] |= {"height": height, "width": width}


def _resize_page(step: Mapping[str, Any], record: Record) -> None:
    if step.get("limit_side_len"):
        record["size"]["limit_side"] = int(step["limit_side_len"])


STEPS: dict[str, Callable[[Mapping[str, Any], Record], None]] = {
    "DecodeImage": _decode,
    "NormalizeImage": _normalise,
    "RecResizeImg": _resize_line,
    "ClsResizeImg": _resize_line,
    "ResizeImage": _resize_picture,
    "DetResizeForTest": _resize_page,
}


def _three(values: Any) -> list[float]:
    first, second, third = values
    return [float(first), float(second), float(third)]


def _number(value: Any) -> float:
    """A number, or a fraction such as `1./255.`, as upstream writes it for `eval`."""
    fraction = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    return float(fraction[1]) / float(fraction[2]) if fraction else float(value)


def read_settings(blob: Blob) -> Settings:
    """Read an `inference.yml`.

    Raises:
        FormatError: it is something else, or damaged.
    """
    try:
        content = load_yaml(bytes(blob.data))
    except ValueError as error:
        raise FormatError(blob.name, f"is no YAML of an exported model: {error}; export the model again") from error
    content = content if isinstance(content, dict) else {}
    return Settings(blob.name, _steps(content.get("PreProcess")), _characters(content.get("PostProcess")))


def _steps(section: Any) -> dict[str, dict[str, Any]]:
    listed = section.get("transform_ops") if isinstance(section, dict) else None
    return {
        str(name): arguments if isinstance(arguments, dict) else {}
        for step in (listed if isinstance(listed, list) else [])
        if isinstance(step, dict)
        for name, arguments in step.items()
    }


def _characters(section: Any) -> list[str] | None:
    listed = section.get("character_dict") if isinstance(section, dict) else None
    # YAML takes an unquoted digit for a number.
    return [str(character) for character in listed] if isinstance(listed, list) else None
