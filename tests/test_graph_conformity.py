"""Conformity: whatever a network computes otherwise than its released graph is found, and nothing else."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from paddle2torch.architectures import create_model
from paddle2torch.architectures.layers import Hardsigmoid02
from paddle2torch.converter.graph.conformity import check_conformity, compare_traces, input_shape, require_conformity
from paddle2torch.converter.graph.trace import Trace, trace_graph, trace_module
from paddle2torch.converter.support.errors import MappingError
from support.graphs import EMBEDDED, Pair, families, pair, tarballs

ACTIVATIONS = (nn.ReLU, nn.Hardswish, nn.SiLU, nn.Hardsigmoid, Hardsigmoid02, nn.Sigmoid, nn.Identity)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
NEVER_RUN = ("head.thresh.", "head.aux_")
# Changes of these are told with the very module and attribute; others where their effect is.
PLAIN_ATTRIBUTES = ("stride", "padding", "dilation", "groups", "eps", "kernel_size", "ceil_mode")

Change = tuple[str, str, Callable[[], None], Callable[[], None]]


def own() -> Pair:
    return pair(EMBEDDED / "embedded_rec_infer.tar")


def shape_of(each: Pair) -> tuple[int, ...]:
    return input_shape(each.architecture.task, each.architecture.preprocessing)


# ---- no correct pair is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [EMBEDDED / "embedded_rec_infer.tar", *tarballs().values()], ids=lambda path: path.stem
)
def test_released_networks_conform(path: Path) -> None:
    each = pair(path)
    found = check_conformity(each.graph, each.model, each.keys, shape_of(each))
    assert (found.mismatches, found.rewritings) == ((), ())


def test_the_network_is_left_as_it_is() -> None:
    each = own()
    model = copy.deepcopy(each.model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_conformity(each.graph, model, each.keys, shape_of(each))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any("forward" in module.__dict__ for module in model.modules())


# ---- every single change is found --------------------------------------------------------------------------------


def setting(module: nn.Module, name: str, value: object) -> tuple[Callable[[], None], Callable[[], None]]:
    """Sets an attribute, and sets it back."""
    before = getattr(module, name)
    return lambda: setattr(module, name, value), lambda: setattr(module, name, before)


def replacing(model: nn.Module, path: str, new: nn.Module) -> tuple[Callable[[], None], Callable[[], None]]:
    """Puts another module at a path, and the old one back."""
    parent, _, name = path.rpartition(".")
    owner, before = model.get_submodule(parent), model.get_submodule(path)
    return lambda: setattr(owner, name, new), lambda: setattr(owner, name, before)


def wider(value: int | tuple[int, int]) -> tuple[int, int]:
    """A stride, padding or kernel that differs along the width."""
    height, width = value if isinstance(value, tuple) else (value, value)
    return height, width + 1


def other(kinds: tuple[type[nn.Module], ...], module: nn.Module) -> type[nn.Module]:
    """The kind of module that follows this one's."""
    return kinds[(kinds.index(type(module)) + 1) % len(kinds)]


def changes(model: nn.Module) -> Iterator[Change]:
    """Path, what is changed, how to change it and how to undo it: one change of everything that a network says."""
    for path, module in model.named_modules():
        if path.startswith(NEVER_RUN):
            continue
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            for name in ("stride", "padding", "dilation"):
                yield path, name, *setting(module, name, wider(getattr(module, name)))
            yield path, "groups", *setting(module, "groups", 2 if module.groups == 1 else 1)
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            yield path, "eps", *setting(module, "eps", 1e-3 if module.eps == 1e-5 else 1e-5)
        elif isinstance(module, POOLS):
            for name in ("kernel_size", "stride", "padding"):
                yield path, name, *setting(module, name, wider(getattr(module, name)))
            if module.stride != 1:  # a pooling of every place has no border to round
                yield path, "ceil_mode", *setting(module, "ceil_mode", not module.ceil_mode)
            pool = other(POOLS, module)(module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode)
            yield path, "kind of pooling", *replacing(model, path, pool)
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            yield path, "size", *setting(module, "output_size", 2)
            yield path, "kind of pooling", *replacing(model, path, nn.AdaptiveMaxPool2d(1))
        elif isinstance(module, ACTIVATIONS):
            if not isinstance(module, nn.Identity):
                yield path, "activation", *replacing(model, path, other(ACTIVATIONS, module)())
        elif isinstance(module, nn.LSTM):
            yield path, "batch_first", *setting(module, "batch_first", not module.batch_first)
        if hasattr(module, "shortcut"):
            yield path, "shortcut", *setting(module, "shortcut", not module.shortcut)
        if hasattr(module, "heads"):
            yield path, "heads", *setting(module, "heads", module.heads // 2)
            yield path, "scale", *setting(module, "scale", module.scale * 1.01)


def some(model: nn.Module, most: int) -> list[Change]:
    """Of the changes of each kind to each kind of layer so many at most, spread over the network."""
    kinds: dict[tuple[type, str], list[Change]] = {}
    for each in changes(model):
        kinds.setdefault((type(model.get_submodule(each[0])), each[1]), []).append(each)
    return [
        kind[place * len(kind) // min(most, len(kind))]
        for kind in kinds.values()
        for place in range(min(most, len(kind)))
    ]


def traced_graph(each: Pair, shape: tuple[int, ...]) -> Trace:
    return trace_graph(each.graph, each.keys, shape)


@pytest.mark.parametrize(("name", "path"), families().items(), ids=str)
def test_single_changes_are_found(name: str, path: Path) -> None:
    each = pair(path)
    assert each.architecture.name == name
    shape = (1, *shape_of(each)[1:3], 64)  # small: there are some hundred changes
    expected, missed, count = traced_graph(each, shape), [], 0
    # Every one of the embedded network, which is small; the same kinds of layers come again and again in others.
    chosen = changes(each.model) if path.name.startswith("embedded") else some(each.model, 4)
    for place, what, change, undo in chosen:
        change()
        try:
            found = compare_traces(expected, trace_module(each.model, shape)).mismatches
        finally:
            undo()
        count += 1
        # Named exactly, unless the network as it is now takes no input at all.
        places = {(difference.path, difference.attribute) for difference in found}
        told = (place, what) in places or any(attribute == "result" for _, attribute in places)
        if not (told if what in PLAIN_ATTRIBUTES else found):
            missed.append((place, what))
    assert missed == []
    assert count > (150 if path.name.startswith("embedded") else 15)
    assert compare_traces(expected, trace_module(each.model, shape))


# ---- what is said ------------------------------------------------------------------------------------------------


@contextmanager
def changed(path: str, name: str, value: object) -> Iterator[Pair]:
    each = own()
    module = each.model.get_submodule(path)
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield each
    finally:
        setattr(module, name, before)


@pytest.mark.parametrize(("path", "name", "value", "message"), [
    ("backbone.conv1.conv", "stride", (2, 1), r"backbone\.conv1\.conv: stride is \(2, 1\) where the graph has \(2, 2\)"),
    ("backbone.conv1.conv", "groups", 3, r"backbone\.conv1\.conv: groups is 3 where the graph has 1"),
    ("backbone.conv1.bn", "eps", 1e-3, r"backbone\.conv1\.bn: eps is 0\.001 where the graph has 1e-05"),
    ("backbone.conv1", "act", nn.ReLU(), r"backbone\.conv1\.act: operation is relu where the graph has hardswish"),
    ("backbone.blocks.0.mid_se", "gate", nn.Hardsigmoid(), r"mid_se\.gate: slope is 0\.166667 where the graph has 0\.2"),
    ("backbone", "pool", nn.MaxPool2d(2, ceil_mode=True), r"backbone\.pool: ceil_mode is True where the graph has False"),
    ("backbone", "pool", nn.AvgPool2d(2), r"backbone\.pool: operation is avg_pool2d where the graph has max_pool2d"),
    ("backbone.conv1", "act", nn.Identity(), r"input is batch_norm \(backbone\.conv1\.bn\) where the graph has hardswish"),
    ("backbone.blocks.2", "shortcut", False, r"input is batch_norm \(backbone\.blocks\.2\.linear_conv\.bn\) where the graph has add"),
    ("neck.encoder.lstm", "batch_first", False, r"neck\.encoder\.lstm: order of the elements of input is"),
])  # fmt: skip
def test_a_difference_names_module_attribute_and_both_values(path: str, name: str, value: object, message: str) -> None:
    with changed(path, name, value) as each, pytest.raises(MappingError, match=message) as caught:
        require_conformity(each.graph, each.model, each.keys, shape_of(each), "tiny.tar")
    assert str(caught.value).startswith("tiny.tar: the network does not compute what the released graph says")


def test_two_changes_are_told_as_two() -> None:
    with changed("backbone.conv1.bn", "eps", 1e-3), changed("backbone.conv2.bn", "eps", 1e-4) as each:
        found = check_conformity(each.graph, each.model, each.keys, shape_of(each))
    assert [(difference.path, difference.attribute) for difference in found.mismatches] == [
        ("backbone.conv1.bn", "eps"),
        ("backbone.conv2.bn", "eps"),
    ]


def test_an_order_of_concatenation_counts_and_that_of_a_sum_does_not() -> None:
    class Joined(nn.Module):
        def __init__(self, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.first, self.second, self.join = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), join

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.join(self.first(x), self.second(x))

    def differences(one: Callable, other: Callable) -> int:
        return len(
            compare_traces(*(trace_module(Joined(join).eval(), (1, 3, 4, 4)) for join in (one, other))).mismatches
        )

    assert differences(lambda a, b: torch.cat([a, b], 1), lambda a, b: torch.cat([b, a], 1)) == 2
    assert differences(lambda a, b: a + b, lambda a, b: b + a) == 0
    assert differences(lambda a, b: a - b, lambda a, b: b - a) == 2


# ---- the same thing written in several ways ----------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [
    (lambda x: nn.functional.hardsigmoid(x), lambda x: torch.clamp(x / 6 + 0.5, 0, 1)),
    (lambda x: torch.clamp(0.2 * x + 0.5, 0, 1), lambda x: (x * 0.2 + 0.5).clamp(0.0, 1.0)),
    (lambda x: x.flatten(2).transpose(1, 2), lambda x: x.permute(0, 2, 3, 1).reshape(1, 20, 3)),
    (lambda x: x.reshape(1, 3, 20)[:, 1], lambda x: x.unbind(1)[1].flatten(1)),
    (lambda x: nn.functional.adaptive_avg_pool2d(x, 1), lambda x: x.mean((2, 3), keepdim=True)),
    (lambda x: nn.functional.interpolate(x, scale_factor=2.0), lambda x: nn.functional.interpolate(x, size=(8, 10))),
    (lambda x: x.softmax(-1), lambda x: nn.functional.softmax(x, dim=3)),
    (lambda x: x * 2 * 3, lambda x: 6 * x),
    (lambda x: nn.functional.dropout(x, 0.5, training=False) * 1.0, lambda x: x.contiguous()),
    (lambda x: nn.functional.avg_pool2d(x, 2), lambda x: nn.functional.avg_pool2d(x, 2, 2, count_include_pad=False)),
])  # fmt: skip
def test_the_same_is_the_same_however_it_is_written(one: Callable, other: Callable) -> None:
    assert differing(one, other) == 0


@pytest.mark.parametrize(("one", "other"), [
    (lambda x: nn.functional.hardsigmoid(x), lambda x: torch.clamp(0.2 * x + 0.5, 0, 1)),
    (lambda x: x.reshape(1, 20, 3), lambda x: x.flatten(2).transpose(1, 2)),
    (lambda x: x.softmax(-1), lambda x: x.softmax(1)),
    (lambda x: x * 2, lambda x: x * 2.01),
    (lambda x: nn.functional.avg_pool2d(x, 3, 1, 1), lambda x: nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
    (lambda x: nn.functional.interpolate(x, size=(8, 10)), lambda x: nn.functional.interpolate(x, size=(8, 10), mode="bilinear")),
    (lambda x: nn.functional.leaky_relu(x, 0.1), lambda x: nn.functional.leaky_relu(x, 0.2)),
    (lambda x: nn.functional.pad(x, (0, 1)), lambda x: nn.functional.pad(x, (1, 0))),
])  # fmt: skip
def test_what_is_nearly_the_same_is_not(one: Callable, other: Callable) -> None:
    assert differing(one, other) > 0


def differing(one: Callable, other: Callable) -> int:
    class Function(nn.Module):
        def __init__(self, function: Callable) -> None:
            super().__init__()
            self.function, self.anchor = function, nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.function(self.anchor(x))

    return len(compare_traces(*(trace_module(Function(each).eval(), (1, 3, 4, 5)) for each in (one, other))).mismatches)


def test_what_happens_in_place_happens() -> None:
    def changed(function: Callable, **given: bool) -> Callable:
        def run(x: torch.Tensor) -> torch.Tensor:
            function(x, **given)
            return x

        return run

    assert differing(changed(nn.functional.relu, inplace=True), torch.relu) == 0
    assert differing(changed(torch.relu_), torch.relu) == 0
    assert differing(changed(torch.relu), torch.relu) == 1
    assert differing(changed(lambda x: x.add_(x)), lambda x: x + x) == 0
    assert differing(changed(lambda x: x.__iadd__(x)), lambda x: x + x) == 0


def test_why_a_graph_takes_no_input_is_told_in_one_line() -> None:
    each = own()
    with pytest.raises(MappingError) as caught:
        check_conformity(each.graph, each.model, each.keys, (2, 4, 32, 100))
    message = str(caught.value)
    assert message.startswith(
        "the released graph takes no input of [2, 4, 32, 100]: an input of [2, 4, 32, 100] and a "
    )
    assert "\n" not in message
    assert "While executing" not in message


def test_tensors_that_are_gone_are_not_mistaken_for_later_ones() -> None:
    """Their identities are given away again, here at once."""

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchor = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            lost = [id(self.anchor(x).relu()) for _ in range(50)]
            made = [torch.from_numpy(np.ones(1)) for _ in range(50)]  # which is no call that is written down
            assert {*lost} & {*map(id, made)}
            return made

    outputs = trace_module(Forgetful().eval(), (1, 3, 4, 5)).outputs
    assert {output.source.kind for output in outputs} == {"constant"}


def test_threads_may_trace_what_they_share() -> None:
    model, places = create_model("cls_mobilenet_v3").eval(), []

    def trace_often() -> None:
        for _ in range(10):
            places.append([step.where for step in trace_module(model, (2, 3, 48, 192)).steps])

    threads = [threading.Thread(target=trace_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 40
    assert all(each == places[0] for each in places)
    assert not any("forward" in module.__dict__ for module in model.modules())


# ---- what may be written in several ways -------------------------------------------------------------------------


class OverTime(nn.Module):
    """A convolution over time and its norm, as PyTorch has them."""

    def __init__(self, **changes: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 6, 5, **{"stride": 2, "padding": 2, "dilation": 1, "groups": 3} | changes)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x.flatten(2)))


class OverOneRow(OverTime):
    """The same as Paddle has it, with a convolution over an image of one row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, row = self.conv.weight.unsqueeze(2), x.flatten(2).unsqueeze(2)
        y = nn.functional.conv2d(row, weight, self.conv.bias, (1, 2), (0, 2), 1, 3).squeeze(2)
        norm = self.norm
        return nn.functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def compared(one: nn.Module, other: nn.Module) -> list[str]:
    found = compare_traces(*(trace_module(each.eval(), (2, 3, 4, 5)) for each in (one, other)))
    return [each.attribute for each in found.mismatches]


def test_a_convolution_over_time_is_one_over_an_image_of_one_row() -> None:
    assert compared(OverOneRow(), OverTime()) == []
    changes = {"stride": 1, "padding": 1, "dilation": 2, "groups": 1}
    for name, value in changes.items():
        assert name in compared(OverOneRow(), OverTime(**{name: value}))


def test_how_a_pool_rounds_matters_where_it_has_a_stride() -> None:
    assert compared(nn.MaxPool2d(2, 1, ceil_mode=True), nn.MaxPool2d(2, 1)) == []
    assert compared(nn.MaxPool2d(2, 2, ceil_mode=True), nn.MaxPool2d(2, 2)) == ["ceil_mode"]
