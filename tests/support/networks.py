"""Networks in general: shapes, what modules return, and training mode without batch statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from paddle2torch.architectures.families.pp_lcnet import UnscaledDropout
from paddle2torch.architectures.matching import COUNTER, expected_tensors
from paddle2torch.architectures.network import OCRModel
from paddle2torch.architectures.registry import get
from paddle2torch.converter.mapping.rules import in_torch_layout, structured_name, to_torch

from .recipe import Shape, weights


def shapes(model: nn.Module) -> dict[str, Shape]:
    """Of all tensors that Paddle has as well."""
    return {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith(COUNTER)}


def drawn(name: str, parameters: Mapping[str, Any]) -> OCRModel:
    """A network with the recipe's weights, in evaluation mode."""
    architecture = get(name)
    expected = expected_tensors(architecture, parameters)
    tensors = weights(
        {
            structured_name(key, architecture.renames): in_torch_layout(tensor.shape, tensor)
            for key, tensor in expected.items()
            if not key.endswith(COUNTER)
        }
    )
    model = architecture.build(parameters)
    model.load_state_dict(to_torch(tensors, architecture, parameters).state)
    return model.eval()


def returned(model: nn.Module, x: Tensor, *paths: str) -> list[Any]:
    """What modules return for an input, without gradients."""
    seen: dict[str, Any] = {}
    hooks = [
        model.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, path=path: seen.update({path: output})
        )
        for path in paths
    ]
    with torch.inference_mode():
        model(x)
    for hook in hooks:
        hook.remove()
    return [seen[path] for path in paths]


@contextmanager
def in_training(*parts: nn.Module) -> Iterator[None]:
    """While it lasts, parts of a network return what they do in training, with running statistics and no dropout."""
    modules = [module for part in parts for module in part.modules()]
    modules = [module for module in modules if not isinstance(module, (_BatchNorm, nn.Dropout, UnscaledDropout))]
    before = [module.training for module in modules]
    for module in modules:
        module.training = True
    yield
    for module, training in zip(modules, before, strict=True):
        module.training = training
