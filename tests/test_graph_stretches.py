"""Conformity where structures differ: rewritings are accepted, wrong networks refused, by what they compute."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paddle2torch.architectures import create_model
from paddle2torch.architectures.layers import Hardsigmoid02
from paddle2torch.architectures.registry import get
from paddle2torch.converter.graph import stretches
from paddle2torch.converter.graph.conformity import Conformity, compare_traces, input_shape
from paddle2torch.converter.graph.trace import Trace, trace_module

SHAPE = (2, 3, 6, 8)
Function = Callable[..., Tensor]


class Net(nn.Module):
    """Something between three layers before and one behind; a function of as many as it takes, with `self` first."""

    def __init__(self, function: Function, behind: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 4, 1) for _ in range(3))
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 4)
        self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.last = nn.Conv2d(4, 4, 3) if behind else nn.Identity()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, self.first(x), self.second(x), self.third(x)))


def compared(one: Function, other: Function, behind: bool = False) -> Conformity:
    nets = [Net(each, behind).eval() for each in (one, other)]

    def traces(shape: tuple[int, ...]) -> list[Trace]:
        return [trace_module(net, shape) for net in nets]

    return compare_traces(*traces(SHAPE), lambda: [traces((3, 3, 6, 13))])


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def attention(scaled: str, factor: float = 0.5) -> Function:
    """Of each pixel to each, with the scale at one of several places."""

    def run(net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = tokens(q), tokens(k), tokens(v)
        q = q * factor if scaled == "before" else q
        product = q @ k.transpose(1, 2)
        if scaled == "behind":
            product = product * factor
        if scaled == "divided":
            product = product / (1 / factor)
        return product.softmax(-1) @ v

    return run


def spelled_norm(net: Net, x: Tensor, eps: float = 1e-5) -> Tensor:
    norm = net.norm
    mean, variance, weight, bias = (
        each.reshape(1, -1, 1, 1) for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def root(n: float) -> float:
    return float(torch.tensor(math.sqrt(n), dtype=torch.float32))  # as a program has it


HALF = root(0.5)
# What is the same, and beside it what is nearly the same as the first.
REWRITINGS: dict[str, tuple[Function, Function, Function]] = {
    "scale before or behind the product": (attention("before"), attention("behind"), attention("behind", 0.505)),
    "a scale divided by": (
        attention("before", root(1 / 15)),
        attention("divided", 1 / math.sqrt(15)),
        attention("divided", 1 / math.sqrt(16)),
    ),
    "a bias by itself": (
        lambda net, x, *_: net.fc(tokens(x)),
        lambda net, x, *_: tokens(x) @ net.fc.weight.t() + net.fc.bias,
        lambda net, x, *_: tokens(x) @ net.fc.weight.t() - net.fc.bias,
    ),
    "a transposed matrix": (
        lambda net, x, *_: F.linear(tokens(x), net.fc.weight),
        lambda net, x, *_: (net.fc.weight @ x.flatten(2)).transpose(1, 2),
        lambda net, x, *_: (net.fc.weight.t() @ x.flatten(2)).transpose(1, 2),
    ),
    "transposes moved past an activation": (
        lambda net, x, *_: F.hardswish(tokens(x)),
        lambda net, x, *_: tokens(F.hardswish(x)),
        lambda net, x, *_: tokens(F.hardswish(x)).flip(1),
    ),
    "transposes moved past a layer": (
        lambda net, x, *_: net.fc(tokens(x)),
        lambda net, x, *_: net.fc(x.flatten(2).permute(2, 0, 1)).transpose(0, 1),
        lambda net, x, *_: net.fc(x.flatten(2).permute(2, 0, 1)).transpose(0, 1).flip(0),
    ),
    "silu": (
        lambda net, x, *_: F.silu(x),
        lambda net, x, *_: x * torch.sigmoid(x),
        lambda net, x, *_: x * torch.sigmoid(1.01 * x),
    ),
    "hard swish with relu6": (
        lambda net, x, *_: F.hardswish(x),
        lambda net, x, *_: x * F.relu6(x + 3) / 6,
        lambda net, x, *_: x * F.relu(x + 3) / 6,
    ),
    "hard swish with clamp": (
        lambda net, x, *_: F.hardswish(x),
        lambda net, x, *_: x * torch.clamp(x + 3, 0, 6) * (1 / 6),
        lambda net, x, *_: x * torch.clamp(x + 3, 0, 6.01) * (1 / 6),
    ),
    "relu6 with relu": (
        lambda net, x, *_: F.relu6(x),
        lambda net, x, *_: F.relu(x) - F.relu(x - 6),
        lambda net, x, *_: F.relu(x),
    ),
    "a leaky relu spelled out": (
        lambda net, x, *_: F.leaky_relu(x, 0.1),
        lambda net, x, *_: torch.maximum(x, 0.1 * x),
        lambda net, x, *_: torch.minimum(x, 0.1 * x),
    ),
    "gelu with erf": (
        lambda net, x, *_: F.gelu(x),
        lambda net, x, *_: 0.5 * x * (1 + torch.erf(x * HALF)),
        lambda net, x, *_: F.gelu(x, approximate="tanh"),
    ),
    "reshape or flatten": (
        lambda net, x, *_: F.relu(x.flatten(2)).mean(2),
        lambda net, x, *_: F.relu(x).reshape(len(x), 4, -1).mean(-1),
        lambda net, x, *_: F.relu(x).reshape(len(x), 4, -1).mean(1),
    ),
    "softmax of the last axis or along channels": (
        lambda net, x, *_: tokens(x).softmax(-1),
        lambda net, x, *_: tokens(x.softmax(1)),
        lambda net, x, *_: tokens(x.softmax(3)),
    ),
    "softmax with exp": (
        lambda net, x, *_: x.softmax(1),
        lambda net, x, *_: torch.exp(x) / torch.exp(x).sum(1, keepdim=True),
        lambda net, x, *_: torch.exp(x) / torch.exp(x).sum(2, keepdim=True),
    ),
    "mean as sum": (
        lambda net, x, *_: x.mean((2, 3), keepdim=True),
        lambda net, x, *_: x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3]),
        lambda net, x, *_: x.sum((2, 3), keepdim=True) / 48,  # which holds for one width
    ),
    "split or slice": (
        lambda net, x, *_: F.relu(x).split(2, 1)[1],
        lambda net, x, *_: F.relu(x[:, 2:]),
        lambda net, x, *_: F.relu(x[:, 1:3]),
    ),
    "squeeze or reshape": (
        lambda net, x, *_: F.adaptive_avg_pool2d(x, 1).squeeze(3).squeeze(2),
        lambda net, x, *_: x.reshape(len(x), 4, -1).mean(2),
        lambda net, x, *_: x.reshape(len(x), 4, -1).amax(2),
    ),
    "a power as a product": (
        lambda net, x, *_: torch.pow(x, 2),
        lambda net, x, *_: x * x,
        lambda net, x, *_: x * x.abs(),
    ),
    "a quotient as a product": (
        lambda net, x, y, *_: x / y,
        lambda net, x, y, *_: x * torch.reciprocal(y),
        lambda net, x, y, *_: y * torch.reciprocal(x),
    ),
    "a norm spelled out": (
        lambda net, x, *_: net.norm(x),
        lambda net, x, *_: spelled_norm(net, x),
        lambda net, x, *_: spelled_norm(net, x, 1e-3),
    ),
    "padding by itself": (
        lambda net, x, *_: F.conv2d(x, net.first.weight[:, :1], padding=1, groups=4),
        lambda net, x, *_: F.conv2d(F.pad(x, (1, 1, 1, 1)), net.first.weight[:, :1], groups=4),
        lambda net, x, *_: F.conv2d(F.pad(x, (2, 0, 1, 1)), net.first.weight[:, :1], groups=4),
    ),
    "an affine by parts": (
        lambda net, x, *_: net.scale * x + net.shift,
        lambda net, x, *_: torch.addcmul(net.shift, net.scale, x),
        lambda net, x, *_: torch.addcmul(net.scale, net.shift, x),
    ),
    "a sum in another order": (
        lambda net, x, y, z: (x + y) + z,
        lambda net, x, y, z: x + (z + y),
        lambda net, x, y, z: x + (z - y),
    ),
}


@pytest.mark.parametrize("name", REWRITINGS)
def test_a_rewriting_is_accepted_and_noted(name: str) -> None:
    one, other, _ = REWRITINGS[name]
    found = compared(one, other)
    assert found.mismatches == ()
    assert found.rewritings
    assert max(each.error for each in found.rewritings) < stretches.EQUAL


@pytest.mark.parametrize("name", REWRITINGS)
def test_what_is_nearly_the_same_is_refused_with_a_figure(name: str) -> None:
    one, _, wrong = REWRITINGS[name]
    found = compared(one, wrong)
    assert found.mismatches
    assert max(each.error or 0.0 for each in found.mismatches) > 1e-6


@pytest.mark.parametrize("name", ["silu", "hard swish with clamp", "gelu with erf", "a norm spelled out"])
def test_layers_behind_neither_hide_nor_spread_a_difference(name: str) -> None:
    one, other, wrong = REWRITINGS[name]
    assert compared(one, other, behind=True).mismatches == ()
    alone, followed = compared(one, wrong), compared(one, wrong, behind=True)
    assert len(followed.mismatches) == len(alone.mismatches)


def test_constants_of_single_precision_are_those_of_double_precision() -> None:
    """A program has 0.2 as 0.200000003."""
    rounded = float(torch.tensor(0.2, dtype=torch.float32))
    found = compared(lambda net, x, *_: (x * rounded).abs(), lambda net, x, *_: x.abs() * 0.2)
    assert (found.mismatches, len(found.rewritings)) == ((), 1)
    assert compared(lambda net, x, *_: (x * rounded).abs(), lambda net, x, *_: x.abs() * 0.20001).mismatches


def test_a_pool_that_rounds_otherwise_is_refused_whatever_the_sizes() -> None:
    found = compared(
        lambda net, x, *_: F.max_pool2d(x, 2)[:, :, :3, :4],
        lambda net, x, *_: F.max_pool2d(x, 2, ceil_mode=True)[:, :, :3, :4],
    )
    assert [each.attribute for each in found.mismatches][:1] == ["ceil_mode"]


def test_a_stretch_too_large_to_be_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, _ = REWRITINGS["silu"]
    monkeypatch.setattr(stretches, "MOST_ELEMENTS", 100)
    found = compared(one, other)
    assert [each.error for each in found.mismatches] == [None] * len(found.mismatches) != []


def test_nothing_is_run_where_structures_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "_run", None)
    one, *_ = REWRITINGS["scale before or behind the product"]
    found = compared(one, one)
    assert (found.mismatches, found.rewritings) == ((), ())


# ---- single mistakes in the networks of the later releases ----------------------------------------------------------


@cache
def network(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name).eval()


def conformity_of(name: str, change: Callable[[nn.Module], None]) -> Conformity:
    """A network, and the same with a mistake in it."""
    wrong = copy.deepcopy(network(name))
    change(wrong)
    entry = get(name)
    shape = input_shape(entry.task, entry.preprocessing)
    return compare_traces(trace_module(network(name), shape), trace_module(wrong, shape))


def put(path: str, module: nn.Module) -> Callable[[nn.Module], None]:
    """Another module at a path."""

    def change(model: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, module)

    return change


def having(path: str, **values: object) -> Callable[[nn.Module], None]:
    """Other attributes of a module."""

    def change(model: nn.Module) -> None:
        for name, value in values.items():
            assert getattr(model.get_submodule(path), name) != value
            setattr(model.get_submodule(path), name, value)

    return change


LCNET_DET, LCNET_REC = "det_pplcnet_v3_rsefpn", "rec_pplcnet_v3_svtr_ctc"
LCNET_4_DET, LCNET_4_REC = "det_pplcnet_v4_replkfpn", "rec_pplcnet_v4_lightsvtr_ctc"
LCNET_4_GUIDE = "rec_pplcnet_v4_guide_ctc"
HGNET, HGNET_2, LCNET = "det_pphgnet_small_lkpan", "det_pphgnet_v2_lkpan", "cls_pp_lcnet_textline"
SVTR = "head.ctc_encoder.encoder"

# What is wrong, and the module that has to be named: where a module is left out, the one that gets what it got.
WRONG = [
    (LCNET_DET, put("backbone.blocks2.0.dw_conv.act.act", nn.ReLU()), "backbone.blocks2.0.dw_conv.act.act"),
    (LCNET_DET, put("backbone.blocks6.0.se.gate", Hardsigmoid02()), "backbone.blocks6.0.se.gate"),
    (LCNET_DET, put("neck.ins_conv.0.se_block.gate", nn.Hardsigmoid()), "neck.ins_conv.0.se_block.gate"),
    (LCNET_DET, put("backbone.blocks5.1.dw_conv.lab", nn.Identity()), "backbone.blocks5.1.dw_conv.lab"),
    (LCNET_REC, having(f"{SVTR}.svtr_block.1.mixer", scale=0.25), f"{SVTR}.svtr_block.1.mixer"),
    (LCNET_REC, put(f"{SVTR}.svtr_block.0.mlp.act", nn.GELU()), f"{SVTR}.svtr_block.0.mlp.act"),
    (LCNET_REC, having(f"{SVTR}.norm", eps=1e-5), f"{SVTR}.norm"),
    (LCNET_REC, having(f"{SVTR}.svtr_block.0.mixer", heads=6), f"{SVTR}.svtr_block.0.mixer"),
    (LCNET_4_DET, having("backbone.blocks_s1.1.channel_mixer.act", approximate="tanh"),
     "backbone.blocks_s1.1.channel_mixer.act"),
    (LCNET_4_DET, having("backbone.blocks_s1.1", residual=False), "backbone.blocks_s2.0.token_mixer.dw_conv.conv"),
    (LCNET_4_DET, put("backbone.stem.pool.1", nn.AvgPool2d(2, 1)), "backbone.stem.pool.1"),
    (LCNET_4_GUIDE, put("head.ctc_head.guide_layer.2", nn.ReLU6()), "head.ctc_head.guide_layer.2"),
    (LCNET_4_GUIDE, having("head.ctc_head.guide_layer.0", padding=(4,), dilation=(2,)), "head.ctc_head.guide_layer.0"),
    (LCNET_4_REC, put(f"{SVTR}.local_conv.2", nn.Hardswish()), f"{SVTR}.local_conv.2"),
    (HGNET, put("backbone.stages.0.blocks.0.att.gate", nn.Hardsigmoid()), "backbone.stages.0.blocks.0.att.gate"),
    (HGNET, having("backbone.stages.2.blocks.1", residual=False), "backbone.stages.2.blocks.1.att"),
    (HGNET, put("head.cbn_layer.last_3.act", nn.Identity()), "head.cbn_layer.last_1"),
    (HGNET_2, put("backbone.stages.2.blocks.0.layers.0.conv2.act", nn.Hardswish()),
     "backbone.stages.2.blocks.0.layers.0.conv2.act"),
    (HGNET_2, put("neck.incl1.relu", nn.LeakyReLU()), "neck.incl1.relu"),
    (LCNET, having("head.dropout", share=0.1), "head.dropout"),
    (LCNET, put("head.act", nn.ReLU()), "head.act"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "place"), WRONG, ids=[f"{name}-{place}" for name, _, place in WRONG])
def test_a_mistake_is_told_with_its_module_and_how_much_it_matters(
    name: str, change: Callable[[nn.Module], None], place: str
) -> None:
    found = conformity_of(name, change).mismatches
    assert place in {each.path for each in found}
    assert max(each.error or 0.0 for each in found if each.path == place) > stretches.EQUAL


class Scaled(nn.Module):
    """Attention that scales the product, and may have made a mistake."""

    def __init__(self, mixer: nn.Module, wrong: float = 1.0) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads, self.scale = mixer.qkv, mixer.proj, mixer.heads, mixer.scale * wrong

    def forward(self, x: Tensor) -> Tensor:
        count, length, size = x.shape
        q, k, v = self.qkv(x).reshape(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-1, -2)) * self.scale).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(count, length, size))


@pytest.mark.parametrize("name", [LCNET_REC, LCNET_4_REC])
def test_attention_that_scales_the_product_is_the_same(name: str) -> None:
    path = f"{SVTR}.svtr_block.0.mixer"
    found = conformity_of(name, lambda model: put(path, Scaled(model.get_submodule(path)))(model))
    assert (found.mismatches, [each.path for each in found.rewritings]) == ((), [path])
    found = conformity_of(name, lambda model: put(path, Scaled(model.get_submodule(path), 1.01))(model))
    assert {each.path for each in found.mismatches} == {path}
