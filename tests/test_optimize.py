"""Networks rewritten for serving: the same results, at any size, and what becomes of each layer."""

from __future__ import annotations

import copy
import operator
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from paddle2torch.architectures import create_model, list_models, load_model, optimize
from paddle2torch.architectures.layers import Hardsigmoid02, SqueezeExcite
from paddle2torch.architectures.registry import architectures, get
from paddle2torch.architectures.serving import OptimizedModel, kernels
from paddle2torch.architectures.serving import model as serving
from paddle2torch.architectures.serving.algebra import GatedConvolution, UpsampledConvolution
from paddle2torch.converter.conversion.as_graph import convert_graph
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.graph.build import build_module
from paddle2torch.converter.parity.compare import measure
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from paddle2torch.reading import Reader
from paddle2torch.reading.network import from_module, torch_run
from support.graphs import EMBEDDED, embedded, pair

EXACT, ROUNDING = 1e-12, 2e-6
HEIGHTS = {entry.name: entry.preprocessing.size.height or 64 for entry in architectures()}
NEEDS_BFLOAT16 = pytest.mark.skipif(not serving.has_bfloat16(), reason="no instructions for bfloat16")
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
SAMPLE, SAYS = EMBEDDED / "sample.png", (EMBEDDED / "sample.txt").read_text().strip()


def with_statistics(model: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms as training might leave them."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.running_mean is not None:
            layer.running_mean.normal_(0, 0.3)
            # Small enough for epsilon to count.
            layer.running_var.uniform_(0.01, 2)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.3)
    return model.eval()


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(create_model(name, **({"classes": 11} if get(name).task == "rec" else {})))


def images(name: str, count: int = 2, width: int = 64) -> Tensor:
    shape = (count, 3, HEIGHTS[name], width)
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def results(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = model(x)
    return [found] if isinstance(found, Tensor) else list(found)


def apart(model: nn.Module, served: nn.Module, x: Tensor) -> float:
    """The largest or mean relative error, as parity measures it; the reference in double precision."""
    references = results(copy.deepcopy(model).double(), x.double())
    return max(
        measure(reference.numpy(), found.double().numpy()).error
        for reference, found in zip(references, results(served, x), strict=True)
    )


def layers(module: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(layer, kind) for layer in module.modules())


def calls(module: fx.GraphModule) -> list[tuple[str, object]]:
    """What a graph calls, without the names of its values."""
    return [(node.op, node.target) for node in module.graph.nodes]


# ---- all networks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A network, the optimised one, and by how much single precision changes the former's results."""

    name: str
    model: nn.Module
    served: OptimizedModel
    rounding: float


@pytest.fixture(scope="module", params=list_models())
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    model = network(request.param)
    yield Case(request.param, model, optimize(model), apart(model, model, images(request.param)))


def test_algebra_is_exact_in_double_precision(case: Case) -> None:
    double = copy.deepcopy(case.model).double()
    allowed = max(EXACT, 8 * case.rounding * 2.0**-29)  # random weights make one of the networks lose digits
    assert apart(double, optimize(double), images(case.name).double()) <= allowed


def test_single_precision_is_within_rounding_at_every_size(case: Case) -> None:
    for count, width in ((2, 64), (1, 96)):
        assert apart(case.model, case.served, images(case.name, count, width)) <= max(ROUNDING, 4 * case.rounding)


def test_every_batch_norm_goes(case: Case) -> None:
    gone = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Conv2d, nn.Linear, nn.Identity, nn.Dropout, Hardsigmoid02)
    assert not [layer for layer in case.served.network.modules() if isinstance(layer, gone)]
    assert not [key for key in case.served.state_dict() if "thresh" in key]


def test_given_network_stays_as_it_is(case: Case) -> None:
    fresh = network(case.name).state_dict()
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in case.model.state_dict().items())


def test_output_is_contiguous_and_has_no_gradient(case: Case) -> None:
    found = case.served(images(case.name))
    assert type(found) is type(case.model(images(case.name)))
    for output in results(case.served, images(case.name)):
        assert output.is_contiguous()
        assert not output.requires_grad


def test_copies_do_and_answer_the_same(case: Case) -> None:
    expected = results(case.served, images(case.name))
    for other in (pickle.loads(pickle.dumps(case.served)), copy.deepcopy(case.served)):
        assert calls(other.network) == calls(case.served.network)
        assert all(map(torch.equal, results(other, images(case.name)), expected))


@NEEDS_BFLOAT16
@pytest.mark.parametrize("name", ["det_mobilenet_v3_rsefpn", "rec_mobilenet_v3_bilstm_ctc", "cls_mobilenet_v3"])
def test_bfloat16_is_near_and_returns_what_it_is_given(name: str) -> None:
    model, x = network(name), images(name)
    halved = optimize(model, dtype=torch.bfloat16)
    assert EXACT < apart(model, halved, x) <= 0.05
    assert halved(x).dtype == torch.float32
    assert torch.equal(pickle.loads(pickle.dumps(halved))(x), halved(x))


def test_input_that_the_network_refuses_is_refused_in_its_words() -> None:
    detector = optimize(network("det_mobilenet_v3_dbfpn"))
    for each in (detector, pickle.loads(pickle.dumps(detector))):
        with pytest.raises(ValueError, match="multiples of 32, not 40 × 96"):
            each(torch.zeros(1, 3, 40, 96))
    with pytest.raises(ValueError, match="left 3 rows"):
        optimize(network("rec_mobilenet_v1_enhance_svtr_ctc"))(torch.zeros(1, 3, 96, 512))


# ---- copies, and what modules are otherwise asked for ------------------------------------------------------------


def classifier() -> nn.Module:
    model = network("cls_mobilenet_v3")
    model.metadata = {
        "task": "cls",
        "labels": ["0", "180"],
        "preprocessing": get("cls_mobilenet_v3").preprocessing.to_json(),
        "parameters": {},
    }
    return model


def test_another_process_answers_the_same(tmp_path: Path) -> None:
    served, x = optimize(classifier()), images("cls_mobilenet_v3")
    (tmp_path / "served").write_bytes(pickle.dumps((served, x, served(x))))
    code = (
        "import pickle, sys; served, x, y = pickle.load(open(sys.argv[1], 'rb')); "
        "assert (served(x) - y).abs().max() <= 1e-6 and served.metadata['labels'] == ['0', '180'], served(x)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "served"], check=True)


def test_copy_of_a_copy_and_file_of_torch_save(tmp_path: Path) -> None:
    served, x = optimize(classifier()), images("cls_mobilenet_v3")
    torch.save(served, tmp_path / "served.pt")
    loaded = torch.load(tmp_path / "served.pt", weights_only=False)
    for other in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(copy.deepcopy(served)))):
        assert torch.equal(other(x), served(x))
        assert (other.task, other.metadata) == ("cls", served.metadata)


def test_pickle_has_the_weights_once() -> None:
    model = network("rec_mobilenet_v3_bilstm_ctc")
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert len(pickle.dumps(optimize(model))) <= 1.2 * weights


def test_it_stays_in_evaluation_mode_and_precision_on_the_cpu() -> None:
    served = optimize(network("cls_mobilenet_v3"))
    assert not served.train().training
    for same in (served.to("cpu"), served.float(), served.cpu(), served.share_memory()):
        assert same is served
    for move in (served.double, served.half, lambda: served.to("meta"), lambda: served.to(torch.bfloat16)):
        with pytest.raises(ValueError, match=r"stays in torch\.float32 on the CPU, and cannot be moved to"):
            move()


def test_what_cannot_be_optimised_is_told() -> None:
    model = network("cls_mobilenet_v3")
    with pytest.raises(ValueError, match=r"is on meta, and this is for the CPU: give model\.cpu\(\)"):
        optimize(copy.deepcopy(model).to("meta"))
    with pytest.raises(ValueError, match="is optimized already"):
        optimize(optimize(model))
    with pytest.raises(ValueError, match=r"torch\.float16 is no precision to serve in: give dtype=torch\.float32 or"):
        optimize(copy.deepcopy(model).half())
    assert optimize(copy.deepcopy(model).half(), dtype=torch.float32).dtype == torch.float32


def test_the_allocator_is_left_alone_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(serving, "keep_freed_memory", lambda: asked.append(True))
    optimize(nn.ReLU())
    assert not asked
    optimize(nn.ReLU(), keep_memory=True)
    assert asked == [True]


# ---- reading with them -------------------------------------------------------------------------------------------


def frozen(model: nn.Module) -> nn.Module:
    """As torch.jit leaves a module for serving: without parameters."""
    return torch.jit.freeze(torch.jit.trace(model, torch.zeros(1, 3, 48, 192)).eval())


def exported(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (torch.zeros(2, 3, 48, 192),)).module()


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "optimized": optimize,
    "optimized for float64": lambda model: optimize(model, dtype=torch.float64),
    "optimized of float64": lambda model: optimize(model.double()),
    "float64": lambda model: model.double(),
    "float16": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "optimized, then compiled": lambda model: torch.compile(optimize(model), backend="eager"),
    "in parallel": nn.DataParallel,
    "traced": lambda model: torch.jit.trace(model, torch.zeros(1, 3, 48, 192)),
    "exported": exported,
}


@pytest.mark.parametrize("known", [True, False], ids=["with metadata", "recognised"])
@pytest.mark.parametrize("way", WAYS)
def test_reading_takes_modules_however_they_were_made(way: str, known: bool) -> None:
    model, x = classifier() if known else network("cls_mobilenet_v3"), images("cls_mobilenet_v3", width=192).numpy()
    expected = torch_run(model)(x)
    found = from_module(WAYS[way](copy.deepcopy(model)))
    assert (found.task, list(found.labels or ())) == ("cls", ["0", "180"])
    answers = found.run(x)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected, atol=0.02 if "float16" in way else 1e-5)


def test_a_module_without_parameters_runs() -> None:
    model, x = network("cls_mobilenet_v3"), images("cls_mobilenet_v3", width=192).numpy()
    np.testing.assert_allclose(torch_run(frozen(model))(x), torch_run(model)(x), atol=1e-5)


def test_the_first_of_two_maps_is_read() -> None:
    name = "det_pphgnet_small_lkpan"
    model, x = network(name), images(name, 1)
    for each in (model, optimize(model)):
        np.testing.assert_allclose(torch_run(each)(x.numpy()), results(model, x)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("conversion", [convert, convert_graph])
def test_an_optimised_recogniser_reads(conversion: Callable[..., Conversion], tmp_path: Path) -> None:
    fetcher = Fetcher(offline=True)
    source = load_source("embedded_rec", load_zoo(), fetcher)
    model = load_model(artifacts.write(conversion(source, fetcher=fetcher), tmp_path)[1])
    for served in (optimize(model), pickle.loads(pickle.dumps(optimize(model)))):
        (line,) = Reader(det=None, rec=served, dictionary=EMBEDDED / "embedded_dict.txt").read(SAMPLE)
        assert line.text == SAYS


# ---- single rewrites ---------------------------------------------------------------------------------------------


class Sum(nn.Module):
    """The sum of a convolution and of a layer, then perhaps an activation."""

    def __init__(self, layer: nn.Module, after: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        self.conv, self.layer, self.after = nn.Conv2d(4, 4, 1), layer, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(F.relu(self.conv(x)) + self.layer(x))


class PlusAverage(nn.Module):
    """A convolution and an average of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(4, 4, 3, 1, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.pool(x)


class Broadcast(nn.Module):
    """Two layers' outputs of different sizes, by a function."""

    def __init__(self, layer: nn.Module, other: nn.Module, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.other, self.function = layer, other, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x), self.other(x))


class Gated(nn.Module):
    """A convolution whose output is added to its gated self; a view of it is read afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(4, 8, 1), SqueezeExcite(8, Hardsigmoid02)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        pixels = y.flatten(2)
        return (y + self.gate(y)).flatten(2) - pixels


class Pyramid(nn.Module):
    """A map, and two coarser ones that are added or concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.fine(x), self.coarse(x)
        total = fine + F.interpolate(coarse, scale_factor=2.0)
        quarter = F.avg_pool2d(x, 4)
        return torch.cat([F.interpolate(quarter, scale_factor=4.0, mode="nearest"), total, x], 1)


class ConvolvedPyramid(nn.Module):
    """3×3 convolutions of a sum and of a concatenation with upsampled maps."""

    def __init__(self, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(4, 6, 1, bias=False), nn.Conv2d(4, 6, 3, 2, 1)
        self.tiny = nn.Conv2d(4, 3, 4, 4)
        self.gate = gate or nn.Identity()
        self.total, self.head = nn.Conv2d(6, 5, 3, 1, 1), nn.Conv2d(14, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.coarse(x)
        total = self.total(self.gate(self.fine(x)) + F.interpolate(coarse, scale_factor=2.0))
        tiny = F.interpolate(self.tiny(x), scale_factor=4.0)
        return F.relu(self.head(torch.cat([tiny, F.interpolate(coarse, scale_factor=2.0), total], 1)))


class Averaged(nn.Module):
    """A 1×1 convolution and the average of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(4, 8, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.cat([y, y - self.pool(y)], 1)


def plus_upsampled(x: Tensor, coarse: Tensor) -> Tensor:
    return x + F.interpolate(coarse, scale_factor=2.0)


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
    "upsampling once": lambda: sequence(nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU()),
    "upsampling twice": lambda: sequence(
        nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3, 3), nn.Sigmoid()
    ),
    "linear and norm": lambda: sequence(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.ReLU()),
    "linear and norm of rows": lambda: sequence(nn.Linear(8, 4), nn.BatchNorm2d(4)),
    "linear and norm of steps": lambda: sequence(nn.Flatten(1, 2), nn.Linear(8, 32), nn.BatchNorm1d(32)),
    "norm over time": lambda: sequence(nn.Conv2d(4, 8, 1), nn.Flatten(2), nn.BatchNorm1d(8)),
    "convolution and norm over time": lambda: sequence(nn.Flatten(2), nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU()),
    "norm without statistics": lambda: sequence(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)),
    "weighted sum": lambda: Broadcast(nn.Conv2d(4, 4, 1), nn.ReLU(), lambda x, y: torch.add(x, y, alpha=2)),
    "sum with a mean": lambda: Broadcast(nn.Conv2d(4, 4, 1), nn.ReLU(), lambda x, y: x + torch.mean(y, (2, 3), True)),
    "sum with one channel": lambda: Broadcast(nn.Conv2d(4, 8, 1), nn.Conv2d(4, 1, 1), lambda x, y: x + y),
    "one channel, many gates": lambda: Broadcast(
        nn.Conv2d(4, 1, 3), sequence(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 8, 1)), lambda x, y: x * y
    ),
    "convolved sum with an average": lambda: sequence(
        Broadcast(sequence(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 2, 2), plus_upsampled),
        nn.Conv2d(4, 2, 3, 1, 1),
    ),
    "convolved sum with one channel": lambda: sequence(
        Broadcast(nn.Conv2d(4, 1, 1), nn.Conv2d(4, 4, 2, 2), plus_upsampled), nn.Conv2d(4, 2, 3, 1, 1)
    ),
    "convolved sum without neighbours": lambda: sequence(
        Broadcast(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 2, 2), plus_upsampled), nn.Conv2d(4, 2, 1)
    ),
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
def test_single_rewrite(form: str) -> None:
    torch.manual_seed(0)
    model, x = with_statistics(SINGLE[form]()), torch.randn(3, 4, 8, 8)
    fast = optimize(model)
    assert apart(model, fast, x) <= ROUNDING
    assert torch.equal(fast(x), optimize(model)(x.contiguous(memory_format=torch.channels_last)))
    double = copy.deepcopy(model).double()
    assert apart(double, optimize(double), x.double()) <= EXACT


@pytest.mark.parametrize(("layer", "left"), [
    (nn.Conv2d(4, 4, 3, 1, 1), 0),
    (nn.Conv2d(4, 4, 1), 0),
    (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)), 1),
    (nn.Conv2d(4, 1, 1), 1),
])  # fmt: skip
def test_sum_of_maps_of_one_size_is_part_of_a_kernel(layer: nn.Module, left: int) -> None:
    fast = optimize(Sum(layer, F.relu))
    assert [target for _, target in calls(fast.network)].count(operator.add) == left


def test_convolved_pyramid_upsamples_nothing_and_reads_few_channels() -> None:
    fast = optimize(ConvolvedPyramid(SqueezeExcite(6, Hardsigmoid02)).eval()).network
    assert layers(fast, UpsampledConvolution) == 3
    assert layers(fast, GatedConvolution) == 1
    assert F.interpolate not in [target for _, target in calls(fast)]


def test_detector_upsamples_only_what_two_layers_read() -> None:
    fast = optimize(network("det_mobilenet_v3_dbfpn")).network
    assert layers(fast, UpsampledConvolution) == 4
    assert [target for _, target in calls(fast)].count(F.interpolate) == 2


@pytest.mark.parametrize(("between", "kept"), [(4, 1), (1, 2)])
def test_pixels_of_pixels_are_joined_where_that_is_less_work(between: int, kept: int) -> None:
    fast = optimize(sequence(nn.Conv2d(4, between, 1), nn.Conv2d(between, 8, 1)))
    assert layers(fast, kernels.Pointwise) == kept


def test_average_and_what_follows_is_one_kernel() -> None:
    fast = optimize(sequence(nn.Conv2d(8, 8, 1), SqueezeExcite(8, nn.Hardsigmoid)))
    assert [type(layer) for layer in fast.network.children()] == [kernels.Pointwise, kernels.Gate]


def test_kernels_are_called_without_their_modules() -> None:
    fast = optimize(network("cls_mobilenet_v3"))
    direct = fast._run.__self__
    assert layers(fast, kernels.Kernel) > 30
    assert not [layer for layer in direct.modules() if isinstance(layer, (kernels.Kernel, kernels.Gate))]


def test_layer_that_is_called_twice_stays_as_it_is() -> None:
    conv, norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    model = with_statistics(sequence(conv, norm, conv, nn.ReLU()))
    assert apart(model, optimize(model), torch.randn(2, 4, 8, 8)) <= ROUNDING


def test_gate_works_in_place() -> None:
    model = sequence(nn.Conv2d(4, 8, 1), SqueezeExcite(8, nn.Hardsigmoid))
    assert ("call_method", "mul_") in calls(optimize(model).network)


def test_value_that_is_read_afterwards_is_not_overwritten() -> None:
    model = with_statistics(Gated())
    assert ("call_method", "mul_") not in calls(optimize(model).network)


class PlusUpsampled(nn.Module):
    """A half of its input's channels, and an upsampled average of the other."""

    def forward(self, x: Tensor) -> Tensor:
        fine, rest = x.chunk(2, 1)
        return fine + F.interpolate(F.avg_pool2d(rest, 2), scale_factor=2.0)


@pytest.mark.parametrize("model", [sequence(SqueezeExcite(4, nn.Hardsigmoid)), PlusUpsampled()])
def test_input_is_not_written_to(model: nn.Module) -> None:
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    given = x.clone()
    assert apart(model.eval(), optimize(model), given) <= ROUNDING
    assert torch.equal(given, x)


# ---- options and refusals ----------------------------------------------------------------------------------------


def test_graph_of_a_released_program() -> None:
    graph = build_module(embedded().graph(), tensors=embedded().tensors())
    model, x = pair(EMBEDDED / "embedded_rec_infer.tar").model, images("rec_mobilenet_v3_bilstm_ctc")
    fast = optimize(graph)
    assert nn.BatchNorm2d not in {type(layer) for layer in fast.modules()}
    # Its weights are trained, and single precision itself is this far off.
    assert apart(model, fast, x) <= 3 * apart(model, graph, x)
    assert apart(graph, optimize(copy.deepcopy(graph).double()), x.double()) <= EXACT


@NEEDS_COMPILER
def test_compiled() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), SqueezeExcite(8, Hardsigmoid02))
    model = with_statistics(sequence(*layers))
    served = optimize(model, compile=True)
    for size in ((2, 3, 16, 24), (1, 3, 32, 40)):
        x = torch.randn(size)
        assert apart(model, served, x) <= ROUNDING
        assert torch.equal(pickle.loads(pickle.dumps(served))(x), served(x))


def test_precision_that_the_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "has_bfloat16", lambda: False)
    with pytest.raises(ValueError, match="no instructions for it"):
        optimize(nn.ReLU(), dtype=torch.bfloat16)


def test_without_onednn_the_algebra_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model, x = network("det_mobilenet_v3_rsefpn"), images("det_mobilenet_v3_rsefpn")
    served = optimize(model)
    assert not layers(served, kernels.Kernel)
    assert not layers(served, nn.BatchNorm2d)
    assert apart(model, served, x) <= ROUNDING
    assert torch.equal(pickle.loads(pickle.dumps(served))(x), served(x))


def test_network_that_looks_at_values() -> None:
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[: int(x.sum())]

    with pytest.raises(ValueError, match=r"Looks cannot be traced by torch\.fx"):
        optimize(Looks())
