"""Values for tensors that training alone uses, and that some files lack: drawn, and the same every time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .registry import Architecture

SEED = 0


def seeded(architecture: Architecture, parameters: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Tensor]:
    """PyTorch's usual initialisation of some tensors, from a fixed seed.

    Args:
        architecture: of the network.
        parameters: of the architecture.
        keys: of the state dict.

    Returns:
        Key → tensor, of all that the modules have that own one of these keys.
    """
    model = architecture.build_empty(parameters)
    owners = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    state: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for path in owners:
            module: Any = model.get_submodule(path)
            empty = {key: torch.empty(tensor.shape, dtype=tensor.dtype) for key, tensor in module.state_dict().items()}
            module.load_state_dict(empty, assign=True)
            module.reset_parameters()
            state |= {f"{path}.{leaf}": tensor for leaf, tensor in module.state_dict().items()}
    return state
