"""The PyTorch side: the output of every layer in one forward pass."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


def parametrised_modules(model: nn.Module) -> list[str]:
    """Paths of the modules that own parameters or buffers themselves."""
    return [
        path
        for path, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))
    ]


def run_with_layers(model: nn.Module, modules: Iterable[str], inputs: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Run a network and keep what some of its modules return.

    Args:
        model: in evaluation mode.
        modules: paths.
        inputs: float32 (N, 3, H, W).

    Returns:
        Output by path, as (N, T, C) for recurrent layers, and the network's own output. A module that was not called
        is missing.
    """
    outputs: dict[str, np.ndarray] = {}

    def keep(path: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, object]) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            # A copy: an activation that follows may work in place.
            outputs[path] = np.array(tensor.numpy())

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in modules]
    try:
        with torch.inference_mode():
            final = model(torch.from_numpy(inputs)).numpy()
    finally:
        for handle in handles:
            handle.remove()
    return outputs, final
