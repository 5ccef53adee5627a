"""Checkpoints made on the spot: a random network of ours, written as Paddle would write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from paddle2torch.architectures import create_model
from paddle2torch.architectures.registry import get
from paddle2torch.converter.formats.pdparams import write_pdparams
from paddle2torch.converter.mapping.rules import to_paddle

Tensors = dict[str, np.ndarray]


def random_tensors(name: str, seed: int = 0, **parameters: int) -> Tensors:
    """Structured name → array, of a network of that architecture; statistics are not all alike."""
    torch.manual_seed(seed)
    model = create_model(name, **parameters)
    for buffer in (b for b in model.buffers() if b.is_floating_point()):
        buffer.uniform_(0.5, 1.5)
    return to_paddle(model.state_dict(), get(name), parameters)


def write_checkpoint(path: Path, tensors: Tensors, rename: Callable[[str], str] = str) -> Path:
    """A `.pdparams` of these tensors, under changed names."""
    path.write_bytes(bytes(write_pdparams({rename(name): array for name, array in tensors.items()})))
    return path
