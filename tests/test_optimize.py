"""Networks rearranged for serving: the same results, at any size, and what becomes of each layer."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paddle2torch.architectures import create_model, list_models, optimize
from paddle2torch.architectures.layers import Hardsigmoid02, SqueezeExcite
from paddle2torch.architectures.registry import architectures, get
from paddle2torch.architectures.serving import optimize as serving
from paddle2torch.converter.graph.build import build_module
from paddle2torch.converter.parity.compare import measure
from support.graphs import EMBEDDED, embedded, pair

EXACT, ROUNDING = 1e-12, 2e-6
HEIGHTS = {entry.name: entry.preprocessing.size.height or 64 for entry in architectures()}
NEEDS_BFLOAT16 = pytest.mark.skipif(not serving.has_bfloat16(), reason="no instructions for bfloat16")


def with_statistics(model: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms as training might leave them."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_(0, 0.3)
            # Small enough for epsilon to count.
            layer.running_var.uniform_(0.01, 2)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.3)
    return model.eval()


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(create_model(name, **({"classes": 11} if get(name).task == "rec" else {})))


@cache
def served(name: str) -> nn.Module:
    return optimize(network(name))


def image(name: str, count: int = 2, width: int = 64) -> torch.Tensor:
    shape = (count, 3, HEIGHTS[name], width)
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def apart(model: nn.Module, served: nn.Module, x: torch.Tensor) -> float:
    """The largest or mean relative error, as parity measures it; the reference in double precision."""
    with torch.no_grad():
        reference = copy.deepcopy(model).double()(x.double())
    return measure(reference.numpy(), served(x).detach().double().numpy()).error


# ---- all networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_models())
def test_algebra_is_exact_in_double_precision(name: str) -> None:
    double = copy.deepcopy(network(name)).double()
    assert apart(double, optimize(double), image(name).double()) <= EXACT


@pytest.mark.parametrize("name", list_models())
def test_single_precision_is_within_rounding_at_every_size(name: str) -> None:
    for count, width in ((2, 64), (1, 96)):
        assert apart(network(name), served(name), image(name, count, width)) <= ROUNDING


@NEEDS_BFLOAT16
@pytest.mark.parametrize("name", ["det_mobilenet_v3_rsefpn", "rec_mobilenet_v3_bilstm_ctc", "cls_mobilenet_v3"])
def test_bfloat16_is_near_and_returns_what_it_is_given(name: str) -> None:
    halved = optimize(network(name), dtype=torch.bfloat16)
    assert EXACT < apart(network(name), halved, image(name)) <= 0.05
    assert halved(image(name)).dtype == torch.float32


@pytest.mark.parametrize("name", list_models())
def test_every_batch_norm_goes_and_the_given_network_stays(name: str) -> None:
    before = {key: tensor.clone() for key, tensor in network(name).state_dict().items()}
    graph = served(name).network
    layers = {type(graph.get_submodule(node.target)) for node in graph.graph.nodes if node.op == "call_module"}
    assert not layers & {nn.BatchNorm2d, nn.Conv2d, nn.Linear, nn.Identity, nn.Dropout, Hardsigmoid02}
    after = network(name).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", list_models())
def test_output_is_contiguous_and_has_no_gradient(name: str) -> None:
    output = served(name)(image(name))
    assert output.is_contiguous()
    assert not output.requires_grad


@pytest.mark.parametrize("name", list_models("det"))
def test_detector_loses_its_threshold_branch_and_enlarges_nothing(name: str) -> None:
    assert not [key for key in served(name).state_dict() if "thresh" in key]
    assert not [node for node in served(name).network.graph.nodes if node.target is F.interpolate]


def test_input_that_the_network_refuses_is_refused_in_its_words() -> None:
    with pytest.raises(ValueError, match="multiples of 32, not 40 × 96"):
        served("det_mobilenet_v3_dbfpn")(torch.zeros(1, 3, 40, 96))
    with pytest.raises(ValueError, match="left 3 rows"):
        served("rec_mobilenet_v1_enhance_svtr_ctc")(torch.zeros(1, 3, 96, 512))


def test_it_is_copied_and_its_task_and_account_are_kept() -> None:
    model = copy.deepcopy(network("cls_mobilenet_v3"))
    model.metadata = {"labels": ["0", "180"]}
    served = optimize(model)
    assert (served.task, served.metadata) == ("cls", {"labels": ["0", "180"]})
    x = image("cls_mobilenet_v3")
    torch.testing.assert_close(copy.deepcopy(served)(x), served(x), rtol=0, atol=0)


# ---- single rearrangements ---------------------------------------------------------------------------------------


class Sum(nn.Module):
    """x + layer(x), then perhaps an activation."""

    def __init__(self, layer: nn.Module, after: Callable[[torch.Tensor], torch.Tensor] = lambda y: y) -> None:
        super().__init__()
        self.layer, self.after = layer, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(F.relu(x) + self.layer(x))


class PlusAverage(nn.Module):
    """A convolution and an average of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(4, 4, 3, 1, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.pool(x)


class Gated(nn.Module):
    """A convolution whose output is added to its gated self; a view of it is read afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(4, 8, 1), SqueezeExcite(8, Hardsigmoid02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        pixels = y.flatten(2)
        return (y + self.gate(y)).flatten(2) - pixels


class Pyramid(nn.Module):
    """A map, and two coarser ones that are added or concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine, coarse = self.fine(x), self.coarse(x)
        total = fine + F.interpolate(coarse, scale_factor=2.0)
        quarter = F.avg_pool2d(x, 4)
        return torch.cat([F.interpolate(quarter, scale_factor=4.0, mode="nearest"), total, x], 1)


class ConvolvedPyramid(nn.Module):
    """3×3 convolutions of a sum and of a concatenation with enlarged maps."""

    def __init__(self, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(4, 6, 1, bias=False), nn.Conv2d(4, 6, 3, 2, 1)
        self.tiny = nn.Conv2d(4, 3, 4, 4)
        self.gate = gate or nn.Identity()
        self.total, self.head = nn.Conv2d(6, 5, 3, 1, 1), nn.Conv2d(14, 4, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        coarse = self.coarse(x)
        total = self.total(self.gate(self.fine(x)) + F.interpolate(coarse, scale_factor=2.0))
        tiny = F.interpolate(self.tiny(x), scale_factor=4.0)
        return F.relu(self.head(torch.cat([tiny, F.interpolate(coarse, scale_factor=2.0), total], 1)))


class Averaged(nn.Module):
    """A 1×1 convolution and the average of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(4, 8, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.cat([y, y - self.pool(y)], 1)


def sequence(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


SINGLE: dict[str, Callable[[], nn.Module]] = {
    "convolution with bias": lambda: sequence(nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU()),
    "grouped convolution": lambda: sequence(nn.Conv2d(4, 8, 3, 1, 1, groups=2, bias=False), nn.BatchNorm2d(8)),
    "depthwise, dilated": lambda: sequence(nn.Conv2d(4, 4, 3, 1, 2, 2, 4), nn.BatchNorm2d(4), nn.Hardswish()),
    "padding by name": lambda: sequence(nn.Conv2d(4, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU()),
    "padding by reflection": lambda: sequence(nn.Conv2d(4, 8, 3, 1, 1, padding_mode="reflect"), nn.BatchNorm2d(8)),
    "norm without weights": lambda: sequence(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8, affine=False)),
    "norm with another epsilon": lambda: sequence(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8, eps=0.1)),
    "norm first": lambda: sequence(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, 1, 1)),
    "transposed convolution": lambda: sequence(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), nn.BatchNorm2d(6), nn.ReLU()),
    "transposed, overlapping": lambda: sequence(nn.ConvTranspose2d(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU()),
    "grouped, transposed": lambda: sequence(nn.ConvTranspose2d(4, 6, 2, 2, groups=2), nn.BatchNorm2d(6), nn.ReLU()),
    "enlarging once": lambda: sequence(nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU()),
    "enlarging twice": lambda: sequence(
        nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3, 3), nn.Sigmoid()
    ),
    "linear and norm": lambda: sequence(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.ReLU()),
    "linear and norm of rows": lambda: sequence(nn.Linear(8, 4), nn.BatchNorm2d(4)),
    "linear and norm of steps": lambda: sequence(nn.Flatten(1, 2), nn.Linear(8, 32), nn.BatchNorm1d(32)),
    "norm over time": lambda: sequence(nn.Conv2d(4, 8, 1), nn.Flatten(2), nn.BatchNorm1d(8)),
    "dropout": lambda: sequence(nn.Conv2d(4, 8, 1), nn.Dropout(0.5), nn.Identity(), nn.ReLU()),
    "hard sigmoid of slope 0.2": lambda: sequence(nn.Conv2d(4, 8, 3), Hardsigmoid02()),
    "hard sigmoid alone": lambda: sequence(Hardsigmoid02(), nn.Conv2d(4, 8, 3)),
    "residual sum": lambda: Sum(sequence(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)), F.relu),
    "residual sum of pixels": lambda: Sum(sequence(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), F.relu),
    "residual sum, then hard swish": lambda: Sum(nn.Conv2d(4, 4, 1), F.hardswish),
    "sum of an average": lambda: Sum(sequence(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1))),
    "average added": PlusAverage,
    "sum with itself": lambda: Sum(nn.Identity(), lambda y: y + y),
    "gate": Gated,
    "squeeze and excite": lambda: sequence(nn.Conv2d(4, 8, 1), SqueezeExcite(8, nn.Hardsigmoid), nn.Conv2d(8, 4, 1)),
    "pyramid": Pyramid,
    "convolved pyramid": ConvolvedPyramid,
    "convolved pyramid, gated": lambda: ConvolvedPyramid(SqueezeExcite(6, Hardsigmoid02)),
    "averaged": Averaged,
    "convolution of one without bias": lambda: sequence(
        nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 6, 3, 1, 1), nn.BatchNorm2d(6)
    ),
    "pixels of pixels": lambda: sequence(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU()),
    "pixels of pixels without bias": lambda: sequence(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)),
    "pixels of fewer pixels": lambda: sequence(nn.Conv2d(4, 1, 1), nn.Conv2d(1, 8, 1)),
    "convolution of one with bias": lambda: sequence(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 6, 3, 1, 1), nn.ReLU()),
}  # fmt: skip


@pytest.mark.parametrize("form", SINGLE)
def test_single_rearrangement(form: str) -> None:
    torch.manual_seed(0)
    model, x = with_statistics(SINGLE[form]()), torch.randn(3, 4, 8, 8)
    fast = optimize(model)
    assert apart(model, fast, x) <= ROUNDING
    assert fast(x).is_contiguous()
    double = copy.deepcopy(model).double()
    assert apart(double, optimize(double), x.double()) <= EXACT


def test_convolved_pyramid_enlarges_nothing_and_reads_few_channels() -> None:
    fast = optimize(ConvolvedPyramid(SqueezeExcite(6, Hardsigmoid02)).eval())
    kinds = [type(layer) for layer in fast.modules()]
    assert kinds.count(serving.EnlargedConvolution) == 3
    assert kinds.count(serving.GatedConvolution) == 1
    assert not [node for node in fast.network.graph.nodes if node.target is F.interpolate]


@pytest.mark.parametrize(("between", "kernels"), [(4, 1), (1, 2)])
def test_pixels_of_pixels_are_joined_where_that_is_less_work(between: int, kernels: int) -> None:
    fast = optimize(sequence(nn.Conv2d(4, between, 1), nn.Conv2d(between, 8, 1)))
    assert len(fast.network.graph.find_nodes(op="call_module")) == kernels


def test_average_and_what_follows_is_one_kernel() -> None:
    fast = optimize(sequence(nn.Conv2d(8, 8, 1), SqueezeExcite(8, nn.Hardsigmoid)))
    kinds = [type(layer) for layer in fast.network.children()]
    assert kinds == [serving.Pixelwise, serving.Gate]


def test_kernels_are_called_without_their_modules() -> None:
    fast = optimize(network("cls_mobilenet_v3"))
    kernels = [layer for layer in fast.modules() if isinstance(layer, serving.Kernel)]
    (direct,) = fast._run
    called = [node.target for node in direct.graph.nodes if node.op == "call_function"]
    assert kernels
    assert all(kernel.call in called for kernel in kernels)
    assert not [layer for layer in direct.modules() if isinstance(layer, serving.Kernel)]


def test_layer_that_is_called_twice_stays_as_it_is() -> None:
    conv, norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    model = with_statistics(sequence(conv, norm, conv, nn.ReLU()))
    assert apart(model, optimize(model), torch.randn(2, 4, 8, 8)) <= ROUNDING


def test_gate_works_in_place() -> None:
    model = sequence(nn.Conv2d(4, 8, 1), SqueezeExcite(8, nn.Hardsigmoid))
    assert serving.operator.imul in [node.target for node in optimize(model).network.graph.nodes]


def test_value_that_is_read_afterwards_is_not_overwritten() -> None:
    model = with_statistics(Gated())
    calls = [node.target for node in optimize(model).network.graph.nodes]
    assert serving.operator.imul not in calls


class PlusEnlarged(nn.Module):
    """A half of its input's channels, and an enlarged average of the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine, rest = x.chunk(2, 1)
        return fine + F.interpolate(F.avg_pool2d(rest, 2), scale_factor=2.0)


@pytest.mark.parametrize("model", [sequence(SqueezeExcite(4, nn.Hardsigmoid)), PlusEnlarged()])
def test_input_is_not_written_to(model: nn.Module) -> None:
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    given = x.clone()
    assert apart(model.eval(), optimize(model), given) <= ROUNDING
    assert torch.equal(given, x)


# ---- options and refusals ----------------------------------------------------------------------------------------


def test_graph_of_a_released_program() -> None:
    graph = build_module(embedded().graph(), tensors=embedded().tensors())
    model, x = pair(EMBEDDED / "embedded_rec_infer.tar").model, image("rec_mobilenet_v3_bilstm_ctc")
    fast = optimize(graph)
    assert nn.BatchNorm2d not in {type(layer) for layer in fast.modules()}
    # Its weights are trained, and single precision itself is this far off.
    assert apart(model, fast, x) <= 3 * apart(model, graph, x)
    assert apart(graph, optimize(copy.deepcopy(graph).double()), x.double()) <= EXACT


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_compiled() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), SqueezeExcite(8, Hardsigmoid02))
    model = with_statistics(sequence(*layers))
    served = optimize(model, compile=True)
    for size in ((2, 3, 16, 24), (1, 3, 32, 40)):
        assert apart(model, served, torch.randn(size)) <= ROUNDING


def test_precision_that_the_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "has_bfloat16", lambda: False)
    with pytest.raises(ValueError, match="no instructions for it"):
        optimize(nn.ReLU(), dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"torch\.float16: give one of torch\.float32"):
        optimize(nn.ReLU(), dtype=torch.float16)


def test_without_onednn_the_algebra_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model, x = network("det_mobilenet_v3_rsefpn"), image("det_mobilenet_v3_rsefpn")
    served = optimize(model)
    assert not {type(layer) for layer in served.modules()} & {serving.Fused, serving.Rows, nn.BatchNorm2d}
    assert apart(model, served, x) <= ROUNDING


def test_network_that_looks_at_values() -> None:
    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[: int(x.sum())]

    with pytest.raises(ValueError, match=r"Looks cannot be traced by torch\.fx"):
        optimize(Looks())


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, json, architectures; print(json.dumps('torch' in sys.modules))"
    assert json.loads(subprocess.check_output([sys.executable, "-c", code])) is False
