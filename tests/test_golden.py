"""Every network against what Paddle computed in the released graph with the same weights (tests/golden/).

The figures were made once, by scripts/make_golden.py; weights and inputs come from tests/recipe.py. So neither Paddle
nor a released model is needed here, and any change to a network's numbers fails, naming the layer where it begins.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from architectures import create_model, fpn, list_models
from architectures.layers import Hardsigmoid02
from architectures.registry import get
from converter.parity.capture import run_with_layers
from converter.rules import module_name, to_torch
from tests.recipe import picture, uniform, weights

FOLDER = Path(__file__).parent / "golden"
# Largest difference in a layer's output, relative to its largest magnitude. Both frameworks round at 6e-8; after a
# hundred layers up to 3e-6 was seen. The least of the changes below makes 100 times the tolerance.
TOLERANCE = 2e-5
OUTPUT = "output"


@dataclass(frozen=True)
class Golden:
    """A golden file, see scripts/make_golden.py."""

    input_shape: tuple[int, ...]
    parameters: dict[str, tuple[int, ...]]
    layers: dict[str, tuple[int, ...]]
    means: np.ndarray
    largest: np.ndarray
    entries: np.ndarray
    output: np.ndarray


@cache
def golden(architecture: str) -> Golden:
    with np.load(FOLDER / f"{architecture}.npz") as file:
        facts = json.loads(str(file["facts"]))
        return Golden(
            input_shape=tuple(facts["input"]),
            parameters={name: tuple(shape) for name, shape in facts["parameters"].items()},
            layers={name: tuple(shape) for name, shape in facts["layers"]},
            **{key: file[key] for key in ("means", "largest", "entries", "output")},
        )


@cache
def _network(architecture: str) -> nn.Module:
    known = golden(architecture)
    parameters = {}
    if get(architecture).task == "rec":
        parameters["classes"] = list(known.layers.values())[-1][-1]
    mapped = to_torch(weights(known.parameters), architecture, parameters)
    model = create_model(architecture, **parameters)
    model.load_state_dict(mapped.state)
    return model.eval()


def network(architecture: str) -> nn.Module:
    """A copy, to be changed at will, of the network with the recipe's weights."""
    return copy.deepcopy(_network(architecture))


def differences(architecture: str, model: nn.Module) -> dict[str, float]:
    """How far each layer and the output are from Paddle's, in the graph's order; infinite where there is nothing."""
    known = golden(architecture)
    paths = {layer: _module_path(architecture, layer) for layer in known.layers}
    seen, output = run_with_layers(model, paths.values(), picture(known.input_shape))
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
    ours = _picked(output, known.output.size)
    return {**found, OUTPUT: float(np.abs(ours - known.output).max() / np.abs(known.output).max())}


def _module_path(architecture: str, layer: str) -> str:
    return module_name(f"{layer}.weight", get(architecture).renames).rpartition(".")[0]


def _picked(array: np.ndarray, count: int) -> np.ndarray:
    return array.reshape(-1)[np.arange(count) * (array.size - 1) // (count - 1)]


def departures(architecture: str, model: nn.Module) -> list[str]:
    """Layers that are not as in Paddle, the first one first."""
    return [layer for layer, error in differences(architecture, model).items() if not error <= TOLERANCE]


def test_recipe_draws_the_same_bits_everywhere() -> None:
    drawn = uniform("backbone.conv1.conv.weight", (2, 2), -1.0, 1.0)
    assert drawn.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_every_architecture_has_its_golden_file() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.npz")) == sorted(list_models())


@pytest.mark.parametrize("architecture", list_models())
def test_network_computes_what_the_released_graph_computes(architecture: str) -> None:
    assert departures(architecture, network(architecture)) == []


@pytest.mark.parametrize("architecture", list_models())
def test_output_depends_on_the_picture(architecture: str) -> None:
    """What the comparison above is worth: a constant would be matched too easily."""
    model, shape = network(architecture), golden(architecture).input_shape
    with torch.inference_mode():
        one, other = (model(torch.from_numpy(array)) for array in (picture(shape), -picture(shape)))
    assert (one - other).abs().max() > 0.1 * one.abs().max()


# ---- what must be noticed --------------------------------------------------------------------------------------------

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


def before(path: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """A function applied to what one module reads."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        model.get_submodule(path).register_forward_pre_hook(lambda _module, inputs: function(inputs[0]))

    return change


def define(module: object, name: str, value: object) -> Change:
    """Another function of an architectures module."""
    return lambda _, monkeypatch: monkeypatch.setattr(module, name, value)


def bilinear(x: torch.Tensor, factor: int) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=float(factor), mode="bilinear")


DET, RSE, SERVER, TEACHER = (
    "det_mobilenet_v3_dbfpn",
    "det_mobilenet_v3_rsefpn",
    "det_resnet18_vd_dbfpn",
    "det_resnet50_vd_lkpan",
)
REC, REC_SERVER, REC2, REC3 = (
    "rec_mobilenet_v3_bilstm_ctc",
    "rec_resnet34_vd_bilstm_ctc",
    "rec_mobilenet_v1_enhance_bilstm_ctc",
    "rec_mobilenet_v1_enhance_svtr_ctc",
)
CLS = "cls_mobilenet_v3"

# what is changed: (architecture, the one change, the layer from which on it shows)
CHANGES: dict[str, tuple[str, Change, str]] = {
}


@pytest.mark.parametrize(("architecture", "change", "layer"), CHANGES.values(), ids=CHANGES)
def test_a_single_change_is_noticed_where_it_is_made(
    architecture: str, change: Change, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(architecture)
    change(model, monkeypatch)
    assert departures(architecture, model)[:1] == [layer]
