"""The Paddle model to compare with: the source's own, or another program with the source's weights in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converter.errors import DownloadError, MappingError, OutputError, SourceError
from converter.formats.pdiparams import write_pdiparams
from converter.formats.pdmodel import with_parameter_shapes
from converter.parity.paddle_worker import STEM
from converter.rules import assign, shorten
from converter.source import Source, load_source

if TYPE_CHECKING:
    from converter.convert import Conversion
    from converter.download import Fetcher
    from converter.zoo import Model, Zoo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedProgram:
    """A model folder for the worker.

    Attributes:
        folder: has `inference.pdmodel` or `inference.json`, and `inference.pdiparams`.
        form: "pdmodel" or "pir".
        keys: state dict key by program parameter.
    """

    folder: Path
    form: str
    keys: dict[str, str]


def find_reference(conversion: Conversion, zoo: Zoo, fetcher: Fetcher) -> Source:
    """The inference model whose program runs the conversion's weights.

    That is the source itself where it is an inference model; otherwise the zoo's tarball of the same model, or of any
    other model of the same architecture.

    Raises:
        SourceError: the zoo has none, or none that can be fetched.
    """
    if has_program(conversion.source):
        return conversion.source
    failures = []
    for model in _same_architecture(conversion, zoo):
        try:
            return load_source(model.name, zoo, fetcher, "inference")
        except (DownloadError, SourceError) as error:
            failures.append(f"\n  {error}")
    name = conversion.architecture.name
    if failures:
        raise SourceError(f"no inference model of {name} could be fetched to compare with{''.join(failures)}")
    raise SourceError(
        f"the zoo lists no inference model of {name} to run these weights in Paddle; export one with PaddleOCR's"
        " tools/export_model.py and give its folder with --reference"
    )


def has_program(source: Source) -> bool:
    """Whether the source holds an inference program, so that Paddle can run it."""
    return source.files.program is not None or source.files.pir is not None


def _same_architecture(conversion: Conversion, zoo: Zoo) -> Iterator[Model]:
    """Models of the zoo with an inference tarball of this architecture, the conversion's own first."""
    own = conversion.source.model
    models = [model for model in zoo.models.values() if model.architecture == conversion.architecture.name]
    for model in sorted(models, key=lambda model: own is None or model.name != own.name):
        if "inference" in model.artifacts:
            yield model


def write_program(conversion: Conversion, reference: Source, folder: Path) -> PreparedProgram:
    """Lay out the reference program with the conversion's weights for the worker.

    The weights are those of the source as they lie in its file, untouched by the rules: for the source's own program
    the very bytes, for another program the source's arrays in Paddle's layout, with the program's class count changed
    to theirs.

    Args:
        conversion: what is to be verified.
        reference: an inference model of the same architecture.
        folder: an empty folder.

    Raises:
        MappingError: the reference is of another architecture.
        OutputError: the folder cannot be written.
    """
    keys = _program_keys(conversion, reference)
    program, form = (
        (reference.files.program, "pdmodel") if reference.files.program is not None else (reference.files.pir, "pir")
    )
    if program is None:
        raise SourceError(f"{reference.path}: is no inference model; give one with --reference")
    if reference is conversion.source and reference.files.parameters is not None:
        program_bytes, parameter_bytes = program.data, reference.files.parameters.data
    else:
        arrays = {name: _source_array(conversion, key) for name, key in keys.items()}
        changed = _changed_shapes(reference, arrays)
        if changed and form == "pir":
            raise MappingError(
                f"{reference.path}: its tensors have other shapes than those of {conversion.source.path.name}"
                f" ({shorten(sorted(changed))}); give a --reference exported with the same class count"
            )
        program_bytes = with_parameter_shapes(program, changed) if changed else program.data
        parameter_bytes = write_pdiparams(arrays)
    try:
        (folder / f"{STEM}.{'pdmodel' if form == 'pdmodel' else 'json'}").write_bytes(program_bytes)
        (folder / f"{STEM}.pdiparams").write_bytes(parameter_bytes)
    except OSError as error:
        raise OutputError(f"{folder}: Paddle's copy of the model cannot be written ({error.strerror})") from error
    return PreparedProgram(folder, form, keys)


def _program_keys(conversion: Conversion, reference: Source) -> dict[str, str]:
    """State dict key by program parameter of the reference."""
    names = reference.variables or {}
    keys = {
        names[structured]: key
        for key, sources in assign(names, conversion.architecture).sources.items()
        for structured in sources
    }
    foreign = sorted(set(keys.values()) - conversion.origins.keys())
    if foreign:
        raise MappingError(
            f"{reference.path}: is no reference for {conversion.source.path.name}: the program has {len(foreign)}"
            f" parameters that {conversion.architecture.name} does not read there ({shorten(foreign)})"
        )
    return keys


def _source_array(conversion: Conversion, key: str) -> np.ndarray:
    """The array that a module's tensor was read from, as it lies in the source."""
    return conversion.tensors[conversion.origins[key]].astype(np.float32, copy=False)


def _changed_shapes(reference: Source, arrays: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    shapes = {variable.name: variable.shape for variable in reference.program.parameters}
    return {name: array.shape for name, array in arrays.items() if array.shape != shapes[name]}
