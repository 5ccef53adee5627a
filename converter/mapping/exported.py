"""`inference.yml`, which PaddleOCR writes beside an exported model since PP-OCRv4.

It tells preprocessing, postprocessing and characters.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle2torch.converter.mapping.steps import Steps, Usage
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from paddle2torch.converter.support.safe_yaml import load_yaml


@dataclass(frozen=True)
class Settings:
    """What an `inference.yml` says.

    Attributes:
        usage: pre- and postprocessing.
        characters: of a recogniser, without the blank; None for other models.
    """

    usage: Usage
    characters: list[str] | None

    @property
    def file(self) -> str:
        """Its name."""
        return self.usage.file


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
    before, after = content.get("PreProcess"), content.get("PostProcess")
    if before is not None and not isinstance(before, dict):
        raise FormatError(blob.name, f"PreProcess is {before!r:.60}; expected transform_ops and their list")
    steps = Steps.read((before or {}).get("transform_ops"), blob.name, "PreProcess.transform_ops")
    return Settings(Usage(blob.name, steps, after), _characters(after))


def _characters(section: object) -> list[str] | None:
    listed = section.get("character_dict") if isinstance(section, dict) else None
    # YAML takes an unquoted digit for a number.
    return [str(character) for character in listed] if isinstance(listed, list) else None
