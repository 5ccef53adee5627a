"""Every network against what Paddle computed in the released graph with the same weights (tests/golden/).

The figures were made once, by scripts/fixtures/make_golden.py; weights and inputs come from tests/recipe.py. So neither Paddle
nor a released model is needed here, and any change to a network's numbers fails, naming the layer where it begins.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from paddle2torch.architectures import create_model, list_models, necks
from paddle2torch.architectures.layers import Hardsigmoid02
from paddle2torch.architectures.registry import get
from paddle2torch.converter.mapping.rules import module_name, to_torch
from support.recipe import picture, uniform, weights

FOLDER = Path(__file__).parent / "golden"
# Largest difference in a layer's output, relative to its largest magnitude. Rounding alone makes up to 6e-6 after a
# hundred layers; the least of the changes below makes 2e-3.
TOLERANCE = 5e-5
OUTPUT = "output"


@dataclass(frozen=True)
class Golden:
    """A golden file, see scripts/fixtures/make_golden.py."""

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
    mapped = to_torch(weights(known.parameters), get(architecture), parameters)
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
    seen, output = _run(model, list(paths.values()), picture(known.input_shape))
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
    apart = math.inf if output is None else np.abs(_picked(output, known.output.size) - known.output).max()
    return {**found, OUTPUT: float(apart / np.abs(known.output).max())}


def _run(model: nn.Module, paths: list[str], inputs: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """What the modules return, and the network; of a network whose shapes do not fit, what came before."""
    seen: dict[str, np.ndarray] = {}
    for path in paths:
        model.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, path=path: seen.update(
                {path: np.array((output[0] if isinstance(output, tuple) else output).numpy())}
            )
        )
    try:
        with torch.inference_mode():
            return seen, model(torch.from_numpy(inputs)).numpy()
    except (RuntimeError, ValueError):
        return seen, None


def _module_path(architecture: str, layer: str) -> str:
    return module_name(f"{layer}.weight", get(architecture).renames).rpartition(".")[0]


def _picked(array: np.ndarray, count: int) -> np.ndarray:
    return array.reshape(-1)[np.arange(count) * (array.size - 1) // (count - 1)]


def departures(architecture: str, model: nn.Module) -> list[str]:
    """Layers that are not as in Paddle, the first one first."""
    return [layer for layer, error in differences(architecture, model).items() if not error <= TOLERANCE]


def test_recipe_draws_the_same_bits_everywhere() -> None:
    drawn = uniform("backbone.conv1.conv.weight", (2, 2), -1.0, 1.0)
    assert drawn.tolist() == [[-0.7306323051452637, -0.7997205257415771], [0.3724411725997925, -0.6037696599960327]]


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
    assert (one - other).abs().max() > 100 * TOLERANCE * one.abs().max()


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


def finest_first(maps: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([necks.upsample(coarse, 2**level) if level else coarse for level, coarse in enumerate(maps)], 1)


def alike_directions(model: nn.Module, _: pytest.MonkeyPatch) -> None:
    lstm = model.get_submodule("neck.encoder.lstm")
    with torch.no_grad():
        lstm.weight_ih_l0_reverse.copy_(lstm.weight_ih_l0)


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
    # strides, padding, dilation
    "stem, stride 1": (SERVER, assign("backbone.conv1_1._conv", stride=(1, 1)), "backbone.conv1_1._conv"),
    "unit, stride 2 along the width too": (
        REC,
        assign("backbone.blocks.8.bottleneck_conv.conv", stride=(2, 2)),
        "backbone.blocks.8.bottleneck_conv.conv",
    ),
    "last unit, stride along the height": (
        REC3,
        assign("backbone.block_list.12._depthwise_conv._conv", stride=(2, 1)),
        "backbone.block_list.12._depthwise_conv._conv",
    ),
    "bottleneck, stride in the first convolution": (
        TEACHER,
        assign("backbone.stages.1.bb_1_0.conv0._conv", stride=(2, 2)),
        "backbone.bb_1_0.conv0._conv",
    ),
    "padding by repetition": (
        DET,
        assign(
            "backbone.stages.3.1.bottleneck_conv.conv",
            padding_mode="replicate",
        ),
        "backbone.stage3.1.bottleneck_conv.conv",
    ),
    "no padding": (REC3, assign("neck.encoder.conv4.conv", padding=(0, 0)), "head.ctc_encoder.encoder.conv4.conv"),
    "lateral path, stride 1": (TEACHER, assign("neck.pan_head_conv.0", stride=(1, 1)), "neck.pan_head_conv.0"),
    # pooling
    "last pool rounds up": (REC, assign("backbone.pool", ceil_mode=True), "neck.encoder.lstm"),
    "last pool, average for maximum": (REC, put("backbone.pool", nn.AvgPool2d(2)), "neck.encoder.lstm"),
    "last pool, maximum for average": (
        REC3,
        put("backbone.pool", nn.MaxPool2d(2)),
        "head.ctc_encoder.encoder.conv1.conv",
    ),
    "stem's pool without padding": (
        SERVER,
        put("backbone.pool", nn.MaxPool2d(3, 2, 0, ceil_mode=True)),
        "backbone.bb_0_0.conv0._conv",
    ),
    "stem's pool rounds up": (REC_SERVER, assign("backbone.pool", ceil_mode=True), "backbone.bb_0_0.conv0._conv"),
    "shortcut's pool, maximum for average": (
        SERVER,
        put("backbone.stages.1.bb_1_0.short.pool", nn.MaxPool2d(2)),
        "backbone.bb_1_0.short._conv",
    ),
    "shortcut's pool drops pixels": (
        REC_SERVER,
        put("backbone.block_list.bb_2_0.short.pool", nn.AvgPool2d(1, (2, 1))),
        "backbone.bb_2_0.short._conv",
    ),
    "classifier's pool, maximum for average": (CLS, put("head.pool", nn.AdaptiveMaxPool2d(1)), "head.fc"),
    # epsilons
    "batch norm, epsilon 1e-3": (
        REC,
        assign("backbone.blocks.4.expand_conv.bn", eps=1e-3),
        "backbone.blocks.4.expand_conv.bn",
    ),
    "batch norm, epsilon 1e-6": (DET, assign("head.binarize.conv_bn2", eps=1e-6), "head.binarize.conv_bn2"),
    "first layer norm of a block, epsilon 1e-6": (
        REC3,
        assign("neck.encoder.svtr_block.0.norm1", eps=1e-6),
        "head.ctc_encoder.encoder.svtr_block.0.norm1",
    ),
    "second layer norm of a block, epsilon 1e-6": (
        REC3,
        assign("neck.encoder.svtr_block.1.norm2", eps=1e-6),
        "head.ctc_encoder.encoder.svtr_block.1.norm2",
    ),
    "last layer norm, epsilon 1e-5": (REC3, assign("neck.encoder.norm", eps=1e-5), "head.ctc_encoder.encoder.norm"),
    # activations
    "hard sigmoid, slope 1/6 for 0.2": (
        REC,
        put("backbone.blocks.3.mid_se.gate", nn.Hardsigmoid()),
        "backbone.blocks.3.linear_conv.conv",
    ),
    "hard sigmoid of the neck, slope 1/6 for 0.2": (
        RSE,
        put("neck.ins_conv.2.se_block.gate", nn.Hardsigmoid()),
        "neck.inp_conv.2.in_conv",
    ),
    "hard sigmoid, slope 0.2 for 1/6": (
        REC2,
        put("backbone.block_list.12._se.gate", Hardsigmoid02()),
        "backbone.block_list.12._pointwise_conv._conv",
    ),
    "ReLU for Hardswish": (
        CLS,
        put("backbone.blocks.6.expand_conv.act", nn.ReLU()),
        "backbone.blocks.6.bottleneck_conv.conv",
    ),
    "SiLU for Hardswish": (
        REC3,
        put("backbone.block_list.0._depthwise_conv.act", nn.SiLU()),
        "backbone.block_list.0._pointwise_conv._conv",
    ),
    "Hardswish for ReLU": (
        DET,
        put("backbone.stages.1.2.bottleneck_conv.act", nn.Hardswish()),
        "backbone.stage1.2.linear_conv.conv",
    ),
    "Hardswish for SiLU": (REC3, put("neck.encoder.conv3.act", nn.Hardswish()), "head.ctc_encoder.encoder.conv4.conv"),
    "GELU for SiLU": (
        REC3,
        put("neck.encoder.svtr_block.0.mlp.act", nn.GELU()),
        "head.ctc_encoder.encoder.svtr_block.0.mlp.fc2",
    ),
    "ReLU between the two layers of the head": (REC2, before("head.fc2", torch.relu), "head.fc2"),
    "no activation at the end": (DET, put("head.binarize.sigmoid", nn.Identity()), OUTPUT),
    # sums, order, scale
    "shortcut dropped": (DET, assign("backbone.stages.2.2", shortcut=False), "backbone.stage2.3.expand_conv.conv"),
    "shortcut where stride (1, 1) forbids it": (
        REC,
        assign("backbone.blocks.0", shortcut=True),
        "backbone.blocks.1.expand_conv.conv",
    ),
    "attention not scaled": (
        REC3,
        assign("neck.encoder.svtr_block.0.mixer", scale=1.0),
        "head.ctc_encoder.encoder.svtr_block.0.mixer.proj",
    ),
    "attention of four heads": (
        REC3,
        assign("neck.encoder.svtr_block.1.mixer", heads=4),
        "head.ctc_encoder.encoder.svtr_block.1.mixer.proj",
    ),
    "bilinear upsampling": (DET, define(necks, "upsample", bilinear), "neck.p4_conv"),
    "maps concatenated finest first": (DET, define(necks, "fuse", finest_first), "head.binarize.conv1"),
    "LSTM reads one way twice": (REC, alike_directions, "neck.encoder.lstm"),
}


@pytest.mark.parametrize(("architecture", "change", "layer"), CHANGES.values(), ids=CHANGES)
def test_a_single_change_is_noticed_where_it_is_made(
    architecture: str, change: Change, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(architecture)
    change(model, monkeypatch)
    assert departures(architecture, model)[:1] == [layer]
