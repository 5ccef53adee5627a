"""Which of its networks can an architecture be, where a program has no names that would tell?

Told by the kernels: how many parameters there are with which size behind the channels. Channels tell nothing yet; they
follow from the names, once these are found.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch

from paddle2torch.architectures.matching import COUNTER, Shape
from paddle2torch.architectures.registry import Architecture, Part

Values = tuple[tuple[str, Any], ...]
Kernels = Counter[tuple[int, ...]]


def variants(entry: Architecture, shapes: Iterable[Shape], given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters with which an architecture has the kernels of a program; its usual ones first.

    Args:
        entry: the architecture.
        shapes: of the program's parameters.
        given: parameters that are known.
    """
    found = _continued(entry, list(entry.parts.items()), None, given, kernels(shapes))
    return (dict(values) for values in found)


def kernels(shapes: Iterable[Shape]) -> Kernels:
    """How many tensors there are of each rank and kernel, which is the size behind the channels."""
    return Counter((len(shape), *shape[2:]) for shape in shapes)


def _continued(
    entry: Architecture, parts: list[tuple[str, Part]], channels: Any, given: Mapping[str, Any], left: Kernels
) -> Iterator[Values]:
    """The values for these parts, and those behind them, with which just the kernels that are left are used up."""
    if not parts:
        if not left.total():
            yield ()
        return
    (role, part), *rest = parts
    for values in _choices(part, given):
        needed, spare, out_channels = _part(role, part, values, channels, entry.optional)
        # Parameters that an inference model may lack are there in whole modules or not at all.
        for used in (needed, needed + spare) if spare else (needed,):
            if used <= left:
                for others in _continued(entry, rest, out_channels, given, left - used):
                    yield values + others


def _choices(part: Part, given: Mapping[str, Any]) -> list[Values]:
    """All values of a part's parameters that there are to choose from."""
    values = [
        (given[name],) if name in given else parameter.alternatives for name, parameter in part.parameters.items()
    ]
    return [tuple(zip(part.parameters, chosen, strict=True)) for chosen in itertools.product(*values)]


@lru_cache(maxsize=1024)
def _part(
    role: str, part: Part, values: Values, channels: Any, optional: tuple[str, ...]
) -> tuple[Kernels, Kernels, Any]:
    """The kernels of a part that a program must have, those that it may have, and the part's channels out."""
    inside = {} if role == "backbone" else {"in_channels": channels}
    with torch.device("meta"):
        module = part.build(**inside, **part.arguments, **dict(values))
    shapes = {f"{role}.{key}": tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    named = {key: shape for key, shape in shapes.items() if not key.endswith(COUNTER)}
    spare = kernels(shape for key, shape in named.items() if optional and key.startswith(optional))
    out_channels = getattr(module, "out_channels", None)
    return (
        kernels(named.values()) - spare,
        spare,
        tuple(out_channels) if isinstance(out_channels, list) else out_channels,
    )
