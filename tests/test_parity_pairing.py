"""Modules and operators find each other through parameters alone."""

from __future__ import annotations

import re

import pytest

from paddle2torch.converter.parity.pairing import Layer, pair_layers
from paddle2torch.converter.parity.reference import ReferenceOperator, ReferenceProgram
from paddle2torch.converter.support.errors import ParityError

Step = tuple[str, tuple[str, ...], str | None]

KEYS = {"w0": "conv.weight", "b0": "conv.bias", "m0": "bn.running_mean", "w1": "fc.weight", "b1": "fc.bias"}
STEPS: list[Step] = [
    ("conv2d", ("x", "w0"), "c"),
    ("reshape2", ("b0",), "b0_column"),
    ("elementwise_add", ("c", "b0_column"), "cb"),
    ("batch_norm", ("cb", "m0"), "n"),
    ("relu", ("n",), "r"),
    ("matmul_v2", ("r", "w1"), "f"),
    ("elementwise_add", ("f", "b1"), "fb"),
    ("softmax", ("fb",), "p"),
]
MODULES = ("conv", "bn", "fc")


def program(steps: list[Step] = STEPS, keys: dict[str, str] = KEYS) -> ReferenceProgram:
    return ReferenceProgram(
        feeds=("x",),
        fetches=(steps[-1][2] or "",),
        parameters=dict.fromkeys(keys, (1,)),
        operators=tuple(ReferenceOperator(*step) for step in steps),
    )


def values(layers: tuple[Layer, ...]) -> dict[str, str]:
    return {layer.module: layer.value for layer in layers}


def test_a_layer_is_complete_with_its_bias_however_the_bias_gets_there() -> None:
    layers = pair_layers(program(), KEYS, MODULES)
    assert values(layers) == {"conv": "cb", "bn": "n", "fc": "fb"}
    assert [layer.operator for layer in layers] == ["elementwise_add", "batch_norm", "elementwise_add"]
    assert layers[0].parameters == ("conv.bias", "conv.weight")


def test_layers_come_in_the_order_of_execution() -> None:
    assert [layer.module for layer in pair_layers(program(), KEYS, MODULES[::-1])] == ["conv", "bn", "fc"]


def test_a_layer_counts_as_executed_when_it_is_complete() -> None:
    keys = {"w0": "late.weight", "b0": "late.bias", "w1": "early.weight"}
    steps: list[Step] = [
        ("conv2d", ("x", "w0"), "c"),
        ("conv2d", ("x", "w1"), "d"),
        ("elementwise_add", ("c", "b0"), "cb"),
        ("softmax", ("cb",), "p"),
    ]
    layers = pair_layers(program(steps, keys), keys, ["late", "early"])
    assert [layer.module for layer in layers] == ["early", "late"]


def test_the_layer_before_the_last_activation_is_marked() -> None:
    marked = [layer.module for layer in pair_layers(program(), KEYS, MODULES) if layer.pre_activation]
    assert marked == ["fc"]


def test_a_scale_after_the_last_activation_does_not_hide_it() -> None:
    layers = pair_layers(program([*STEPS, ("scale", ("p",), "out")]), KEYS, MODULES)
    assert layers[-1].pre_activation


def test_recurrent_weights_that_are_combined_first_belong_to_one_time_major_layer() -> None:
    keys = {"a": "lstm.weight_ih_l0", "b": "lstm.weight_hh_l0"}
    steps: list[Step] = [("combine", ("a", "b"), "all"), ("rnn", ("x", "all"), "h"), ("softmax", ("h",), "p")]
    (layer,) = pair_layers(program(steps, keys), keys, ["lstm"])
    assert (layer.value, layer.time_major) == ("h", True)


def test_an_operator_without_result_is_passed_over() -> None:
    steps: list[Step] = [("print", ("x",), None), *STEPS]
    assert values(pair_layers(program(steps), KEYS, MODULES)) == {"conv": "cb", "bn": "n", "fc": "fb"}


def test_a_branch_that_only_training_has_may_be_absent() -> None:
    layers = pair_layers(program(), KEYS, [*MODULES, "thresh.conv"], absent=["thresh.conv"])
    assert [layer.module for layer in layers] == list(MODULES)


@pytest.mark.parametrize(
    ("steps", "keys", "modules", "message"),
    [
        pytest.param(
            STEPS, KEYS, (*MODULES, "thresh"), "1 modules have parameters but no operator .*: thresh", id="module"
        ),
        pytest.param(STEPS, KEYS, ("conv", "bn"), "module paths .* do not exist in the model: fc", id="path"),
        pytest.param(STEPS[:-1], KEYS, MODULES, r"last activation \(None\) is no layer's output", id="no activation"),
        pytest.param(
            [*STEPS[:-1], ("relu", ("fb",), "r2"), ("softmax", ("r2",), "p")],
            KEYS,
            MODULES,
            r"last activation \(r2\) is no layer's output",
            id="activation of something else",
        ),
        pytest.param(
            [("softmax", ("x",), "p")],
            KEYS,
            MODULES,
            "3 modules have parameters but no operator",
            id="unused parameters",
        ),
    ],
)
def test_whatever_finds_no_partner_is_an_error(
    steps: list[Step], keys: dict[str, str], modules: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ParityError, match=message):
        pair_layers(program(steps, keys), keys, modules)


def test_a_parameter_that_no_tensor_stands_for_is_an_error() -> None:
    known = {name: key for name, key in KEYS.items() if name != "m0"}
    with pytest.raises(
        ParityError, match=re.escape("1 parameters of the Paddle program are no tensor of the model: m0")
    ):
        pair_layers(program(), known, MODULES)


def test_a_parameter_that_is_no_layers_has_an_operator_of_its_own() -> None:
    """As the factors and offsets of a program without structured names: nothing in their names tells them apart."""
    steps: list[Step] = [
        ("conv2d", ("x", "w"), "c"),
        ("multiply", ("c", "s0"), "cs"),
        ("add", ("cs", "s1"), "csa"),
        ("relu", ("csa",), "r"),
        ("multiply", ("r", "s2"), "rs"),
        ("sigmoid", ("rs",), "p"),
    ]
    keys = {"w": "conv2d_0.weight", "s0": "affine_0", "s1": "affine_1", "s2": "affine_2"}
    owners = {key: key if key.startswith("affine") else "conv2d_0" for key in keys.values()}
    layers = pair_layers(program(steps, keys), keys, list(owners.values()), owners=owners)
    assert values(layers) == {"conv2d_0": "c", "affine_0": "cs", "affine_1": "csa", "affine_2": "rs"}
    assert [layer.parameters for layer in layers[:2]] == [("conv2d_0.weight",), ("affine_0",)]
