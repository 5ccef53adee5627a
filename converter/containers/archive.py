"""From what the user gives (an archive, a folder, a file) to the files of one model."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from paddle2torch.converter.containers.container import Container, open_container
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.boundary import boundary
from paddle2torch.converter.support.errors import ArchiveError, ConverterError, SourceError

_ROLES = {
    ".pdmodel": "program",
    ".pdiparams": "parameters",
    ".pdiparams.info": "info",
    ".json": "pir",
    ".yml": "settings",
    ".yaml": "settings",
    ".pdparams": "checkpoint",
}
# Files without a suffix, as PaddleOCR 1 exported them, and what older tools of Paddle called them.
_NAMES = {
    "model": "program",
    "__model__": "program",
    "params": "parameters",
    "__params__": "parameters",
    "__variables__": "parameters",
}
_SETTINGS = "inference.yml"
"""What upstream calls the settings, whatever the other files are called."""
_WINNER = "best_accuracy.pdparams"
"""The checkpoint that is meant where a training tarball holds several: upstream's trainer calls its best one so."""

_NOT_WEIGHTS = {
    ".pdopt": "holds the optimizer's state, not weights; give the .pdparams file beside it",
    ".states": "holds training progress (epoch, best metric), not weights; give the .pdparams file beside it",
    ".pth": "is PyTorch's format already: paddle2torch.load_model loads it, there is nothing to convert",
    ".pt": "is PyTorch's format already: paddle2torch.load_model loads it, there is nothing to convert",
    ".safetensors": "is no Paddle format; there is nothing to convert",
    ".onnx": "is an ONNX graph, not a Paddle model; give the model that it was made from",
}
_TORCH = "data.pkl"
"""What torch.save calls the outermost object in its archives."""
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_EXPECTED = ".pdmodel + .pdiparams, .json + .pdiparams (Paddle 3), model + params (PaddleOCR 1), or .pdparams"


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model; those that are not there are None.

    Attributes:
        location: what the user gave.
        program: `inference.pdmodel`, the program.
        parameters: `inference.pdiparams`, its weights.
        info: `inference.pdiparams.info`, the structured names of the weights.
        pir: `inference.json`, the program as Paddle 3 writes it.
        settings: `inference.yml`, preprocessing and characters as newer exports have them.
        checkpoint: a `.pdparams` of training.
        others: names of further models in the same place, passed over; each can be given as `member`.
    """

    location: Path
    program: Blob | None = None
    parameters: Blob | None = None
    info: Blob | None = None
    pir: Blob | None = None
    settings: Blob | None = None
    checkpoint: Blob | None = None
    others: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """`trained` for a checkpoint, `inference` for the rest."""
        return "trained" if self.checkpoint else "inference"


@dataclass(frozen=True)
class _Candidate:
    """One model in a container: the names of its files by their role."""

    files: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The file that stands for the model in messages, and as `member`."""
        return next(self.files[role] for role in ("checkpoint", "program", "pir", "parameters") if role in self.files)

    @property
    def complete(self) -> bool:
        """Whether there is a model: a .json alone, or an .info alone, may be anything."""
        return not self.files.keys().isdisjoint({"checkpoint", "program", "parameters"})

    def answers_to(self, member: str) -> bool:
        """Whether the user's words mean this model: a file of it, with as much of its path as they care to give."""
        wanted = PurePosixPath(member).parts
        return any(PurePosixPath(name).parts[-len(wanted) :] == wanted for name in self.files.values())


def open_model_files(path: Path, member: str | None = None) -> ModelFiles:
    """Find the files of one model, without unpacking anything to the disk.

    Args:
        path: a .tar, .tar.gz or .zip, a folder (the model may lie at any depth), or a file of the model
            (.pdparams; or any other, with what belongs to it beside it: files of the same stem, and where a folder has
            one program and one file of parameters, these whatever they are called).
        member: which model is meant where there are several: the name of one of its files, with as much of the path
            as it takes. Without it, a single `best_accuracy.pdparams` wins over other checkpoints.

    Raises:
        SourceError: the path cannot be used, holds several models, or not the one that was asked for.
        ArchiveError: the archive is broken, refused, or holds no model.
    """
    with boundary(str(path), "a model", _broken):
        return _model_in(path, member)


def _broken(name: str, problem: str) -> ArchiveError:
    return ArchiveError(f"{name}: {problem}")


def _model_in(path: Path, member: str | None) -> ModelFiles:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
    if not stat.S_ISDIR(mode):
        if not stat.S_ISREG(mode):
            raise SourceError(f"{path}: neither a file nor a folder; give a file that can be read twice")
        if reason := _NOT_WEIGHTS.get(path.suffix.lower()):
            raise SourceError(f"{path}: {reason}")
        split = _role(path.name)
        if split and split[1] != "settings":
            if member is not None:
                raise SourceError(f"{path}: is a single file, so no member {member!r} can be picked from it")
            return _from_siblings(path)
    container = open_container(path)
    candidates = _candidates(container.sizes)
    if not candidates:
        raise _nothing_found(container)
    chosen = _chosen(path, candidates, member)
    others = tuple(candidate.label for candidate in candidates if candidate is not chosen)
    return _opened(container, chosen, others)


def require_model(path: Path) -> None:
    """See that an archive is whole and holds a model, one or more, without reading them.

    Raises:
        ArchiveError: it does not, is broken, or is refused.
    """
    container = open_container(path)
    if not _candidates(container.sizes):
        raise _nothing_found(container)


def _role(name: str) -> tuple[str, str] | None:
    """(what files of one model share, role) of a model's file; None for any other."""
    if role := _NAMES.get(PurePosixPath(name).name):
        return name, role
    for suffix, role in _ROLES.items():
        if name.casefold().endswith(suffix):
            return name[: -len(suffix)], role
    return None


def _candidates(names: Iterable[str]) -> list[_Candidate]:
    """The models among some files."""
    return [candidate for candidate in _grouped(names) if candidate.complete]


def _grouped(names: Iterable[str]) -> list[_Candidate]:
    """What belongs together: files of one folder and one stem, and where a folder has one program and one file of
    parameters, these whatever they are called. A checkpoint stands alone.
    """
    folders: dict[str, dict[str, _Candidate]] = {}
    for name in names:
        if _is_companion(name):
            continue
        if split := _role(name):
            stem, role = split
            key = name if role == "checkpoint" else stem
            folder = folders.setdefault(str(PurePosixPath(name).parent), {})
            folder.setdefault(key, _Candidate()).files[role] = name
    return [candidate for folder in folders.values() for candidate in _joined(list(folder.values()))]


def _joined(candidates: list[_Candidate]) -> list[_Candidate]:
    """The same with the parts of the only model of a folder as one."""

    def having(*roles: str) -> list[_Candidate]:
        return [each for each in candidates if not each.files.keys().isdisjoint(roles)]

    programs = having("program") or having("pir")
    if len(programs) != 1 or len(having("parameters")) != 1:
        return candidates
    named = [each for each in having("settings") if PurePosixPath(each.files["settings"]).name == _SETTINGS]
    model, gone = programs[0], []
    for role, parts in (("parameters", having("parameters")), ("info", having("info")), ("settings", named)):
        if role not in model.files and len(parts) == 1:
            model.files[role] = parts[0].files[role]
            gone += [part for part in parts if part.files.keys() == {role}]
    return [each for each in candidates if each not in gone]


def _is_companion(name: str) -> bool:
    """Whether macOS put the file there to hold another's attributes."""
    return any(part.startswith("._") or part == "__MACOSX" for part in name.split("/"))


def _chosen(path: Path, candidates: list[_Candidate], member: str | None) -> _Candidate:
    if member is not None:
        fitting = [candidate for candidate in candidates if candidate.answers_to(member)]
        if len(fitting) != 1:
            few = "no model" if not fitting else "several models"
            raise SourceError(f"{path}: {few} for member {member!r}; there are:{_listed(fitting or candidates)}")
        return fitting[0]
    winners = [candidate for candidate in candidates if PurePosixPath(candidate.label).name == _WINNER]
    if len(winners) == 1 and all("checkpoint" in candidate.files for candidate in candidates):
        return winners[0]
    if len(candidates) > 1:
        raise SourceError(f"{path}: holds {len(candidates)} models; pick one with --member:{_listed(candidates)}")
    return candidates[0]


def _listed(candidates: list[_Candidate]) -> str:
    return "".join(f"\n  {candidate.label}" for candidate in candidates)


def _opened(container: Container, chosen: _Candidate, others: tuple[str, ...]) -> ModelFiles:
    blobs = container.blobs(chosen.files.values())
    return _model_files(container.path, {role: blobs[name] for role, name in chosen.files.items()}, others)


def _from_siblings(path: Path) -> ModelFiles:
    """The model that a single file belongs to."""
    _, role = _role(path.name) or ("", "")
    if role == "checkpoint":
        return _model_files(path, {role: Blob.open(path)})
    beside = _grouped(each.name for each in path.parent.iterdir() if each.is_file())
    model = next(each for each in beside if path.name in each.files.values())
    return _model_files(path, {role: Blob.open(path.with_name(name)) for role, name in model.files.items()})


def _model_files(location: Path, by_role: Mapping[str, Blob], others: tuple[str, ...] = ()) -> ModelFiles:
    return ModelFiles(
        location,
        program=by_role.get("program"),
        parameters=by_role.get("parameters"),
        info=by_role.get("info"),
        pir=by_role.get("pir"),
        settings=by_role.get("settings"),
        checkpoint=by_role.get("checkpoint"),
        others=others,
    )


def _nothing_found(container: Container) -> ConverterError:
    """Why there is no model here, as far as the names tell."""
    names = [name for name in container.sizes if not _is_companion(name)]
    hint = f"found {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it is empty"
    for name in names:
        if PurePosixPath(name).name == _TORCH:
            hint = f"it is a file of PyTorch's, and {_NOT_WEIGHTS['.pth'].removeprefix('is ')}"
            break
        if reason := _NOT_WEIGHTS.get(PurePosixPath(name).suffix):
            hint = f"its {name} {reason}"
            break
        if name.endswith(_ARCHIVES):
            hint = f"give one of the archives in it, such as {name}"
            break
    error = SourceError if container.path.is_dir() else ArchiveError
    return error(f"{container.path}: holds no model; expected {_EXPECTED}; {hint}")
