"""What is wrong with values, whatever tensor they are in: told, or refused where no network computes with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from paddle2torch.architectures.loading import EPSILON
from paddle2torch.architectures.matching import shorten
from paddle2torch.converter.support.errors import MappingError

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Findings:
    """What there is to say of the values of a model.

    Attributes:
        fatal: why the network would answer NaN, a clause each.
        notes: what else the user should know.
    """

    fatal: tuple[str, ...]
    notes: tuple[str, ...]


def require_sound(
    arrays: Mapping[str, np.ndarray], variances: Collection[str], file: str, constants: bool = False
) -> tuple[str, ...]:
    """What a user should know of the values; arguments as for `look_at`.

    Args:
        file: what to call the source.

    Raises:
        MappingError: values are NaN, infinite or too large, or variances negative.
    """
    found = look_at(arrays, variances, constants)
    if found.fatal:
        raise MappingError(
            f"{file}: {'; '.join(found.fatal)}; the network would answer NaN to every image: take a checkpoint from "
            "before training diverged; nothing was written"
        )
    return found.notes


def look_at(arrays: Mapping[str, np.ndarray], variances: Collection[str], constants: bool = False) -> Findings:
    """Look for values that are none, or will not be in single precision.

    Args:
        arrays: structured name → array as it stands in the file.
        variances: names of the running variances of batch norms.
        constants: whether infinity may be meant, as it is in a mask that a program has among its parameters.
    """
    tensors: dict[str, list[str]] = {}
    denormal = 0
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        size = np.abs(array)
        if not float(size.max(initial=0)) <= LARGEST:  # NaN neither; compared in double precision
            nans, infinities = np.isnan(size).any(), np.isinf(size).any()
            tensors.setdefault("NaN", []).extend([name] * bool(nans))
            tensors.setdefault("infinity", []).extend([name] * bool(infinities))
            if not (nans or infinities):
                tensors.setdefault("values too large for float32", []).append(name)
        lowest = array.min(initial=0) if name in variances else 0.0
        if lowest < 0:
            what = "negative variances" if lowest <= -EPSILON else "variances just below zero"
            tensors.setdefault(what, []).append(name)
        count = int(np.count_nonzero((size < SMALLEST) & (size > 0)))
        denormal += count
        tensors.setdefault("denormal values", []).extend([name] * bool(count))
    told = {what: f"{len(names)} tensors hold {what} ({shorten(names)})" for what, names in tensors.items() if names}
    if "denormal values" in told:
        told["denormal values"] += f": {denormal} below {SMALLEST:.1e}, which some processors take for 0"
    fatal = {"NaN", "values too large for float32", "negative variances"} | ({"infinity"} if not constants else set())
    return Findings(
        tuple(text for what, text in told.items() if what in fatal),
        tuple(text for what, text in told.items() if what not in fatal),
    )
