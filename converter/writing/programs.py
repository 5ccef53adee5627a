"""A released program with other weights in it: how parity runs any checkpoint, and how weights go back to Paddle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from paddle2torch.architectures.matching import shorten
from paddle2torch.architectures.registry import Architecture
from paddle2torch.converter.formats.pdiparams import write_pdiparams
from paddle2torch.converter.formats.pdmodel import with_parameter_shapes
from paddle2torch.converter.graph.naming import named
from paddle2torch.converter.mapping.rules import assign
from paddle2torch.converter.support.errors import MappingError, SourceError

if TYPE_CHECKING:
    from paddle2torch.converter.sources import Source


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


def with_weights(reference: Source, arrays: Mapping[str, np.ndarray]) -> tuple[bytes | memoryview, bytes]:
    """The reference's program and its parameters' file, with these weights in them.

    Args:
        reference: an inference model; where a tensor has another shape (another class count), its program is adapted.
        arrays: by program parameter, in Paddle's layout.

    Raises:
        SourceError: the reference has no program.
        MappingError: the shapes differ, and the program is of the form that cannot be adapted.
    """
    program = reference.files.program or reference.files.pir
    if program is None or reference.program is None:
        raise SourceError(f"{reference.path}: is no inference model; give a folder or tarball that holds a program")
    shapes = {variable.name: variable.shape for variable in reference.program.parameters}
    changed = {name: array.shape for name, array in arrays.items() if array.shape != shapes[name]}
    if changed and reference.files.program is None:
        raise MappingError(
            f"{reference.path}: its tensors have other shapes than the weights ({shorten(sorted(changed))}); give a "
            "--reference exported with the same class count"
        )
    return with_parameter_shapes(program, changed) if changed else program.data, write_pdiparams(arrays)
