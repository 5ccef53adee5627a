"""Networks without numbers: to ask for their names and shapes, or to be given the numbers of a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .network import OCRModel
from .registry import assemble, build_part, create_model

# What PyTorch's layers make their tensors with, and what they fill them with.
_MAKERS = frozenset({torch.empty, torch.ones, torch.zeros})
_FILLERS = frozenset(
    {nn.init.constant_, nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_, nn.init.xavier_uniform_}
    | {Tensor.copy_, Tensor.fill_, Tensor.normal_, Tensor.uniform_, Tensor.zero_}
)
# That are kept to be shared, those that were asked for last.
MOST_PARTS = 4


class Hollow(TorchFunctionMode):
    """While it lasts, layers are made with a single zero for all the numbers of a tensor, and nothing fills them.

    `torch.device("meta")` takes no memory either, but goes through the motions of initialising, and what runs on that
    device has its shapes worked out by Python code that takes long to import.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        if func in _MAKERS and args:
            sizes = args[0] if isinstance(args[0], (tuple, list)) else args
            # Not expanded where one is all: its stride would be 0, also in what `to_empty` makes of it.
            given = sizes if math.prod(sizes) == 1 else ()
            return torch.zeros(given, dtype=kwargs.get("dtype"), device=kwargs.get("device")).expand(sizes)
        return func(*args, **kwargs)


def create_hollow(name: str, parameters: Mapping[str, Any]) -> OCRModel:
    """The network that `create_model` makes, without numbers, for `load_state_dict(…, assign=True)`.

    Raises:
        ValueError: see `create_model`.
    """
    with Hollow():
        return create_model(name, **parameters)


def hollow_model(name: str, parameters: Mapping[str, Any]) -> OCRModel:
    """Such a network in evaluation mode, with parts that it shares with others: to be looked at, not to be changed."""
    return assemble(name, parameters, shared_part).eval()


def shared_part(target: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A part as `build_part` makes it, the same one for the same arguments; the networks of a family differ little."""
    return _kept_part(target, hashable(arguments))


def hashable(arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Arguments of a part for a cache to find them by."""
    return tuple(sorted((key, tuple(value) if isinstance(value, list) else value) for key, value in arguments.items()))


@lru_cache(maxsize=MOST_PARTS)
def _kept_part(target: str, arguments: tuple[tuple[str, Any], ...]) -> nn.Module:
    with Hollow():
        return build_part(target, dict(arguments))
