"""The PyTorch side: the output of every layer in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class SinglePrecisionConstants(TorchDispatchMode):
    """Rounds the constants of a double-precision run (slopes, epsilons, scales) to single precision.

    Paddle stores an operator's attributes as float32, so that its double-precision run has 0.2 as 0.200000003. Without
    the same rounding here that would be the largest difference of all, and a recurrent network multiplies it.
    """

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*map(_rounded, args), **{name: _rounded(value) for name, value in (kwargs or {}).items()})


def _rounded(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, float) else value


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
        inputs: (N, 3, H, W), of the network's own precision.

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
        with torch.inference_mode(), SinglePrecisionConstants():
            final = model(torch.from_numpy(inputs)).numpy()
    finally:
        for handle in handles:
            handle.remove()
    return outputs, final
