"""The PPLCNetV3 networks: names and shapes, both layouts, and the answers of Paddle and of upstream's own networks.

For facts about released models see support/upstream.py.
"""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paddle2torch.architectures import create_model, necks
from paddle2torch.architectures.families import pplcnet_v3
from paddle2torch.architectures.families.pplcnet_v3 import Activation
from paddle2torch.architectures.layers import Hardsigmoid02
from paddle2torch.architectures.matching import COUNTER, expected_tensors
from paddle2torch.architectures.registry import get
from paddle2torch.converter.mapping.recognition import identify
from paddle2torch.converter.mapping.rules import assign as sources_of
from paddle2torch.converter.mapping.rules import in_torch_layout, module_name, structured_name, to_torch
from paddle2torch.converter.support.errors import MappingError
from support.changes import Change, assign, before, corner, define, put
from support.golden import first_departure
from support.networks import drawn, returned, shapes
from support.recipe import Shape, image
from support.upstream import checkpoint, manifest, oracle

DET, REC = "det_pplcnet_v3_rsefpn", "rec_pplcnet_v3_svtr_ctc"
LOGITS = {DET: "head.binarize.conv3", REC: "head.ctc_head.fc"}
FEW_CLASSES: dict[str, dict[str, int]] = {DET: {}, REC: {"classes": 97}}
FOLDED = {DET: {"folded": True, "folded_head": True}, REC: {"folded": True}}
INPUT = {DET: (1, 3, 64, 96), REC: (2, 3, 48, 106)}


def logits(model: nn.Module, architecture: str, x: Tensor) -> Tensor:
    """What enters the network's last sigmoid or softmax."""
    return returned(model, x, LOGITS[architecture])[0]


# ---- names and shapes ------------------------------------------------------------------------------------------------

# architecture, folded: tensors, values in them, some of them
FACTS = {
    (DET, False): (
        905,
        3_570_810,
        {
            "backbone.conv1.conv.weight": (16, 3, 3, 3),
            "backbone.blocks2.0.dw_conv.identity.running_mean": (16,),
            "backbone.blocks3.0.dw_conv.conv_kxk.3.conv.weight": (32, 1, 3, 3),
            "backbone.blocks3.0.dw_conv.act.lab.scale": (1,),
            "backbone.blocks6.0.dw_conv.conv_1x1.conv.weight": (192, 1, 1, 1),
            "backbone.blocks6.1.se.conv1.weight": (96, 384, 1, 1),
            "backbone.layer_list.3.bias": (360,),
            "neck.ins_conv.2.in_conv.weight": (96, 42, 1, 1),
            "head.thresh.conv2.weight": (24, 24, 2, 2),
        },
    ),
    (DET, True): (
        247,
        1_195_074,
        {
            "backbone.blocks2.0.dw_conv.reparam_conv.weight": (16, 1, 3, 3),
            "backbone.blocks5.4.dw_conv.reparam_conv.bias": (192,),
            "backbone.blocks6.3.pw_conv.act.lab.bias": (1,),
        },
    ),
    (REC, False): (
        884,
        6_329_629,
        {
            "backbone.blocks4.0.dw_conv.act.lab.scale": (1,),
            "backbone.blocks5.0.pw_conv.conv_kxk.0.conv.weight": (240, 128, 1, 1),
            "backbone.blocks6.3.pw_conv.identity.weight": (480,),
            "head.ctc_encoder.encoder.conv1.conv.weight": (60, 480, 1, 3),
            "head.ctc_encoder.encoder.conv4.conv.weight": (60, 960, 1, 3),
            "head.ctc_encoder.encoder.svtr_block.1.mixer.qkv.weight": (360, 120),
            "head.ctc_encoder.encoder.conv1x1.norm.running_var": (120,),
            "head.ctc_head.fc.weight": (6625, 120),
        },
    ),
    (REC, True): (
        234,
        2_690_221,
        {
            "backbone.blocks2.0.pw_conv.reparam_conv.bias": (32,),
            "backbone.blocks6.2.dw_conv.reparam_conv.weight": (480, 1, 5, 5),
        },
    ),
}
ABSENT = {
    (DET, False): ("backbone.blocks3.0.dw_conv.identity", "backbone.blocks2.0.pw_conv.conv_1x1", "reparam_conv"),
    (DET, True): ("conv_kxk", "conv_1x1", "identity", "backbone.blocks3.0.dw_conv.act", "backbone.conv1.conv.bias"),
    (REC, False): ("backbone.blocks4.0.dw_conv.identity", "backbone.blocks5.0.dw_conv.identity", "layer_list", "neck."),
    (REC, True): ("conv_kxk", "conv_1x1", "identity", "gtc"),
}


@pytest.mark.parametrize(("architecture", "folded"), FACTS)
def test_a_network_has_the_tensors_of_its_family(architecture: str, folded: bool) -> None:
    tensors, values, some = FACTS[architecture, folded]
    found = shapes(create_model(architecture, folded=folded))
    assert {key: found.get(key) for key in some} == some
    assert [key for key in found if any(part in key for part in ABSENT[architecture, folded])] == []
    assert (len(found), sum(math.prod(shape) for shape in found.values())) == (tensors, values)


def test_names_with_counters_are_as_many_as_in_circulation() -> None:
    assert [len(create_model(architecture).state_dict()) for architecture in (DET, REC)] == [1055, 1035]


MANIFESTS = {
    "ch_PP-OCRv4_det": (DET, {}),
    "PP-OCRv5_mobile_det": (DET, {}),
    "PP-OCRv4_mobile_seal_det": (DET, {}),
    "ch_PP-OCRv4_det.folded": (DET, {"folded": True}),
    "ch_PP-OCRv4_rec": (REC, {}),
    "en_PP-OCRv4_rec": (REC, {"classes": 97}),
    "PP-OCRv5_mobile_rec": (REC, {"classes": 18385}),
    "ch_PP-OCRv4_rec.folded": (REC, {"folded": True}),
    "PP-OCRv5_mobile_rec.folded": (REC, {"folded": True, "classes": 18385}),
}
# Upstream's folding leaves them where they are; the released programs lack them.
UNUSED = [f"backbone.blocks{number}.0.dw_conv.act.lab.{leaf}" for number in (3, 4, 5, 6) for leaf in ("scale", "bias")]


def in_our_names(name: str, architecture: str, **parameters: Any) -> dict[str, Shape]:
    """A manifest as the module would have it, without what is ignored."""
    listed, expected = manifest(name), expected_tensors(get(architecture), parameters)
    sources = sources_of(listed, get(architecture)).sources
    return {key: in_torch_layout(listed[names[0]], expected.get(key)) for key, names in sources.items()}


@pytest.mark.parametrize(("name", "network"), MANIFESTS.items(), ids=MANIFESTS)
def test_a_network_has_exactly_the_tensors_of_a_checkpoint(name: str, network: tuple[str, dict[str, Any]]) -> None:
    architecture, parameters = network
    found = in_our_names(name, architecture, **parameters)
    if architecture == DET and "folded" in parameters:
        assert [found.pop(key) for key in UNUSED] == [(1,)] * 8
    assert found == shapes(create_model(architecture, **parameters))


def test_only_the_necks_attention_is_missing_in_the_released_training_file_of_the_detector() -> None:
    found, wanted = in_our_names("ch_PP-OCRv4_det.released", DET), shapes(create_model(DET))
    missing = [key for key in wanted if key not in found]
    assert len(missing) == 32
    assert all(key.startswith("neck.") and ".se_block." in key for key in missing)
    assert found == {key: shape for key, shape in wanted.items() if key not in missing}


def test_the_released_training_file_of_the_detector_is_refused_with_the_way_on() -> None:
    tensors = {structured_name(key, ()): shape for key, shape in shapes(create_model(DET)).items()}
    incomplete = {name: shape for name, shape in tensors.items() if ".se_block." not in name}
    with pytest.raises(MappingError, match=r"lacks the neck's squeeze-and-excite .* PP-OCRv4_mobile_det_pretrained"):
        identify(incomplete, "ch_PP-OCRv4_det_train.tar")
    del incomplete["neck.ins_conv.0.in_conv.weight"]
    with pytest.raises(MappingError, match="looks like PP-OCRv4 or newer"):
        identify(incomplete, "another file")


def test_names_of_the_first_programs_are_understood_and_never_written() -> None:
    renames = get(REC).renames
    layer = "backbone.blocks4.1.dw_conv"
    for spelt, key in {
        "w": "lab.scale",
        "b": "lab.bias",
        "activation.scale": "act.lab.scale",
        "activation.bias": "act.lab.bias",
        "lab.bias": "lab.bias",
        "act.lab.scale": "act.lab.scale",
        "reparam_conv.bias": "reparam_conv.bias",
    }.items():
        assert module_name(f"{layer}.{spelt}", renames) == f"{layer}.{key}"
        assert structured_name(f"{layer}.{key}", renames) == f"{layer}.{key}"
    assert module_name("backbone.conv1.bn._mean", renames) == "backbone.conv1.bn.running_mean"


def test_left_overs_and_the_second_decoder_are_ignored_with_a_reason() -> None:
    for name in (
        "backbone.conv1.hardswish.scale",
        "backbone.fc.weight",
        "backbone.last_conv.weight",
        "head.before_gtc.1.fc.weight",
        "head.gtc_head.decoder.0.mlp.fc1.bias",
    ):
        assert sources_of([name], get(REC)).ignored[name]


def test_a_program_with_branches_may_lack_the_activations_that_are_never_applied() -> None:
    tensors = {
        structured_name(key, get(DET).renames): np.ones(shape, np.float32)
        for key, shape in shapes(create_model(DET)).items()
        if key not in UNUSED
    }
    mapped = to_torch(tensors, get(DET), {})
    assert sorted(mapped.initialised) == sorted(UNUSED)
    assert {key: float(mapped.state[key]) for key in UNUSED} == {key: float("scale" in key) for key in UNUSED}


# ---- two layouts, one function ---------------------------------------------------------------------------------------


@cache
def pair(architecture: str) -> tuple[nn.Module, nn.Module]:
    """A network in both layouts, in double precision: to be looked at."""
    branches = drawn(architecture, FEW_CLASSES[architecture]).double()
    return branches, copy.deepcopy(branches).fold()


def apart(architecture: str, one: nn.Module, other: nn.Module) -> float:
    """Largest difference of the logits, relative to the largest logit."""
    x = torch.from_numpy(image(INPUT[architecture])).double()
    first, second = (logits(model, architecture, x) for model in (one, other))
    return float((first - second).abs().max() / first.abs().max())


@pytest.mark.parametrize("architecture", [DET, REC])
def test_folded_equals_branches(architecture: str) -> None:
    assert apart(architecture, *pair(architecture)) < 1e-12


@pytest.mark.parametrize("architecture", [DET, REC])
def test_folding_gives_the_folded_layout_and_changes_nothing_else(architecture: str) -> None:
    parameters = FEW_CLASSES[architecture]
    model = create_model(architecture, **parameters)
    assert model.fold() is model
    state = model.state_dict()
    target = create_model(architecture, **FOLDED[architecture], **parameters)
    assert list(state) == list(target.state_dict())
    target.load_state_dict(state)
    assert all(module.training for module in model.modules())
    assert all(tensor.dtype == torch.float32 for key, tensor in state.items() if not key.endswith(COUNTER))
    model.fold()
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("architecture", [DET, REC])
def test_the_folded_layout_in_single_precision_is_as_near_as_the_branches_are(architecture: str) -> None:
    exact = pair(architecture)[0]
    branches = drawn(architecture, FEW_CLASSES[architecture])
    folded = copy.deepcopy(branches).fold()
    x = torch.from_numpy(image(INPUT[architecture]))
    reference = logits(exact, architecture, x.double())
    errors = [
        float((logits(model, architecture, x) - reference).abs().max() / reference.abs().max())
        for model in (branches, folded)
    ]
    assert max(errors) < 2e-5, errors


def without(path: str, branch: str) -> Change:
    """A layer without one kind of branch."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        layer = model.get_submodule(path)
        assert getattr(layer, branch) is not None
        setattr(layer, branch, layer.conv_kxk[:-1] if branch == "conv_kxk" else None)

    return change


def strided(path: str, stride: tuple[int, int]) -> Change:
    """A layer with another stride, in whichever layout."""

    def change(model: nn.Module, _: pytest.MonkeyPatch) -> None:
        for conv in (module for module in model.get_submodule(path).modules() if isinstance(module, nn.Conv2d)):
            assert conv.stride != stride
            conv.stride = stride

    return change


def without_epsilon(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm's fusion that forgets the epsilon."""
    gain = norm.weight / norm.running_var.sqrt()
    return weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


BRANCH_CHANGES: dict[str, tuple[str, Change]] = {
    "identity of a depthwise layer left out": (DET, without("backbone.blocks3.1.dw_conv", "identity")),
    "identity of a 1×1 layer left out": (REC, without("backbone.blocks6.3.pw_conv", "identity")),
    "1×1 branch left out": (REC, without("backbone.blocks4.0.dw_conv", "conv_1x1")),
    "one of four branches left out": (DET, without("backbone.blocks6.2.pw_conv", "conv_kxk")),
    "epsilon of a branch": (DET, assign("backbone.blocks5.0.pw_conv.conv_kxk.2.bn", eps=1e-6)),
    "epsilon of an identity": (REC, assign("backbone.blocks3.1.dw_conv.identity", eps=1e-3)),
}


@pytest.mark.parametrize(("architecture", "change"), BRANCH_CHANGES.values(), ids=BRANCH_CHANGES)
def test_a_change_of_a_branch_is_noticed(architecture: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    branches, folded = pair(architecture)
    changed = copy.deepcopy(branches)
    change(changed, monkeypatch)
    assert apart(architecture, changed, folded) > 1e-7


FOLDING_CHANGES: dict[str, Change] = {
    "small kernel in the corner": define(pplcnet_v3, "pad_kernel", corner),
    "no identity": define(pplcnet_v3, "identity_kernel", lambda conv: torch.zeros_like(conv.weight)),
    "epsilon forgotten": define(pplcnet_v3, "fuse_norm", without_epsilon),
}


@pytest.mark.parametrize("change", FOLDING_CHANGES.values(), ids=FOLDING_CHANGES)
def test_a_mistake_in_folding_is_noticed(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    branches, _ = pair(DET)
    change(branches, monkeypatch)
    assert apart(DET, branches, copy.deepcopy(branches).fold()) > 1e-7


# ---- upstream's answers ----------------------------------------------------------------------------------------------

ORACLES = {"ch_PP-OCRv4_det": DET, "PP-OCRv5_mobile_det": DET, "ch_PP-OCRv4_rec": REC}
ENCODED = {DET: "neck", REC: "head.ctc_encoder"}
# See `errors`.
TOLERANCE = 1e-4


@cache
def _answering(name: str) -> nn.Module:
    model = create_model(ORACLES[name])
    model.load_state_dict(to_torch(checkpoint(name), get(ORACLES[name]), {}).state)
    return model.eval()


def answering(name: str, folded: bool) -> nn.Module:
    """The network with the oracle's checkpoint, to be changed at will."""
    model = copy.deepcopy(_answering(name))
    return model.fold() if folded else model


def statistics(x: Tensor, over: tuple[int, ...]) -> np.ndarray:
    """Mean and standard deviation."""
    return torch.stack([x.mean(over), x.std(over, correction=0)]).numpy()


def errors(name: str, model: nn.Module) -> dict[str, float]:
    """How far statistics of the parts, and logits, are from the oracle's; infinite where shapes do not fit.

    Statistics in units of the largest one, logits in units of their standard deviation.
    """
    known, architecture = oracle(name), ORACLES[name]
    try:
        maps, encoded, scores = returned(
            model, torch.from_numpy(known["x"]), "backbone", ENCODED[architecture], LOGITS[architecture]
        )
    except (RuntimeError, ValueError):
        return {"logits": math.inf}
    if architecture == DET:
        parts = {f"backbone_{index}": statistics(x, (0, 2, 3)) for index, x in enumerate(maps)}
        parts["neck_0"] = statistics(encoded, (0, 2, 3))
        answers = {"logits": scores.numpy()}
    else:
        parts = {"backbone_0": statistics(maps, (0, 2, 3)), "ctc_encoder_0": statistics(encoded, (0, 2))}
        answers = {"logits": scores[..., :64].numpy(), "logsumexp": torch.logsumexp(scores, 2).numpy()}
    units = {part: np.abs(known[part]).max() for part in parts} | dict.fromkeys(answers, known["logits"].std())
    return {
        part: float(np.abs(array - known[part]).max() / units[part]) if array.shape == known[part].shape else math.inf
        for part, array in {**parts, **answers}.items()
    }


@pytest.mark.parametrize("folded", [False, True], ids=["branches", "folded"])
@pytest.mark.parametrize("name", ORACLES)
def test_a_network_answers_as_upstreams(name: str, folded: bool) -> None:
    model = answering(name, folded)
    found = errors(name, model)
    assert max(found.values()) < TOLERANCE, found
    if ORACLES[name] == REC:
        scores = logits(model, REC, torch.from_numpy(oracle(name)["x"]))
        assert np.array_equal(scores.argmax(2).numpy(), oracle(name)["argmax"])


@pytest.mark.parametrize("name", ORACLES)
def test_branches_and_folded_layout_agree_in_double_precision_with_an_oracles_weights(name: str) -> None:
    branches = answering(name, folded=False).double()
    x = torch.from_numpy(oracle(name)["x"]).double()
    one = logits(branches, ORACLES[name], x)
    other = logits(branches.fold(), ORACLES[name], x)
    assert (one - other).abs().max() < 1e-12 * one.abs().max()


def no_shortcut(layer: necks.RSELayer, x: Tensor) -> Tensor:
    return layer.se_block(layer.in_conv(x))


# Both layouts: (network, change, the layer of the folded one from which on it shows).
CHANGES: dict[str, tuple[str, Change, str]] = {
    # strides and what depends on how they are written
    "activation after a layer of stride 2": (
        DET,
        put("backbone.blocks3.0.dw_conv.act", Activation()),
        "backbone.blocks3.0.pw_conv.reparam_conv",
    ),
    "no activation after a layer of stride (2, 1)": (
        REC,
        put("backbone.blocks4.0.dw_conv.act.act", nn.Identity()),
        "backbone.blocks4.0.dw_conv.act.lab",
    ),
    "no activation after a layer of stride (1, 2)": (
        REC,
        put("backbone.blocks5.0.dw_conv.act.act", nn.Identity()),
        "backbone.blocks5.0.dw_conv.act.lab",
    ),
    "activation after the stem": (
        DET,
        before("backbone.blocks2", nn.functional.hardswish),
        "backbone.blocks2.0.dw_conv.reparam_conv",
    ),
    "stride (2, 1) for (1, 2)": (
        REC,
        strided("backbone.blocks5.0.dw_conv", (2, 1)),
        "backbone.blocks5.0.dw_conv.reparam_conv",
    ),
    "stride 1 for (2, 1)": (
        REC,
        strided("backbone.blocks6.2.dw_conv", (1, 1)),
        "backbone.blocks6.2.dw_conv.reparam_conv",
    ),
    # activations and affine layers
    "hard sigmoid of the backbone, slope 0.2 for 1/6": (
        REC,
        put("backbone.blocks6.1.se.gate", Hardsigmoid02()),
        "backbone.blocks6.1.pw_conv.reparam_conv",
    ),
    "hard sigmoid of the detector's backbone, slope 0.2 for 1/6": (
        DET,
        put("backbone.blocks6.0.se.gate", Hardsigmoid02()),
        "backbone.blocks6.0.pw_conv.reparam_conv",
    ),
    "hard sigmoid of the neck, slope 1/6 for 0.2": (
        DET,
        put("neck.ins_conv.0.se_block.gate", nn.Hardsigmoid()),
        "neck.inp_conv.0.in_conv",
    ),
    "SiLU for Hardswish": (
        REC,
        put("backbone.blocks4.1.pw_conv.act.act", nn.SiLU()),
        "backbone.blocks4.1.pw_conv.act.lab",
    ),
    "Hardswish for SiLU": (
        REC,
        put("head.ctc_encoder.encoder.conv1.act", nn.Hardswish()),
        "head.ctc_encoder.encoder.conv2.conv",
    ),
    "affine layer left out": (
        DET,
        put("backbone.blocks5.2.dw_conv.lab", nn.Identity()),
        "backbone.blocks5.2.dw_conv.lab",
    ),
    # pooling and sums
    "last pool, maximum for mean": (
        REC,
        put("backbone.pool", nn.MaxPool2d((3, 2))),
        "head.ctc_encoder.encoder.conv1.conv",
    ),
    "no shortcut in the neck": (DET, define(necks.RSELayer, "forward", no_shortcut), "neck.inp_conv.3.in_conv"),
    "attention not scaled": (
        REC,
        assign("head.ctc_encoder.encoder.svtr_block.0.mixer", scale=1.0),
        "head.ctc_encoder.encoder.svtr_block.0.mixer.proj",
    ),
}
# These do not show in the answers: the width is even, and no variance is near the epsilons.
GOLDEN_CHANGES: dict[str, tuple[str, Change, str]] = {
    "last pool rounds up": (
        REC,
        put("backbone.pool", nn.AvgPool2d((3, 2), ceil_mode=True)),
        "head.ctc_encoder.encoder.conv1.conv",
    ),
    "epsilon of the stem's norm": (DET, assign("backbone.conv1.bn", eps=1e-3), "backbone.conv1.bn"),
    "epsilon of the encoder's first norm": (
        REC,
        assign("head.ctc_encoder.encoder.conv1.norm", eps=1e-6),
        "head.ctc_encoder.encoder.conv1.norm",
    ),
    "epsilon of a block's first layer norm": (
        REC,
        assign("head.ctc_encoder.encoder.svtr_block.0.norm1", eps=1e-6),
        "head.ctc_encoder.encoder.svtr_block.0.norm1",
    ),
    "epsilon of a block's second layer norm": (
        REC,
        assign("head.ctc_encoder.encoder.svtr_block.1.norm2", eps=1e-6),
        "head.ctc_encoder.encoder.svtr_block.1.norm2",
    ),
    "epsilon of the last layer norm": (
        REC,
        assign("head.ctc_encoder.encoder.norm", eps=1e-5),
        "head.ctc_encoder.encoder.norm",
    ),
}
ANSWERS = {DET: "ch_PP-OCRv4_det", REC: "ch_PP-OCRv4_rec"}
ALL_CHANGES = CHANGES | GOLDEN_CHANGES


@pytest.mark.parametrize(("architecture", "change", "layer"), ALL_CHANGES.values(), ids=ALL_CHANGES)
def test_a_single_change_is_noticed_where_it_is_made(
    architecture: str, change: Change, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first_departure(architecture, change, monkeypatch) == layer


@pytest.mark.parametrize("folded", [False, True], ids=["branches", "folded"])
@pytest.mark.parametrize(("architecture", "change", "layer"), CHANGES.values(), ids=CHANGES)
def test_a_single_change_departs_from_upstreams_answer(
    architecture: str, change: Change, layer: str, folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering(ANSWERS[architecture], folded)
    change(model, monkeypatch)
    assert max(errors(ANSWERS[architecture], model).values()) > TOLERANCE


@pytest.mark.parametrize(
    ("architecture", "change"),
    [BRANCH_CHANGES[name] for name in BRANCH_CHANGES if "epsilon" not in name],
    ids=[name for name in BRANCH_CHANGES if "epsilon" not in name],
)
def test_a_change_of_a_branch_departs_from_upstreams_answer(
    architecture: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering(ANSWERS[architecture], folded=False)
    change(model, monkeypatch)
    assert max(errors(ANSWERS[architecture], model).values()) > TOLERANCE


# ---- sizes and training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "steps"), [(320, 40), (213, 27), (106, 13), (8, 1)])
def test_steps_of_a_line(width: int, steps: int) -> None:
    model = create_model(REC, folded=True, classes=97).eval()
    with torch.inference_mode():
        probabilities = model(torch.zeros(1, 3, 48, width))
    assert probabilities.shape == (1, steps, 97)
    torch.testing.assert_close(probabilities.sum(2), torch.ones(1, steps))


@pytest.mark.parametrize(
    ("height", "rows"), [(32, "2 rows where its last pooling needs 3"), (96, "2 rows where the recogniser needs 1")]
)
def test_a_line_of_another_height_is_refused(height: int, rows: str) -> None:
    model = create_model(REC, folded=True, classes=97).eval()
    with pytest.raises(ValueError, match=f"the backbone left {rows}: give images 48 pixels high"):
        model(torch.zeros(1, 3, height, 64))


@pytest.mark.parametrize("size", [(32, 320), (48, 320), (64, 160)])
def test_training_makes_forty_steps_of_lines_of_any_size(size: tuple[int, int]) -> None:
    assert create_model(REC, classes=97)(torch.randn(2, 3, *size)).shape == (2, 40, 97)


def test_in_training_a_line_of_the_usual_size_is_pooled_as_in_evaluation() -> None:
    pool, x = pplcnet_v3.svtr.TimeStepPool(), torch.randn(2, 5, 3, 80)
    torch.testing.assert_close(pool.train()(x), pool.eval()(x))


@pytest.mark.parametrize("architecture", [DET, REC])
def test_all_is_trained_but_what_is_never_applied(architecture: str) -> None:
    model = create_model(architecture, **FEW_CLASSES[architecture])
    model(torch.randn(2, *INPUT[architecture][1:])).square().mean().backward()
    untrained = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert untrained == (UNUSED if architecture == DET else [])
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == untrained
