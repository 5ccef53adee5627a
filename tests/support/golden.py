"""Networks against what Paddle computed in released graphs with the same weights (tests/golden/).

The figures were made once, by scripts/fixtures/make_golden.py; weights and inputs come from recipe.py. So neither
Paddle nor a released model is needed here, and any change to a network's numbers shows, with the layer where it begins.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paddle2torch.architectures.registry import get
from paddle2torch.converter.mapping.recognition import identify
from paddle2torch.converter.mapping.rules import module_name, to_torch

from .changes import Change
from .recipe import Shape, image, weights

FOLDER = Path(__file__).parent.parent / "golden"
# Largest difference in a layer's output, relative to its largest magnitude. Rounding alone makes up to 6e-6 after a
# hundred layers; the least of the changes that tests make makes 2e-3.
TOLERANCE = 5e-5
OUTPUT = "output"


@dataclass(frozen=True)
class Golden:
    """A golden file, see scripts/fixtures/make_golden.py; without layers where it is a variant's."""

    input_shape: Shape
    parameters: dict[str, Shape]
    layers: dict[str, Shape]
    means: np.ndarray
    largest: np.ndarray
    entries: np.ndarray
    output: np.ndarray


@cache
def golden(name: str) -> Golden:
    """The file of an architecture, or that of a released model in the folder `variants`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        facts = json.loads(str(file["facts"]))
        layers = facts["layers"] if "means" in file else []
        return Golden(
            input_shape=tuple(facts["input"]),
            parameters={parameter: tuple(shape) for parameter, shape in facts["parameters"].items()},
            layers={layer: tuple(shape) for layer, shape in layers},
            **{key: file[key] if key in file else np.empty(0) for key in ("means", "largest", "entries", "output")},
        )


@cache
def _network(architecture: str, name: str) -> nn.Module:
    known = golden(name).parameters
    fit = identify(known, name, get(architecture))
    model = fit.architecture.build(fit.parameters)
    model.load_state_dict(to_torch(weights(known), fit.architecture, fit.parameters).state)
    return model.eval()


def network(architecture: str, name: str | None = None) -> nn.Module:
    """A copy, to be changed at will, of the network with the recipe's weights.

    Args:
        architecture: its name.
        name: of the golden file whose parameters it has, where that is not the architecture's.
    """
    return copy.deepcopy(_network(architecture, name or architecture))


def outputs_of(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """What a network returns, of which there may be several tensors."""
    with torch.inference_mode():
        output = model(x)
    return output if isinstance(output, tuple) else (output,)


def differences(architecture: str, model: nn.Module, name: str | None = None) -> dict[str, float]:
    """How far each layer and the output are from Paddle's, in the graph's order; infinite where there is nothing.

    Args:
        architecture, name: see `network`.
        model: that network, perhaps changed.
    """
    known = golden(name or architecture)
    renames = get(architecture).renames
    paths = {layer: module_name(f"{layer}.weight", renames).rpartition(".")[0] for layer in known.layers}
    seen, output = _run(model, list(paths.values()), image(known.input_shape), known.output.size)
    found = {}
    for index, (layer, shape) in enumerate(known.layers.items()):
        ours = seen.get(paths[layer])
        if ours is None or ours.shape != shape:
            found[layer] = math.inf
            continue
        apart = np.abs(_picked(ours, known.entries.shape[1]) - known.entries[index]).max()
        shifted = abs(ours.mean(dtype=np.float64) - known.means[index])
        larger = abs(np.abs(ours).max() - known.largest[index])
        found[layer] = float(max(apart, shifted, larger) / known.largest[index])
    apart = math.inf if output is None else np.abs(output - known.output).max()
    return {**found, OUTPUT: float(apart / np.abs(known.output).max())}


def _run(
    model: nn.Module, paths: list[str], inputs: np.ndarray, count: int
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """What the modules return, and so many values of the output; of a network that fails, what came before."""
    seen: dict[str, np.ndarray] = {}

    def keep(path: str, output: Any) -> None:
        seen[path] = np.array((output[0] if isinstance(output, tuple) else output).numpy())

    for path in paths:
        model.get_submodule(path).register_forward_hook(lambda _module, _inputs, output, path=path: keep(path, output))
    try:
        outputs = outputs_of(model, torch.from_numpy(inputs))
    except (RuntimeError, ValueError):
        return seen, None
    return seen, np.concatenate([_picked(output.numpy(), count // len(outputs)) for output in outputs])


def _picked(array: np.ndarray, count: int) -> np.ndarray:
    return array.reshape(-1)[np.arange(count) * (array.size - 1) // (count - 1)]


def departures(architecture: str, model: nn.Module, name: str | None = None) -> list[str]:
    """Layers that are not as in Paddle, the first one first; arguments as of `differences`."""
    return [layer for layer, error in differences(architecture, model, name).items() if not error <= TOLERANCE]


def first_departure(architecture: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The layer from which on a change shows."""
    model = network(architecture)
    change(model, monkeypatch)
    return next(iter(departures(architecture, model)), None)
