"""Single changes to a network, each of which a test must notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Change = Callable[[nn.Module, pytest.MonkeyPatch], None]


def assign(path: str, **attributes: object) -> Change:
    """Other attributes for one module."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        module = model.get_submodule(path)
        for name, value in attributes.items():
            assert getattr(module, name) != value, f"{path} has {name}={value} already"
            setattr(module, name, value)

    return change


def put(path: str, module: nn.Module) -> Change:
    """Another module in one place."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        old = model.get_submodule(path)
        assert repr(old) != repr(module), f"{path} is {module} already"
        model.set_submodule(path, module)

    return change


def exchange(path: str, other: str) -> Change:
    """Two modules in each other's place."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        one, two = model.get_submodule(path), model.get_submodule(other)
        model.set_submodule(path, two)
        model.set_submodule(other, one)

    return change


def before(path: str, function: Callable[[Tensor], Tensor]) -> Change:
    """A function applied to what one module reads."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        model.get_submodule(path).register_forward_pre_hook(lambda _module, inputs: function(inputs[0]))

    return change


def after(path: str, function: Callable[[Tensor, Any], Any]) -> Change:
    """A function of what one module read and returned, in place of what it returned."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        model.get_submodule(path).register_forward_hook(lambda _module, inputs, output: function(inputs[0], output))

    return change


def define(module: object, name: str, value: object) -> Change:
    """Another function of a class or of a module of `architectures`."""
    return lambda _, monkeypatch: monkeypatch.setattr(module, name, value)


def bilinear(x: Tensor, factor: int) -> Tensor:
    """In place of `necks.upsample`."""
    return nn.functional.interpolate(x, scale_factor=float(factor), mode="bilinear")


def finest_first(maps: list[Tensor]) -> Tensor:
    """In place of `necks.fuse`."""
    return torch.cat([nn.functional.interpolate(x, maps[0].shape[2:]) for x in maps], 1)


def rolled(channels: int) -> Callable[[Tensor], Tensor]:
    """Puts the first channels of what was concatenated last."""
    return lambda x: torch.cat([x[:, channels:], x[:, :channels]], 1)


def corner(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """In place of `folding.pad_kernel`: the kernel in a corner of the larger one."""
    return nn.functional.pad(weight, (0, size[1] - weight.shape[3], 0, size[0] - weight.shape[2]))
