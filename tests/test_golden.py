"""Every network against what Paddle computed in the released graph with the same weights; see support/golden.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from paddle2torch.architectures import list_models, necks
from paddle2torch.architectures.layers import Hardsigmoid02
from support.changes import Change, assign, before, bilinear, define, finest_first, put
from support.golden import FOLDER, OUTPUT, TOLERANCE, departures, first_departure, golden, network, outputs_of
from support.recipe import image, uniform

# released model that differs from its architecture's golden one: architecture
VARIANTS = {
    "PP-OCRv6_tiny_det": "det_pplcnet_v4_replkfpn",
    "PP-OCRv6_medium_rec": "rec_pplcnet_v4_lightsvtr_ctc",
    "PP-LCNet_x0_25_textline_ori": "cls_pp_lcnet_textline",
}


def test_recipe_draws_the_same_bits_everywhere() -> None:
    drawn = uniform("backbone.conv1.conv.weight", (2, 2), -1.0, 1.0)
    assert drawn.tolist() == [[-0.7306323051452637, -0.7997205257415771], [0.3724411725997925, -0.6037696599960327]]


def test_every_architecture_has_its_golden_file() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.npz")) == sorted(list_models())
    assert sorted(path.stem for path in FOLDER.glob("variants/*.npz")) == sorted(VARIANTS)


@pytest.mark.parametrize("architecture", list_models())
def test_network_computes_what_the_released_graph_computes(architecture: str) -> None:
    assert departures(architecture, network(architecture)) == []


@pytest.mark.parametrize(("name", "architecture"), VARIANTS.items())
def test_variant_computes_what_its_released_graph_computes(name: str, architecture: str) -> None:
    file = f"variants/{name}"
    assert departures(architecture, network(architecture, file), file) == []


@pytest.mark.parametrize("architecture", list_models())
def test_output_depends_on_the_image(architecture: str) -> None:
    """What the comparison above is worth: a constant would be matched too easily."""
    model, x = network(architecture), torch.from_numpy(image(golden(architecture).input_shape))
    for one, other in zip(outputs_of(model, x), outputs_of(model, -x), strict=True):
        assert (one - other).abs().max() > 100 * TOLERANCE * one.abs().max()


# ---- what must be noticed ------------------------------------------------------------------------------------------
# The first networks; the others' changes stand in the tests of their families.


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
    assert first_departure(architecture, change, monkeypatch) == layer
