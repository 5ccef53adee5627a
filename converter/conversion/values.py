"""What is wrong with values, whatever tensor they are in: told, or refused where no network computes with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from paddle2torch.architectures.matching import shorten
from paddle2torch.converter.support.errors import MappingError

if TYPE_CHECKING:
    from torch import Tensor

# Of all batch norms of PaddleOCR; a variance below its negative has no root.
EPSILON = 1e-5
SMALLEST = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)
_VARIANCES = ("running_var", "_variance")


def require_range(arrays: Mapping[str, np.ndarray], file: str) -> None:
    """Raise MappingError where float64 values do not fit into float32.

    Args:
        arrays: structured name → array as it stands in the file.
        file: what to call it.
    """
    for name, array in arrays.items():
        if array.dtype == np.float64 and np.any(np.isfinite(array) & (np.abs(array) > LARGEST)):
            raise MappingError(f"{file}: {name} has float64 values that are too large for float32; nothing was written")


def note_values(
    state: Mapping[str, Tensor], origins: Mapping[str, str], file: str, constants: bool = False
) -> list[str]:
    """What a user should know of the values.

    Args:
        state: module key → tensor.
        origins: module key → structured name, for what was read.
        file: what to call the source.
        constants: whether infinity may be meant, as it is in a mask that a program has among its parameters.

    Raises:
        MappingError: values are NaN or infinite, or variances negative, so that the network answers with NaN.
    """
    notes = []
    nans, infinities, negative, denormal, count = [], [], [], [], 0
    for key, name in origins.items():
        if not state[key].is_floating_point():
            continue
        values = state[key].numpy()
        size = np.abs(values)
        if not size.max(initial=0) <= LARGEST:  # NaN neither
            nans += [name] if np.isnan(size).any() else []
            infinities += [name] if np.isinf(size).any() else []
        if key.endswith(_VARIANCES) and values.min(initial=0) < 0:
            negative.append((name, float(values.min())))
        if found := int(np.count_nonzero((size < SMALLEST) & (size > 0))):
            denormal.append(name)
            count += found
    below = [f"{name} (down to {value:.2g})" for name, value in negative if value <= -EPSILON]
    problems = [("NaN", nans), ("negative variances", below)] + [("infinity", infinities)] * (not constants)
    for what, names in problems:
        if names:
            raise MappingError(
                f"{file}: {len(names)} tensors hold {what}: {shorten(names)}; the network would answer NaN to every "
                "image; take a checkpoint from before training diverged; nothing was written"
            )
    if negative:
        notes.append(
            f"{len(negative)} tensors hold variances just below zero: {shorten([name for name, _ in negative])}"
        )
    if infinities:
        notes.append(f"{len(infinities)} tensors hold infinity, as masks do: {shorten(infinities)}")
    if denormal:
        notes.append(
            f"{count} values in {len(denormal)} tensors are denormal (below {SMALLEST:.1e}), which some processors "
            f"take for 0: {shorten(denormal)}"
        )
    return notes
