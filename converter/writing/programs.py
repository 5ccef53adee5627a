"""A released program with other weights in it: how parity runs any checkpoint, and how weights go back to Paddle."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.matching import Expected, expected_tensors, infer_parameters, shorten
from paddle2torch.architectures.registry import Architecture, Size
from paddle2torch.converter.formats.pdiparams import write_pdiparams
from paddle2torch.converter.graph.checked import CheckedProgram, checked_program
from paddle2torch.converter.graph.naming import named
from paddle2torch.converter.graph.program import counted
from paddle2torch.converter.mapping.recognition import module_shapes
from paddle2torch.converter.mapping.rules import assign
from paddle2torch.converter.support.errors import MappingError, SourceError

if TYPE_CHECKING:
    from paddle2torch.converter.sources import Source
    from paddle2torch.converter.support.blob import Blob

_log = logging.getLogger(__name__)


def keys_by_variable(reference: Source, architecture: Architecture, available: Iterable[str]) -> dict[str, str]:
    """Module key by program parameter of the reference.

    Args:
        reference: an inference model.
        architecture: of the weights that are to go in.
        available: the module keys that there are weights for.

    Raises:
        MappingError: the program has parameters that the weights lack: it is of another architecture.
    """
    variables = named(reference, architecture).variables or {}
    keys = {
        variables[structured]: key
        for key, sources in assign(variables, architecture).sources.items()
        for structured in sources
    }
    foreign = sorted(set(keys.values()) - set(available))
    if foreign:
        raise MappingError(
            f"{reference.path}: is no reference for {architecture.name}: its program has {len(foreign)} parameters "
            f"that these weights lack ({shorten(foreign)})"
        )
    return keys


def layout_of(reference: Source, architecture: Architecture, parameters: Mapping[str, Any]) -> dict[str, Expected]:
    """The tensors of a network, in the layout that a reference's program has: with or without branches and norms.

    Args:
        reference: an inference model.
        architecture: of the network.
        parameters: of the architecture; widths and class counts are these, whatever the reference has.

    Raises:
        MappingError: the reference is of another architecture.
    """
    variables = named(reference, architecture).variables or {}
    listed = reference.program.parameters if reference.program is not None else ()
    shapes = {each.name: each.shape for each in listed if each.shape is not None}
    found = module_shapes({name: shapes[variable] for name, variable in variables.items()}, architecture)
    layout = {
        name: value
        for name, value in infer_parameters(architecture, found).items()
        if not isinstance(architecture.parameters[name].told_by, Size)
    }
    return expected_tensors(architecture, architecture.settle({**parameters, **layout}))


def with_weights(
    reference: Source, arrays: Mapping[str, np.ndarray], same: Blob | None = None
) -> tuple[CheckedProgram, bytes | memoryview]:
    """The reference's program, checked and built again, and its parameters' file, with these weights in them.

    Args:
        reference: an inference model; where a tensor has another shape (another class count), its program is adapted.
        arrays: by program parameter, in Paddle's layout.
        same: a `.pdiparams` that has these arrays, which is taken as it is where the program needs all that it has.

    Raises:
        SourceError: the reference has no program.
        MappingError: the program has operators that are not run, or needs tensors that are not there; or the shapes
            differ, and the program is of the form that cannot be adapted.
        FormatError: the program is inconsistent.
    """
    file = reference.files.program or reference.files.pir
    if file is None or reference.program is None:
        raise SourceError(f"{reference.path}: is no inference model; give a folder or tarball that holds a program")
    shapes = {variable.name: variable.shape for variable in reference.program.parameters}
    changed = {name: array.shape for name, array in arrays.items() if array.shape != shapes[name]}
    if changed and reference.program.pir:
        raise MappingError(
            f"{reference.path}: its tensors have other shapes than the weights ({shorten(sorted(changed))}); give a "
            "--reference exported with the same class count"
        )
    checked = checked_program(file, reference.program, reference.path.name, changed)
    if checked.left_out:
        _log.warning(
            "%s: Paddle's copy of its program lacks operators on which no output depends: %s",
            reference.path.name,
            counted(checked.left_out),
        )
    needed = [parameter.name for parameter in checked.program.parameters]
    if missing := sorted(set(needed) - arrays.keys()):
        raise MappingError(f"{reference.path}: its program needs tensors that are not there: {shorten(missing)}")
    if same is not None and len(needed) == len(reference.program.parameters):
        return checked, same.data
    return checked, write_pdiparams({name: arrays[name] for name in needed})
