"""A conversion in a folded layout: what training has in branches and norms, in the convolutions that inference runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.matching import expected_tensors, infer_parameters, shorten
from paddle2torch.architectures.registry import Architecture
from paddle2torch.converter.conversion.network import NamedNetwork
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.tasks import find_task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from paddle2torch.converter.conversion.convert import Conversion

# How far what both layouts compute may be apart in double precision, relative to the largest value.
TOLERANCE = 1e-12
SIDE = 8  # of the map on which layers are compared that evaluation leaves out
UNUSED = "a checkpoint has it, and no layer runs it"


@dataclass(frozen=True)
class Folded:
    """What came of folding a conversion.

    Attributes:
        conversion: in the folded layout; the given one where there was nothing to fold.
        layers: how many convolutions took the place of others.
        error: how far both layouts are apart in double precision, at most; see `compare_layouts`.
    """

    conversion: Conversion
    layers: int
    error: float

    @property
    def note(self) -> str:
        """For the user."""
        if not self.layers:
            return "no layer of this network can be folded; it is as it was"
        return (
            f"folded {self.layers} layers; in double precision they are {self.error:.1e} apart from their branches, "
            f"{TOLERANCE:g} is allowed"
        )


@dataclass(frozen=True)
class FoldedWeights:
    """The weights of a network in a folded layout.

    Attributes:
        parameters: of its architecture.
        state: every tensor, in the module's order.
        replaced: see `paddle2torch.architectures.folding.Replaced`.
    """

    parameters: dict[str, Any]
    state: dict[str, Tensor]
    replaced: dict[str, tuple[str, ...]]


def fold(conversion: Conversion, layout: Container[str] | None = None) -> Folded:
    """Fold the re-parameterised layers of a conversion, and compare both layouts on noise.

    Args:
        conversion: it stays as it is.
        layout: names of the tensors that the result is to have; all layers are folded by default.

    Raises:
        MappingError: the layouts do not compute the same, or folding does not lead to this one.
    """
    network = conversion.network
    if not isinstance(network, NamedNetwork):
        return Folded(conversion, 0, 0.0)
    weights = fold_weights(conversion.build(), network.architecture, network.parameters, layout)
    if not weights.replaced:
        return Folded(conversion, 0, 0.0)
    distances = compare_layouts(conversion.build().double(), layout, network)
    wrong = next((path for path, distance in distances.items() if not distance <= TOLERANCE), None)
    if wrong is not None:
        raise MappingError(
            f"{conversion.name}: folded, the network computes something else than with its branches, from {wrong} on: "
            f"{distances[wrong]:.1e} apart in double precision, {TOLERANCE:g} is allowed; nothing was written"
        )
    mapped = replace(
        conversion.mapped,
        state=weights.state,
        origins={key: name for key, name in conversion.origins.items() if _kept(key, weights)},
        folded={
            f"{conv}.{leaf}": _below(layers, conversion.origins)
            for conv, layers in weights.replaced.items()
            for leaf in ("weight", "bias")
        },
    )
    unused = conversion.mapped.used - mapped.used
    mapped = replace(mapped, ignored={**mapped.ignored, **dict.fromkeys(sorted(unused), UNUSED)})
    folded = replace(conversion, network=replace(network, parameters=weights.parameters), mapped=mapped)
    return Folded(folded, len(weights.replaced), max(distances.values()))


def fold_weights(
    model: nn.Module, architecture: Architecture, parameters: Mapping[str, Any], layout: Container[str] | None = None
) -> FoldedWeights:
    """Fold a network.

    Args:
        model: with its weights; it is folded in place.
        architecture: its own.
        parameters: of the architecture.
        layout: see `fold`.

    Raises:
        MappingError: folding does not lead to this layout.
    """
    from paddle2torch.architectures import folding

    replaced = folding.fold(model, layout)
    state = model.state_dict()
    told = infer_parameters(architecture, {key: tuple(tensor.shape) for key, tensor in state.items()})
    settled = architecture.settle({**parameters, **told})
    expected = expected_tensors(architecture, settled)
    if apart := sorted(state.keys() ^ expected.keys()):
        raise MappingError(f"{architecture.name}: cannot be folded to that layout, because of {shorten(apart)}")
    return FoldedWeights(settled, {key: state[key] for key in expected}, replaced)


def _kept(key: str, weights: FoldedWeights) -> bool:
    """Whether a tensor is in both layouts with the same values."""
    return key in weights.state and key.rpartition(".")[0] not in weights.replaced


def _below(layers: Iterable[str], origins: Mapping[str, str]) -> tuple[str, ...]:
    """Structured names of the tensors of some layers."""
    prefixes = tuple(f"{layer}." for layer in layers)
    return tuple(name for key, name in origins.items() if key.startswith(prefixes))


# ---- both layouts compared ---------------------------------------------------------------------------------------


def compare_layouts(branches: nn.Module, layout: Container[str] | None, network: NamedNetwork) -> dict[str, float]:
    """How far a network in double precision, and itself folded without rounding, are apart on noise.

    Compared is what every module returns that both layouts have, but for those that were folded: the output alone may
    be flat, whatever the weights. Layers that only training runs are compared one by one.

    Args:
        branches: the network with its branches, in evaluation mode and double precision.
        layout: see `fold`.
        network: what it is.

    Returns:
        Path of a module → distance relative to its largest value, in the order in which they return.
    """
    from paddle2torch.architectures import folding

    folded = copy.deepcopy(branches)
    replaced = folding.fold(folded, layout)
    both = dict(branches.named_modules()).keys() & dict(folded.named_modules()).keys()
    both -= {*replaced, *(layer for layers in replaced.values() for layer in layers)}
    shape = find_task(network.task).small.shape(network.preprocessing)
    noise = np.random.default_rng(0).standard_normal(shape)
    values, others = (_returned(model, both, noise) for model in (branches, folded))
    distances = {path: _distance(value, others[path]) for path, value in values.items()}
    for path, module in branches.named_modules():
        if isinstance(module, folding.Foldable) and path in both - values.keys():  # evaluation leaves it out
            own = [other.removeprefix(f"{path}.") for other in both if other.startswith(f"{path}.")]
            values, others = (_returned_alone(model.get_submodule(path), own) for model in (branches, folded))
            distances |= {f"{path}.{name}": _distance(value, others[name]) for name, value in values.items()}
    return distances


def _returned_alone(layer: nn.Module, paths: Iterable[str]) -> dict[str, Tensor]:
    """As `_returned`, for a layer on noise of its own."""
    from torch import nn

    channels = next(each.in_channels for each in layer.modules() if isinstance(each, nn.Conv2d))
    return _returned(layer, paths, np.random.default_rng(0).standard_normal((1, channels, SIDE, SIDE)))


def _returned(model: nn.Module, paths: Iterable[str], inputs: np.ndarray) -> dict[str, Tensor]:
    """By path, what the modules return that return one tensor."""
    import torch

    values: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                values[path] = output.clone()  # an activation that follows may work in place

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        with torch.inference_mode():
            model(torch.from_numpy(inputs))
    finally:
        for handle in handles:
            handle.remove()
    return values


def _distance(value: Tensor, other: Tensor) -> float:
    differing = value != other  # a stem pads with minus infinity, which is equal to itself and no distance from it
    if not differing.any():
        return 0.0
    return float((value - other)[differing].abs().max() / value[value.isfinite()].abs().max())
