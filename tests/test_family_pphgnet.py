"""The PPHGNet networks, the server models of PP-OCRv4 and PP-OCRv5: names and shapes, numbers, and what changes them.

What Paddle computes in the released programs is compared in test_golden.py; for facts about released models see
support/upstream.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paddle2torch.architectures import create_model, pfhead
from paddle2torch.architectures.necks import IntraCLBlock
from paddle2torch.architectures.pfhead import BothMaps
from paddle2torch.architectures.registry import get
from paddle2torch.converter.mapping.rules import structured_name, to_torch
from support.changes import Change, assign, before, bilinear, define, exchange, put, rolled
from support.golden import OUTPUT, first_departure, golden, network, outputs_of
from support.networks import in_training, shapes
from support.recipe import image, weights
from support.upstream import manifest

DET4, REC4 = "det_pphgnet_small_lkpan", "rec_pphgnet_small_svtr_ctc"
DET5, REC5 = "det_pphgnet_v2_lkpan", "rec_pphgnet_v2_svtr_ctc"
NAMES = (DET4, REC4, DET5, REC5)
CLASSES = {REC4: 6625, REC5: 18385}

IGNORED = {("head", "gtc_head"), ("head", "before_gtc"), ("backbone", "last_conv"), ("backbone", "fc")}


def classes(name: str) -> dict[str, int]:
    """The parameters that differ from the default: as many classes as the released recogniser has."""
    return {"classes": CLASSES[name]} if name in CLASSES else {}


def make(name: str, **parameters: bool) -> nn.Module:
    return create_model(name, **classes(name), **parameters)


# ---- names and shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tensors", "values", "some"), [
    (DET4, 367, 28_486_083, {
        "backbone.stages.2.blocks.1.aggregation_conv.conv.weight": (768, 1920, 1, 1),
        "backbone.stages.3.blocks.0.att.conv.bias": (1024,),
        "neck.incl4.q_layer_1x7.weight": (32, 32, 1, 7),
        "head.cbn_layer.last_3.conv.weight": (64, 65, 3, 3),
    }),
    (REC4, 273, 22_611_609, {
        "backbone.stages.0.downsample.conv.weight": (128, 1, 3, 3),
        "head.ctc_encoder.encoder.conv4.conv.weight": (128, 2048, 1, 3),
        "head.ctc_head.fc.weight": (6625, 120),
    }),
    (DET5, 552, 22_144_355, {
        "backbone.stem.stem2b.conv.weight": (32, 16, 2, 2),
        "backbone.stages.1.downsample.bn.running_mean": (128,),
        "backbone.stages.2.blocks.2.layers.5.conv2.conv.weight": (192, 1, 5, 5),
        "backbone.stages.3.blocks.0.aggregation_squeeze_conv.conv.weight": (1024, 3328, 1, 1),
    }),
    (REC5, 458, 21_094_553, {
        "backbone.stages.0.downsample.conv.weight": (48, 1, 3, 3),
        "head.ctc_encoder.encoder.conv1.conv.weight": (256, 2048, 1, 3),
        "head.ctc_head.fc.weight": (18385, 120),
    }),
])  # fmt: skip
def test_counts_and_shapes_are_those_of_the_checkpoint(
    name: str, tensors: int, values: int, some: dict[str, tuple[int, ...]]
) -> None:
    state = shapes(make(name))
    assert {key: state[key] for key in some} == some
    assert (len(state), sum(map(math.prod, state.values()))) == (tensors, values)


@pytest.mark.parametrize("name", NAMES)
def test_all_weights_are_in_the_released_program_but_those_of_the_threshold_branch(name: str) -> None:
    mapped = to_torch(weights(golden(name).parameters), get(name), classes(name))
    assert set(mapped.origins.values()) == set(golden(name).parameters)
    trained_only = {structured_name(key, get(name).renames) for key in mapped.initialised if "num_batches" not in key}
    binarize = [key for key in golden(name).parameters if key.startswith("head.binarize.")]
    assert trained_only == {key.replace("binarize", "thresh") for key in binarize}
    assert len(trained_only) == (13 if get(name).task == "det" else 0)


@pytest.mark.parametrize(("model", "name", "left_out"), [
    ("ch_PP-OCRv4_server_det", DET4, 0),
    ("ch_PP-OCRv4_server_det.released", DET4, 3),
    ("ch_PP-OCRv4_server_det.folded", DET4, 0),
    ("PP-OCRv4_server_seal_det", DET4, 0),
    ("ch_PP-OCRv4_server_rec", REC4, 84),
    ("PP-OCRv5_server_det", DET5, 1),
    ("PP-OCRv5_server_det.folded", DET5, 1),
    ("PP-OCRv5_server_rec", REC5, 87),
])  # fmt: skip
def test_checkpoint_of_a_manifest_is_taken_whole(model: str, name: str, left_out: int) -> None:
    """All that a checkpoint has, in its order, but the classifier that was there before and the NRTR head."""
    listed = manifest(model)
    nothing = {key: np.broadcast_to(np.float32(0), shape) for key, shape in listed.items()}
    parameters = {**classes(name), **({"folded_head": True} if model.endswith(".folded") else {})}
    mapped = to_torch(nothing, get(name), parameters)
    assert mapped.initialised == ()
    assert len(mapped.ignored) == left_out
    assert [*mapped.origins.values()] == [key for key in listed if key not in mapped.ignored]
    assert {tuple(key.split(".")[:2]) for key in mapped.ignored} <= IGNORED


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_detector_of_v4_returns_two_maps_and_later_programs_their_second() -> None:
    both, x = network(DET4), torch.from_numpy(image((1, 3, 64, 96)))
    with torch.inference_mode():
        refined, mean = both(x)
        both.head.both_maps = False
        assert torch.equal(both(x), mean)
        before_refinement = 2 * mean - refined
        shrink = both.head.binarize(both.neck(both.backbone(x)))
    assert refined.shape == mean.shape == (1, 1, 64, 96)
    torch.testing.assert_close(before_refinement, shrink)
    assert make(DET4).head.both_maps
    assert not make(DET4, both_maps=False).head.both_maps
    assert not make(DET5).head.both_maps


@pytest.mark.parametrize("name", [DET4, DET5])
def test_detector_in_training_returns_refined_threshold_and_binary_map(name: str) -> None:
    model, x = network(name), torch.from_numpy(image((1, 3, 64, 96)))
    model.head.both_maps = True
    with torch.inference_mode():
        refined, mean = model(x)
        with in_training(model):
            maps = model(x)
        threshold = model.head.thresh(model.neck(model.backbone(x)))
    assert maps.shape == (1, 3, 64, 96)
    torch.testing.assert_close(maps[:, :1], refined)
    torch.testing.assert_close(maps[:, 1:2], threshold)
    torch.testing.assert_close(maps[:, 2:], torch.sigmoid(50 * (2 * mean - refined - threshold)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [DET4, DET5])
def test_folded_head_computes_the_same(name: str) -> None:
    model, x = network(name).double(), torch.from_numpy(image((1, 3, 64, 96))).double()
    folded = network(name).double().fold()
    assert shapes(folded) == shapes(make(name, folded_head=True))
    assert len(shapes(model)) - len(shapes(folded)) == 14
    for one, other in zip(outputs_of(model, x), outputs_of(folded, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    assert shapes(folded.fold()) == shapes(make(name, folded_head=True))


@pytest.mark.parametrize("name", [REC4, REC5])
def test_recogniser_makes_forty_time_steps_in_training_of_any_size(name: str) -> None:
    model = create_model(name, classes=11)
    with torch.inference_mode():
        assert model.backbone(torch.zeros(2, 3, 64, 200)).shape[2:] == (1, 40)
        assert model.eval()(torch.zeros(2, 3, 48, 200)).shape == (2, 25, 11)


# ---- what must be noticed --------------------------------------------------------------------------------------------


def small_kernels_first(self: IntraCLBlock, x: Tensor) -> Tensor:
    y = self.conv1x1_reduce_channel(x)
    y = self.c_layer_3x3(y) + self.v_layer_3x1(y) + self.q_layer_1x3(y)
    y = self.c_layer_5x5(y) + self.v_layer_5x1(y) + self.q_layer_1x5(y)
    y = self.c_layer_7x7(y) + self.v_layer_7x1(y) + self.q_layer_1x7(y)
    return x + self.relu(self.bn(self.conv1x1_return_channel(y)))


def one_after_another(self: IntraCLBlock, x: Tensor) -> Tensor:
    y = self.conv1x1_reduce_channel(x)
    y = self.q_layer_1x7(self.v_layer_7x1(self.c_layer_7x7(y)))
    y = self.q_layer_1x5(self.v_layer_5x1(self.c_layer_5x5(y)))
    y = self.q_layer_1x3(self.v_layer_3x1(self.c_layer_3x3(y)))
    return x + self.relu(self.bn(self.conv1x1_return_channel(y)))


def not_added(self: IntraCLBlock, x: Tensor) -> Tensor:
    return forward_of_block(self, x) - x


forward_of_block = IntraCLBlock.forward


def laid_flat(path: str) -> Change:
    """An upright kernel used as a flat one, or the other way round."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        upright = model.get_submodule(path)
        flat = nn.Conv2d(32, 32, upright.kernel_size[::-1], padding=upright.padding[::-1])
        flat.load_state_dict({"weight": upright.weight.transpose(2, 3), "bias": upright.bias})
        model.set_submodule(path, flat)

    return change


def refined_alone(model: nn.Module, _: pytest.MonkeyPatch) -> None:
    model.head.both_maps = True
    model.head.register_forward_hook(lambda _module, _inputs, output: output.cbn_maps)


# what is changed: (architecture, the one change, the layer from which on it shows)
CHANGES: dict[str, tuple[str, Change, str]] = {
    # strides, padding, pooling
    "stem's pool rounds up": (
        DET4,
        assign("backbone.pool", ceil_mode=True),
        "backbone.stages.0.blocks.0.layers.0.conv",
    ),
    "stem's pool, average for maximum": (
        DET4,
        put("backbone.pool", nn.AvgPool2d(3, 2, 1)),
        "backbone.stages.0.blocks.0.layers.0.conv",
    ),
    "last pool rounds up": (
        REC4,
        put("backbone.pool", nn.AvgPool2d((3, 2), ceil_mode=True)),
        "head.ctc_encoder.encoder.conv1.conv",
    ),
    "last pool, maximum for average": (
        REC5,
        put("backbone.pool", nn.MaxPool2d((3, 2))),
        "head.ctc_encoder.encoder.conv1.conv",
    ),
    "first stage, stride along the width": (
        REC4,
        assign("backbone.stages.0.downsample.conv", stride=(1, 2)),
        "backbone.stages.0.downsample.conv",
    ),
    "second stage, stride along the height": (
        REC4,
        assign("backbone.stages.1.downsample.conv", stride=(2, 1)),
        "backbone.stages.1.downsample.conv",
    ),
    "second stage of V2, stride along the height": (
        REC5,
        assign("backbone.stages.1.downsample.conv", stride=(2, 1)),
        "backbone.stages.1.downsample.conv",
    ),
    "last stage, stride along both": (
        REC5,
        assign("backbone.stages.3.downsample.conv", stride=(2, 2)),
        "backbone.stages.3.downsample.conv",
    ),
    "stem of the recogniser, stride 2": (
        REC5,
        assign("backbone.stem.stem3.conv", stride=(2, 2)),
        "backbone.stem.stem3.conv",
    ),
    "stem padded above and on the left": (
        DET5,
        put("backbone.stem.pad", nn.ZeroPad2d((1, 0, 1, 0))),
        "backbone.stem.stem2a.conv",
    ),
    "stem's pool of V2, average for maximum": (
        DET5,
        put("backbone.stem.pool", nn.AvgPool2d(2, 1)),
        "backbone.stem.stem3.conv",
    ),
    # sums, order
    "block without its residual": (
        DET4,
        assign("backbone.stages.2.blocks.1", residual=False),
        "backbone.stages.3.downsample.conv",
    ),
    "block of V2 without its residual": (
        REC5,
        assign("backbone.stages.2.blocks.2", residual=False),
        "backbone.stages.3.downsample.conv",
    ),
    "block's input concatenated last": (
        DET4,
        before("backbone.stages.1.blocks.0.aggregation_conv.conv", rolled(256)),
        "backbone.stages.1.blocks.0.aggregation_conv.conv",
    ),
    "stem's pool concatenated last": (DET5, before("backbone.stem.stem3.conv", rolled(32)), "backbone.stem.stem3.conv"),
    "IntraCL, small kernels first": (
        DET4,
        define(IntraCLBlock, "forward", small_kernels_first),
        "neck.incl4.c_layer_7x7",
    ),
    "IntraCL, kernels of one size one after another": (
        DET5,
        define(IntraCLBlock, "forward", one_after_another),
        "neck.incl4.v_layer_7x1",
    ),
    "IntraCL, its input not added": (DET5, define(IntraCLBlock, "forward", not_added), "head.binarize.conv1"),
    "IntraCL, v laid flat": (DET4, laid_flat("neck.incl2.v_layer_5x1"), "neck.incl2.v_layer_5x1"),
    "IntraCL, q upright": (DET5, laid_flat("neck.incl3.q_layer_1x7"), "neck.incl3.q_layer_1x7"),
    "IntraCL, coarsest level first": (DET4, exchange("neck.incl1", "neck.incl4"), "neck.incl4.conv1x1_reduce_channel"),
    "shrink map concatenated last": (
        DET5,
        before("head.cbn_layer.last_3.conv", rolled(1)),
        "head.cbn_layer.last_3.conv",
    ),
    "bilinear upsampling of the features": (DET4, define(pfhead, "upsample", bilinear), "head.cbn_layer.last_3.conv"),
    "maps in the other order": (
        DET4,
        define(pfhead, "BothMaps", lambda refined, mean: BothMaps(mean, refined)),
        OUTPUT,
    ),
    "refined map alone": (DET5, refined_alone, OUTPUT),
    # epsilons
    "batch norm of the stem, epsilon 1e-3": (DET4, assign("backbone.stem.1.bn", eps=1e-3), "backbone.stem.1.bn"),
    "batch norm of a light layer, epsilon 1e-6": (
        DET5,
        assign("backbone.stages.2.blocks.1.layers.0.conv1.bn", eps=1e-6),
        "backbone.stages.2.blocks.1.layers.0.conv1.bn",
    ),
    "batch norm of IntraCL, epsilon 1e-3": (DET5, assign("neck.incl4.bn", eps=1e-3), "neck.incl4.bn"),
    "batch norm of the refinement, epsilon 1e-6": (
        DET4,
        assign("head.cbn_layer.last_3.bn", eps=1e-6),
        "head.cbn_layer.last_3.bn",
    ),
    # activations
    "attention, hard sigmoid": (
        REC4,
        put("backbone.stages.0.blocks.0.att.gate", nn.Hardsigmoid()),
        "backbone.stages.1.downsample.conv",
    ),
    "attention without its sigmoid": (
        DET4,
        put("backbone.stages.3.blocks.0.att.gate", nn.Identity()),
        "neck.ins_conv.3",
    ),
    "ReLU in the middle of a light layer": (
        REC5,
        before("backbone.stages.3.blocks.0.layers.2.conv2.conv", torch.relu),
        "backbone.stages.3.blocks.0.layers.2.conv2.conv",
    ),
    "ReLU behind the stride": (
        DET5,
        before("backbone.stages.1.blocks.0.layers.0.conv", torch.relu),
        "backbone.stages.1.blocks.0.layers.0.conv",
    ),
    "squeeze without its ReLU": (
        DET5,
        put("backbone.stages.0.blocks.0.aggregation_squeeze_conv.act", nn.Identity()),
        "backbone.stages.0.blocks.0.aggregation_excitation_conv.conv",
    ),
    "ReLU for SiLU in the encoder": (
        REC5,
        put("head.ctc_encoder.encoder.conv4.act", nn.ReLU()),
        "head.ctc_encoder.encoder.conv1x1.conv",
    ),
}


@pytest.mark.parametrize(("name", "change", "layer"), CHANGES.values(), ids=CHANGES)
def test_a_single_change_is_noticed_where_it_is_made(
    name: str, change: Change, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first_departure(name, change, monkeypatch) == layer
