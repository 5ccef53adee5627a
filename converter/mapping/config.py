"""PaddleOCR's YAML configurations: what they say of the network, of its input and output, and of the dictionary.

Every key below `Architecture` and every step of pre- and postprocessing is followed, known to change nothing, or
refused by name, whereas upstream's modules swallow keys that they do not know. What a key means to a network is data of
the registry: see `paddle2torch.architectures.registry.Part`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from paddle2torch.architectures.records import Preprocessing
from paddle2torch.architectures.registry import Agrees, Architecture, Parameter, architectures
from paddle2torch.converter.mapping.steps import AUGMENTATIONS, HARMLESS, Steps, Usage, class_names
from paddle2torch.converter.support.errors import FormatError, MappingError
from paddle2torch.converter.support.given import read_given
from paddle2torch.converter.support.safe_yaml import load_yaml

# Values whose other spellings mean the same: older and later names of upstream's modules.
SPELLINGS = {
    "Backbone.name": {"ResNet_vd": "ResNet", "mobile_v3": "MobileNetV3"},
    "Neck.name": {"UniRepLKFPN": "RepLKFPN", "UniRepLKPAN": "RepLKPAN"},
    "Head.name": {"CBNHeadLocal": "PFHeadLocal"},
}
PARTS = ("Backbone", "Neck", "Head")
HEAD_LIST, CTC_HEAD = "head_list", "CTCHead"
# Heads beside the CTC head, which guide training.
GUIDES = ("SARHead", "NRTRHead")
# Keys that any network may have and that matter to training alone, or to what training returns.
TRAINING = frozenset({"Backbone.pretrained", "Backbone.use_ssld", "freeze_params", "pretrained", "return_all_feats"})
# Keys beside the networks of a distillation.
DISTILLATION = frozenset({"Models", "algorithm", "model_type", "name"})
# Steps that the images of training and evaluation have to share, if both have them.
SHARED = ("DecodeImage", "NormalizeImage", "RecResizeImg", "ClsResizeImg")
# What upstream takes where no dictionary is named; the second of an old `character_type`.
CHARACTERS = string.digits + string.ascii_lowercase
CHARACTERS_OF_TYPE = {"EN_symbol": string.printable[:-6]}
LARGEST_INTEGER, LARGEST_SCALE, LARGEST_STRIDE = 65536, 64.0, 16


@dataclass(frozen=True)
class Config:
    """What conversion takes from a configuration.

    Attributes:
        path: of the file.
        architecture: the network that it describes.
        parameters: those that the file gives.
        facts: all keys below `Architecture`, those of parts as "Backbone.scale", with their values.
        usage: pre- and postprocessing.
        dictionary: as written in the file, relative to the folder that training ran in.
        space: whether a space is appended to the dictionary.
        characters: of a recogniser, where no dictionary is named.
        class_names: of a classifier.
    """

    path: Path
    architecture: Architecture
    parameters: dict[str, Any]
    facts: dict[str, Any]
    usage: Usage
    dictionary: str | None
    space: bool
    characters: str
    class_names: list[str] | None

    def find_dictionary(self) -> Path | None:
        """The dictionary's file: as written, or relative to the configuration's folder or one above it."""
        if self.dictionary is None:
            return None
        folder = self.path.resolve().parent
        candidates = [Path(self.dictionary), *(parent / self.dictionary for parent in (folder, *folder.parents))]
        return next((path for path in candidates if path.is_file()), None)

    def names(self, url: str) -> bool:
        """Whether the dictionary at a URL is called as the configuration's, folder included."""
        return (
            self.dictionary is not None and PurePosixPath(self.dictionary).parts[-2:] == PurePosixPath(url).parts[-2:]
        )

    def require_agreement(self, told: Mapping[str, Any], settled: Mapping[str, Any]) -> None:
        """Compare the keys with what the weights tell.

        Args:
            told: the parameters that the weights tell.
            settled: all parameters of the network.

        Raises:
            MappingError: one contradicts the weights.
        """
        for name, value in self.parameters.items():
            if told.get(name, value) != value:
                key = self.architecture.parameters[name].config
                given = f"is {self.facts[key]!r}" if key in self.facts else f"is absent, which means {value!r}"
                raise MappingError(
                    f"{self.path}: Architecture.{key} {given}, but the weights have {name} = {told[name]!r}; give the "
                    ".yml that the model was trained with"
                )
        for key, agrees in self.architecture.agrees.items():
            if key in self.facts and not _holds(agrees, self.facts[key], settled):
                has = ", ".join(f"{name} = {value!r}" for name, value in settled.items())
                raise MappingError(
                    f"{self.path}: Architecture.{key} is {self.facts[key]!r:.60}, which does not go with the weights "
                    f"({has}); give the .yml that the model was trained with"
                )

    def describe(self) -> str:
        """In a clause: the parameters that the file gives, by its keys."""
        given = {self.architecture.parameters[name].config: value for name, value in self.parameters.items()}
        return ", ".join(f"{key} {value!r}" for key, value in given.items())


def _holds(agrees: Agrees, value: object, settled: Mapping[str, Any]) -> bool:
    try:
        return agrees(value, settled)
    except TypeError:
        return False


def read_config(path: Path, branch: str | None = None) -> Config:
    """Read a configuration.

    Args:
        path: the YAML file.
        branch: which network of a distillation; its first student otherwise.

    Raises:
        SourceError: the file cannot be read.
        FormatError: it is not such a configuration, or a step of pre- or postprocessing, or an argument of one, is not
            followed.
        MappingError: it describes no network of this list, or has a key, or a value of one, that the network does not.
    """
    try:
        content = load_yaml(read_given(path, "configuration"))
    except ValueError as error:
        raise FormatError(str(path), f"not YAML ({error}); give the .yml that the model was trained with") from error
    if not isinstance(content, dict) or not isinstance(content.get("Architecture"), dict):
        raise FormatError(str(path), "has no section Architecture; give the .yml that the model was trained with")
    settings = content.get("Global")
    settings = settings if isinstance(settings, dict) else {}
    facts = _flatten(_network(content["Architecture"], branch, path), path)
    architecture = _architecture(facts, path)
    _require_known(facts, architecture, path)
    dictionary = settings.get("character_dict_path")
    return Config(
        path=path,
        architecture=architecture,
        parameters=_parameters(facts, architecture, path),
        facts=facts,
        usage=_usage(content, architecture, path),
        dictionary=dictionary if isinstance(dictionary, str) and dictionary else None,
        space=bool(settings.get("use_space_char", False)),
        characters=CHARACTERS_OF_TYPE.get(str(settings.get("character_type")), CHARACTERS),
        class_names=class_names(settings.get("label_list"), str(path), "Global"),
    )


# ---- the network -------------------------------------------------------------------------------------------------


def _network(section: Mapping[str, Any], branch: str | None, path: Path) -> Mapping[str, Any]:
    """The network's own section, out of a distillation's if need be."""
    models = section.get("Models")
    if not isinstance(models, dict):
        return section
    unknown = [key for key in section if key not in DISTILLATION]
    if unknown:
        raise MappingError(f"{path}: Architecture.{unknown[0]} is not known beside Models; leave it out")
    name = branch or next((name for name in models if "student" in str(name).lower()), next(iter(models), None))
    if not isinstance(models.get(name), dict):
        raise MappingError(f"{path}: has no network {name!r} under Models; it has: {', '.join(map(str, models))}")
    return models[name]


def _flatten(section: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`Backbone: {name: X}` → `Backbone.name: X`; of several heads, the CTC head and its neck stand for the network."""
    parts = {part: section[part] for part in PARTS if isinstance(section.get(part), dict)}
    if isinstance(parts.get("Head", {}).get(HEAD_LIST), list):
        parts |= _ctc_head(parts["Head"], path)
    facts = {str(key): value for key, value in section.items() if key not in parts}
    facts |= {f"{part}.{key}": value for part, content in parts.items() for key, value in content.items()}
    facts = {key: value for key, value in facts.items() if value is not None and value != {}}
    for key, spellings in SPELLINGS.items():
        if isinstance(facts.get(key), str):
            facts[key] = spellings.get(facts[key], facts[key])
    if facts.get("Backbone.name") == "MobileNetV3":  # upstream has one for detectors and one for all others
        facts.setdefault("Backbone.model_name", "large" if facts.get("Head.name") == "DBHead" else "small")
    return facts


def _ctc_head(head: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Neck and head that stand for several heads, which are trained together."""
    listed = [entry for entry in head[HEAD_LIST] if isinstance(entry, dict)]
    entries = {str(name): content for entry in listed for name, content in entry.items()}
    unknown = [name for name in entries if name not in (CTC_HEAD, *GUIDES)]
    ctc = entries.get(CTC_HEAD)
    if not isinstance(ctc, dict) or unknown:
        problem = f"{unknown[0]}, which is not known" if unknown else f"no {CTC_HEAD}"
        raise MappingError(f"{path}: Architecture.Head.{HEAD_LIST} has {problem}; such networks are not in this list")
    neck, own = (ctc[part] if isinstance(ctc.get(part), dict) else {} for part in ("Neck", "Head"))
    others = {key: value for key, value in head.items() if key not in ("name", HEAD_LIST)}
    others |= {key: value for key, value in ctc.items() if key not in ("Neck", "Head")}
    return {
        "Neck": {**neck, "name": "SequenceEncoder", "encoder_type": neck.get("name")},
        "Head": {**others, **own, "name": CTC_HEAD},
    }


def _architecture(facts: Mapping[str, Any], path: Path) -> Architecture:
    described = [each for each in architectures() if "Backbone.name" in each.config]
    found = [each for each in described if all(_same(facts.get(key), value) for key, value in each.config.items())]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(each.name for each in found)
        raise MappingError(f"{path}: {names} are both described by it; say which with --architecture")
    keys = dict.fromkeys(key for each in described for key in each.config)
    told = ", ".join(f"{key} {facts[key]!s:.60}" for key in keys if key in facts)
    raise MappingError(f"{path}: describes no network of this list ({told or 'no backbone, neck or head'})")


def _require_known(facts: Mapping[str, Any], architecture: Architecture, path: Path) -> None:
    """Refuse keys that the network knows nothing of, and values of others that it does not have."""
    fixed = {
        "model_type": (None, architecture.task),
        "in_channels": (None, 3),
        "Backbone.in_channels": (None, 3),
        "Transform": (None,),
        **architecture.fixed,
    }
    for key, values in fixed.items():
        if not any(_same(facts.get(key), value) for value in values):
            given = f"is {facts[key]!r:.60}" if key in facts else "is absent"
            expected = " or ".join("none" if value is None else repr(value) for value in values)
            raise MappingError(
                f"{path}: Architecture.{key} {given}; {architecture.name}, the nearest network of this list, has "
                f"{expected}"
            )
    told = {parameter.config for parameter in architecture.parameters.values()}
    known = told | architecture.config.keys() | fixed.keys() | architecture.harmless | architecture.agrees.keys()
    unknown = [key for key in facts if key not in known and key not in TRAINING]
    if unknown:
        raise MappingError(
            f"{path}: Architecture.{unknown[0]} ({facts[unknown[0]]!r:.60}) means nothing to {architecture.name}; "
            "leave it out if it does not to the model either"
        )


def _same(value: object, other: object) -> bool:
    """Whether two values of YAML are the same; true and 1 are not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _parameters(facts: Mapping[str, Any], architecture: Architecture, path: Path) -> dict[str, Any]:
    """The parameters that keys give, or that their absence means."""
    found = {}
    for name, parameter in architecture.parameters.items():
        if parameter.config is not None and parameter.config in facts:
            value = facts[parameter.config]
            try:
                found[name] = (parameter.read or _reader(parameter))(value)
            except (ValueError, KeyError, TypeError) as error:
                problem = f"Architecture.{parameter.config} is {value!r:.60}; expected {error}"
                raise FormatError(str(path), problem) from error
        elif parameter.absent is not None:
            found[name] = parameter.absent
    return found


def _reader(parameter: Parameter) -> Callable[[Any], Any]:
    """What reads a value of the default's type."""
    if isinstance(parameter.default, tuple):
        return lambda value: _integers(value, len(parameter.default))
    readers: dict[type, Callable[[Any], Any]] = {bool: _flag, int: _integer, float: _number}
    return readers[type(parameter.default)]


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _integer(value: object, largest: int = LARGEST_INTEGER) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise ValueError(f"an integer from 1 to {largest}")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LARGEST_SCALE:
        raise ValueError(f"a number above 0, at most {LARGEST_SCALE:g}")
    return float(value)


def _integers(value: object, count: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"a list of {count} integers")
    return tuple(_integer(each, LARGEST_STRIDE) for each in value)


# ---- input and output --------------------------------------------------------------------------------------------


def _usage(content: Mapping[str, Any], architecture: Architecture, path: Path) -> Usage:
    """Pre- and postprocessing of evaluation, or of training where there is no evaluation, checked for this network."""
    train, evaluation = (_steps(content, part, path) for part in ("Train", "Eval"))
    usual, task = architecture.preprocessing, architecture.task
    for name in SHARED:
        steps = [each.only(name) for each in (train, evaluation)]
        if all(steps) and len({_shared(each.preprocessing(usual, task)) for each in steps}) > 1:
            raise FormatError(
                str(path), f"Train and Eval do not agree on {name}; correct the one that the model does not have"
            )
    harmless = HARMLESS if evaluation else HARMLESS | AUGMENTATIONS
    usage = Usage(str(path), evaluation or train, content.get("PostProcess"), harmless)
    usage.preprocessing(usual, task)
    usage.postprocessing(task)
    return usage


def _steps(content: Mapping[str, Any], part: str, path: Path) -> Steps:
    section = content.get(part)
    dataset = section.get("dataset") if isinstance(section, dict) else None
    transforms = dataset.get("transforms") if isinstance(dataset, dict) else None
    return Steps.read(transforms, str(path), f"{part}.dataset.transforms")


def _shared(record: Preprocessing) -> tuple[object, ...]:
    """What training and evaluation cannot do differently: lines may be of another length, not of another height."""
    return record.channel_order, record.scale, record.mean, record.std, record.size.mode, record.size.height
