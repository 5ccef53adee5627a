"""The PyTorch side: the output of every layer in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paddle2torch.architectures.graph.module import VALUE
from paddle2torch.converter.parity.reference import Precision, half_of_the_cores

# The slope that upstream's networks give their second hard sigmoid, where PyTorch's own has 1/6.
HARD_SIGMOID_SLOPE = 0.1666667


class ConstantsAsStored(TorchDispatchMode):
    """Rounds the constants of a double-precision run (slopes, epsilons, scales) to what a Paddle program has of them.

    An operator's attributes are float32 there, so that Paddle's double-precision run has 0.2 as 0.200000003. Without
    the same rounding here that would be the largest difference of all, and a recurrent network multiplies it.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten.hardsigmoid.default:
            return (args[0] * _rounded(HARD_SIGMOID_SLOPE) + 0.5).clamp(0.0, 1.0)
        return func(*map(_rounded, args), **{name: _rounded(value) for name, value in (kwargs or {}).items()})


def _rounded(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, float) else value


def constants_of(precision: Precision) -> AbstractContextManager[object]:
    """What must hold around a run for its constants to be those of Paddle's run in the same precision."""
    return ConstantsAsStored() if precision == "double" else nullcontext()


@contextmanager
def few_threads() -> Iterator[None]:
    """PyTorch on its share of the cores; Paddle works on the others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, half_of_the_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def parametrised_modules(model: nn.Module) -> list[str]:
    """Paths of the modules that own parameters or buffers themselves."""
    return [
        path
        for path, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))
    ]


def run_with_layers(
    model: nn.Module, modules: Iterable[str], inputs: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """Run a network and keep what some of its modules return.

    Args:
        model: in evaluation mode.
        modules: paths.
        inputs: (N, 3, H, W), of the network's own precision.

    Returns:
        Output by path, as (N, T, C) for recurrent layers, and the network's own outputs. A module that was not called
        is missing.
    """
    outputs: dict[str, np.ndarray] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, object]) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            # A copy: an activation that follows may work in place.
            outputs[path] = np.array(tensor.numpy())

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in modules]
    try:
        with few_threads(), torch.inference_mode(), constants_of(_precision_of(inputs)):
            final = model(torch.from_numpy(inputs))
    finally:
        for handle in handles:
            handle.remove()
    return outputs, _arrays(final)


def run_with_values(
    model: fx.GraphModule, values: Mapping[str, str], inputs: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """Run a network made from a graph and keep some of the graph's values.

    Args:
        model: in evaluation mode.
        values: what each is to be called → its name in the graph.
        inputs: (N, 3, H, W), of the network's own precision.

    Returns:
        The values by what they are to be called, and the network's own outputs.
    """
    recorder = Recorder(model, frozenset(values.values()))
    with few_threads(), torch.inference_mode(), constants_of(_precision_of(inputs)):
        final = recorder.run(torch.from_numpy(inputs))
    return {name: recorder.found[value] for name, value in values.items()}, _arrays(final)


def _precision_of(inputs: np.ndarray) -> Precision:
    return "double" if inputs.dtype == np.float64 else "single"


def _arrays(final: Any) -> tuple[np.ndarray, ...]:
    return tuple(each.numpy() for each in (final if isinstance(final, tuple) else (final,)))


class Recorder(fx.Interpreter):
    """Runs a module node by node and keeps some of the values."""

    def __init__(self, module: fx.GraphModule, wanted: frozenset[str]) -> None:
        super().__init__(module)
        self.wanted = wanted
        self.found: dict[str, np.ndarray] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run one node; the base class calls this."""
        value = super().run_node(n)
        name = n.meta.get(VALUE)
        if name in self.wanted:
            # A copy: an activation that follows may work in place.
            self.found[name] = torch.as_tensor(value).clone().numpy()
        return value
