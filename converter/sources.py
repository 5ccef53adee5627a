"""From what a person names to tensors under structured names: a zoo name, a tarball, a folder or a checkpoint."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle2torch.architectures.records import spelled_out
from paddle2torch.converter.containers.archive import ModelFiles, open_model_files
from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.formats.pdiparams import read_pdiparams
from paddle2torch.converter.formats.pdmodel import Program, read_pdmodel
from paddle2torch.converter.formats.pdparams import read_pdparams
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.support.blob import unchanged
from paddle2torch.converter.support.digests import sha256_of
from paddle2torch.converter.support.errors import FormatError, SourceError
from paddle2torch.converter.support.names import MODEL_SUFFIXES, result_name
from paddle2torch.converter.zoo.known import Finding, find_weights

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from paddle2torch.converter.support.blob import Blob
    from paddle2torch.converter.zoo.catalog import Model, Zoo
    from paddle2torch.converter.zoo.download import Fetcher

# What upstream puts behind a model's name in the names of its tarballs and checkpoints.
_ENDS = ("_infer", "_train", "_pretrained", "_trained", "_pre")


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A Paddle model that was found and read.

    Attributes:
        name: stem of the output files, see `paddle2torch.converter.support.names`.
        kind: "inference", "trained" or "pretrained".
        path: the local tarball, folder or file.
        files: the model's files in it.
        model: the zoo's entry, where it is one.
        url: where the file came from, where it came from somewhere.
        sha256: of the file; of the tensors' file for a folder.
        tensors: structured name (with prefixes, as in the file) → array; empty where only a program was asked for.
            Where nothing in the files names the tensors (see `graph.naming`), by the program's variables.
        program: the inference program, where there is one.
        variables: structured name → the program's variable; None where the names are not known.
        named_by: what told the names: "checkpoint", "info", "graph", or None.
        names: all names of the model of the zoo that it is, or that its file is called after.
        known: what its weights are by the released files that others have seen; None where there are none, or the model
            is this package's own.
    """

    name: str
    kind: str
    path: Path
    files: ModelFiles
    model: Model | None
    url: str | None
    sha256: str
    tensors: dict[str, np.ndarray]
    program: Program | None = None
    variables: dict[str, str] | None = None
    named_by: str | None = None
    names: tuple[str, ...] = ()
    known: Finding | None = None

    @property
    def file(self) -> str:
        """What records call the tarball, folder or file: its name, and printable."""
        return spelled_out(self.path.name)


def load_source(
    text: str,
    zoo: Zoo,
    fetcher: Fetcher,
    kind: str | None = None,
    member: str | None = None,
    weights: bool = True,
) -> Source:
    """Find, fetch if need be, and read a model.

    Args:
        text: a zoo name (which wins over a folder of the same name) or a path.
        zoo: the zoo.
        fetcher: for zoo names.
        kind: "inference" (the default), "trained" or "pretrained", for zoo names.
        member: which checkpoint of an archive, where there are several.
        weights: whether an inference model must have its weights; a program alone serves as a reference.

    Raises:
        SourceError: nothing of that name, the model has no such artifact, or a file was changed while it was read.
        DownloadError, ArchiveError, FormatError: see there.
    """
    model = zoo.find(text)
    if model is None and not os.path.exists(text):  # noqa: PTH110 (False for what no path can be)
        if "/" in text or text.endswith(MODEL_SUFFIXES):
            raise SourceError(f"{text}: there is no such file or folder; check the path")
        model = zoo.get(text)  # raises, with names that are near
    elif model is not None and os.path.exists(text):  # noqa: PTH110
        logger.warning(
            "%s: a model of the zoo is called so, and is taken; for the file or folder here give ./%s", text, text
        )
    if model is None:
        path = Path(text)
        # Each file of a folder is looked after by itself; others may be written beside them.
        with unchanged(path) if path.is_file() else nullcontext():
            source = _read(result_name(path), open_model_files(path, member), path, weights=weights)
            source = _looked_up(source, _called(source.name, zoo))
        if source.known is None or source.known.status not in ("released", "exported again"):
            _tell_of_other_bytes(source, zoo)
        return source
    kind = kind or "inference"
    artifact = model.artifacts.get(kind)
    if artifact is None:
        raise SourceError(f"{text}: the zoo lists no {kind} tarball for it; it lists: {', '.join(model.artifacts)}")
    fetched = fetcher.fetch(artifact)
    with unchanged(fetched.path, fetched.state):
        files = open_model_files(fetched.path, member)
        source = _read(model.name, files, fetched.path, kind, model, fetched.url, fetched.sha256)
        return source if model.generation == "embedded" else _looked_up(source, model.names)


def _called(name: str, zoo: Zoo) -> tuple[str, ...]:
    """All names of the model of the zoo that a file is called after, as NAME_infer.tar is."""
    stem = next((name.removesuffix(each) for each in _ENDS if name.endswith(each)), name)
    model = zoo.find(stem)
    return model.names if model else ()


def _looked_up(source: Source, names: tuple[str, ...]) -> Source:
    """The source, with what is known of the file of its weights."""
    if not source.tensors:
        return source
    return replace(source, names=names, known=find_weights(source.files, names, source.tensors.values()))


def _tell_of_other_bytes(source: Source, zoo: Zoo) -> None:
    """Warn of a file that is called like a tarball whose hash the zoo knows, and has another."""
    named = [
        artifact
        for model in zoo.models.values()
        for artifact in model.artifacts.values()
        if artifact.url.rpartition("/")[2].rpartition(":")[2] == source.path.name
    ]
    known = {artifact.sha256 for artifact in named if artifact.sha256}
    known.update(release.sha256 for artifact in named for release in artifact.known)
    if known and source.sha256 not in known:
        logger.warning(
            "%s: is not the file of that name that the zoo knows, whose sha256 is %s; it may be damaged",
            source.path,
            " or ".join(sorted(known)),
        )


def _read(
    name: str,
    files: ModelFiles,
    path: Path,
    kind: str | None = None,
    model: Model | None = None,
    url: str | None = None,
    sha256: str | None = None,
    weights: bool = True,
) -> Source:
    if files.checkpoint is not None:
        tensors = read_pdparams(files.checkpoint)
        sha256 = sha256 or _sha256(path, files.checkpoint.data)
        return Source(name, kind or "trained", path, files, model, url, sha256, tensors, named_by="checkpoint")
    program_file = files.program or files.pir
    if program_file is None:
        raise SourceError(
            f"{path}: has no program (inference.pdmodel or .json) for its .pdiparams, and no .pdparams; it does not "
            "hold a model"
        )
    if files.parameters is None and weights:
        raise SourceError(
            f"{path}: has a program, but no .pdiparams (params, in PaddleOCR 1) with its parameters; one with a file "
            "for each parameter has to be saved again by Paddle, with params_filename"
        )
    program = read_pdmodel(program_file) if files.program is not None else read_pir(program_file)
    arrays = read_pdiparams(files.parameters, program.parameters) if files.parameters else {}
    source = Source(
        name=name,
        kind=kind or "inference",
        path=path,
        files=files,
        model=model,
        url=url,
        sha256=sha256 or _sha256(path, (files.parameters or program_file).data),
        tensors=arrays,
        program=program,
    )
    return source if files.info is None else with_names(source, _names_of_info(files.info, program), "info")


def _names_of_info(info: Blob, program: Program) -> dict[str, str]:
    """Variable → structured name, for every parameter of the program."""
    names = read_info(info)
    unnamed = [variable.name for variable in program.parameters if variable.name not in names]
    if unnamed:
        raise FormatError(
            info.name, f"names no tensor for {unnamed[0]} and {len(unnamed) - 1} more; it is of another model"
        )
    return {variable.name: names[variable.name] for variable in program.parameters}


def with_names(source: Source, names: Mapping[str, str], named_by: str) -> Source:
    """The source with its tensors under structured names.

    Args:
        names: the program's variable → structured name.
        named_by: what told the names.
    """
    # What the graph does not read has no name there; it keeps its own, for the mapping to refuse.
    tensors = {names.get(variable, variable): array for variable, array in source.tensors.items()}
    variables = {name: variable for variable, name in names.items()}
    return replace(source, tensors=tensors, variables=variables, named_by=named_by)


def _sha256(path: Path, data: memoryview) -> str:
    if path.is_dir():
        return hashlib.sha256(data).hexdigest()
    return sha256_of(path)
