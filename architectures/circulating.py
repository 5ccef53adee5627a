"""Other people's conversions: where their state dicts differ from those of the networks here, by rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .matching import Shape
from .registry import Architecture

if TYPE_CHECKING:
    from torch import Tensor


def own_shapes(shapes: Mapping[str, Shape], architecture: Architecture) -> dict[str, Shape]:
    """The shapes that `own_tensors` would have, for a set of tensors that may be of that architecture."""
    return {
        name: _flattened(shape) if name in architecture.one_row else shape
        for name, shape in shapes.items()
        if not _is_ignored(name, architecture)
    }


def own_tensors(tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """A network's tensors as its module here has them.

    What the architecture ignores in checkpoints, such as the layers of the classifier that a backbone was trained as,
    is left out. A kernel that is one row high here and square elsewhere, and padded there so that its middle row alone
    meets a map of height 1, becomes that row.
    """
    return {
        name: _middle_row(tensor) if name in architecture.one_row else tensor
        for name, tensor in tensors.items()
        if not _is_ignored(name, architecture)
    }


def _flattened(shape: Shape) -> Shape:
    tall = len(shape) == 4 and shape[2] == shape[3] and shape[2] % 2
    return (*shape[:2], 1, shape[3]) if tall else shape


def _middle_row(tensor: Tensor) -> Tensor:
    if _flattened(tuple(tensor.shape)) == tuple(tensor.shape):
        return tensor
    middle = tensor.shape[2] // 2
    return tensor[:, :, middle : middle + 1]


def _is_ignored(name: str, architecture: Architecture) -> bool:
    return any(name.startswith(entry.prefix) for entry in architecture.ignored)
