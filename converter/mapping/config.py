"""PaddleOCR's YAML configurations: what they say of the architecture and of the dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle2torch.architectures.registry import Architecture, architectures
from paddle2torch.converter.support.errors import FormatError, MappingError
from paddle2torch.converter.support.given import read_given
from paddle2torch.converter.support.safe_yaml import load_yaml

# Keys whose other spellings mean the same, or mean it without saying so.
SPELLINGS = {"ResNet_vd": "ResNet", "mobile_v3": "MobileNetV3"}
DEFAULTS = {"Backbone.model_name": "small"}
HEAD_LIST = "head_list"


@dataclass(frozen=True)
class Config:
    """What conversion takes from a configuration.

    Attributes:
        path: of the file.
        architecture: the network that it describes.
        parameters: those that the file gives.
        dictionary: as written in the file, relative to the folder that training ran in.
        space: whether a space is appended to the dictionary.
    """

    path: Path
    architecture: Architecture
    parameters: dict[str, Any]
    dictionary: str | None
    space: bool

    def find_dictionary(self) -> Path | None:
        """The dictionary's file: as written, or relative to the configuration's folder or one above it."""
        if self.dictionary is None:
            return None
        folder = self.path.resolve().parent
        candidates = [Path(self.dictionary), *(parent / self.dictionary for parent in (folder, *folder.parents))]
        return next((path for path in candidates if path.is_file()), None)


def read_config(path: Path, branch: str | None = None) -> Config:
    """Read a configuration.

    Args:
        path: the YAML file.
        branch: which network of a distillation; its first student otherwise.

    Raises:
        SourceError: the file cannot be read.
        FormatError: it is not such a configuration.
        MappingError: it describes no network of this list.
    """
    try:
        content = load_yaml(read_given(path, "configuration"))
    except ValueError as error:
        raise FormatError(str(path), f"not YAML ({error}); give the .yml that the model was trained with") from error
    if not isinstance(content, dict) or not isinstance(content.get("Architecture"), dict):
        raise FormatError(str(path), "has no section Architecture; give the .yml that the model was trained with")
    settings = content.get("Global")
    settings = settings if isinstance(settings, dict) else {}
    facts = _flatten(_network(content["Architecture"], branch, path))
    architecture = _architecture(facts, path)
    dictionary = settings.get("character_dict_path")
    return Config(
        path=path,
        architecture=architecture,
        parameters=_parameters(facts, architecture, path),
        dictionary=dictionary if isinstance(dictionary, str) else None,
        space=bool(settings.get("use_space_char", False)),
    )


def _network(section: Mapping[str, Any], branch: str | None, path: Path) -> Mapping[str, Any]:
    """The network's own section, out of a distillation's if need be."""
    models = section.get("Models")
    if not isinstance(models, dict):
        return section
    name = branch or next((name for name in models if "student" in str(name).lower()), next(iter(models), None))
    if not isinstance(models.get(name), dict):
        raise MappingError(f"{path}: has no network {name!r} under Models; it has: {', '.join(map(str, models))}")
    return models[name]


def _flatten(section: Mapping[str, Any]) -> dict[str, Any]:
    """`Backbone: {name: X}` → `Backbone.name: X`; of several heads, the CTC head and its neck stand for the network."""
    parts = {key: value for key, value in section.items() if isinstance(value, dict)}
    head = parts.get("Head", {})
    if isinstance(head.get(HEAD_LIST), list):
        ctc = next(
            (entry["CTCHead"] for entry in head[HEAD_LIST] if isinstance(entry, dict) and "CTCHead" in entry), {}
        )
        neck = (ctc or {}).get("Neck") or {}
        parts["Head"] = {**((ctc or {}).get("Head") or {}), "name": "CTCHead"}
        parts["Neck"] = {**neck, "encoder_type": neck.get("name")}
    facts = {f"{part}.{key}": value for part, content in parts.items() for key, value in content.items()}
    facts = {key: SPELLINGS.get(value, value) if isinstance(value, str) else value for key, value in facts.items()}
    if facts.get("Backbone.name") == "MobileNetV3":
        facts = {**DEFAULTS, **facts}
    return facts


def _parameters(facts: Mapping[str, Any], architecture: Architecture, path: Path) -> dict[str, Any]:
    """The parameters that are given, each of its default's kind."""
    found = {}
    for key, parameter in architecture.parameters.items():
        value = facts.get(parameter.config, parameter.absent) if parameter.config else None
        if value is None:
            continue
        kinds = (int, float) if type(parameter.default) is float else type(parameter.default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            kind = type(parameter.default).__name__
            raise FormatError(
                str(path), f"Architecture.{parameter.config} is {value!r}; expected a value of type {kind}"
            )
        found[key] = value
    return found


def _architecture(facts: Mapping[str, Any], path: Path) -> Architecture:
    described = [each for each in architectures() if "Backbone.name" in each.config]
    found = [each for each in described if all(facts.get(key) == value for key, value in each.config.items())]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(each.name for each in found)
        raise MappingError(f"{path}: {names} are both described by it; say which with --architecture")
    told = ", ".join(
        f"{key} {facts[key]}"
        for key in (
            "Backbone.name",
            "Backbone.model_name",
            "Backbone.layers",
            "Neck.name",
            "Neck.encoder_type",
            "Head.name",
        )
        if facts.get(key) is not None
    )
    raise MappingError(f"{path}: describes no network of this list ({told or 'no backbone, neck or head'})")
