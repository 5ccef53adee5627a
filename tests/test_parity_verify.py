"""Results for whole models: what passes, what fails and how it is told, and which weights can be compared at all."""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paddle2torch.architectures.layers import Hardsigmoid02
from paddle2torch.converter.containers.archive import ModelFiles
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.formats.pdiparams import read_pdiparams
from paddle2torch.converter.formats.pdparams import write_pdparams
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.parity.inputs import Case, default_cases
from paddle2torch.converter.parity.programs import find_reference
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.parity.report import format_table, to_json, write_report
from paddle2torch.converter.parity.result import LEAST_RESPONSE, TOLERANCE, ParityResult
from paddle2torch.converter.parity.verify import verify
from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import MappingError, OutputError, SourceError
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.zoo.catalog import Zoo, load_zoo
from paddle2torch.converter.zoo.download import Fetcher

pytestmark = pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")

SAMPLE = "embedded_rec"


@cache
def zoo() -> Zoo:
    return load_zoo()


@cache
def sample(kind: str = "inference") -> Conversion:
    """The embedded recogniser, converted."""
    fetcher = Fetcher(offline=True)
    return convert(load_source(SAMPLE, zoo(), fetcher, kind), fetcher=fetcher)


@cache
def short_cases() -> tuple[Case, ...]:
    """One line of text, small enough for many runs."""
    architecture = sample().network
    return tuple(default_cases(find_task(architecture.task), architecture.preprocessing)[1:2])


@pytest.fixture(scope="module")
def worker() -> Iterator[PaddleWorker]:
    with PaddleWorker() as started:
        yield started


@pytest.fixture(scope="module")
def passed(worker: PaddleWorker) -> ParityResult:
    """The result for the sample as it is."""
    return verify(sample(), worker=worker)


@pytest.fixture
def verify_changed(worker: PaddleWorker, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ParityResult]:
    """Verify the sample after a change to the module."""

    def verify_changed(change: Callable[[nn.Module], object], cases: tuple[Case, ...] | None = None) -> ParityResult:
        model = copy.deepcopy(sample().build())
        with torch.no_grad():
            change(model)
        monkeypatch.setattr(Conversion, "build", lambda self: model)
        return verify(sample(), cases=cases or short_cases(), worker=worker)

    return verify_changed


# ---- what passes -------------------------------------------------------------------------------------------------


def test_the_sample_passes_with_room_to_spare(passed: ParityResult) -> None:
    assert passed.passed, passed.failures
    assert passed.worst[0].difference.error < TOLERANCE / 1e3
    assert max(row.single.max_error for row in passed.worst) < 1e-4
    assert min(case.response for case in passed.cases) > LEAST_RESPONSE
    assert all(answer.agrees for case in passed.cases for answer in case.answers)


def test_every_layer_with_parameters_is_compared(passed: ParityResult) -> None:
    compared = {row.layer.module for row in passed.worst}
    owners = {key.rpartition(".")[0] for key in sample().origins}
    assert compared == owners
    assert [row.layer.module for row in passed.worst if row.layer.pre_activation] == ["head.fc"]


@pytest.mark.parametrize("kind", ["trained"])
def test_a_checkpoint_runs_through_the_program_of_the_inference_model(kind: str, worker: PaddleWorker) -> None:
    conversion = sample(kind)
    reference = find_reference(conversion, zoo(), Fetcher(offline=True))
    result = verify(conversion, reference=reference, cases=short_cases(), worker=worker)
    assert result.passed, result.failures
    assert result.reference != result.source


def test_a_fine_tuned_model_with_other_classes_runs_through_it_too(tmp_path: Path, worker: PaddleWorker) -> None:
    drawn = np.random.default_rng(0)
    tensors = dict(sample().tensors)
    for name in ("head.fc.weight", "head.fc.bias"):
        tensors[name] = drawn.normal(size=(*tensors[name].shape[:-1], 11)).astype(np.float32)
    (tmp_path / "mine.pdparams").write_bytes(write_pdparams(tensors))
    conversion = convert(load_source(str(tmp_path / "mine.pdparams"), zoo(), Fetcher(offline=True)))
    result = verify(conversion, reference=sample().source, cases=short_cases(), worker=worker)
    assert result.passed, result.failures
    assert result.worst[0].difference.error > 0
    assert result.cases[0].layers[-1].shape[-1] == 11


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_converted_file_is_checked_in_place_of_the_conversion(
    suffix: str, tmp_path: Path, worker: PaddleWorker
) -> None:
    path = tmp_path / f"weights{suffix}"
    # Half the files in circulation come without the counters.
    state = {key: tensor.clone() for key, tensor in sample().state.items() if "num_batches" not in key}
    store = torch.save if suffix == ".pth" else lambda tensors, file: save_file(tensors, file)
    store(state, path)
    assert verify(sample(), weights=path, cases=short_cases(), worker=worker).passed
    state["backbone.conv1.bn.bias"] *= 1.01
    store(state, path)
    result = verify(sample(), weights=path, cases=short_cases(), worker=worker)
    assert result.divergence is not None
    assert result.divergence.result.layer.module == "backbone.conv1.bn"
    assert re.fullmatch("[0-9a-f]{64}", result.weights.sha256 or "")
    # The conversion itself is untouched.
    assert verify(sample(), cases=short_cases(), worker=worker).passed


EXPORT = """
import json
import sys
import paddle
from scripts.fixtures.paddle_rec_network import Recogniser

paddle.seed(3)
network = Recogniser(int(sys.argv[1]))
for name, parameter in network.named_parameters():
    if parameter.ndim == 1:  # biases of zero would hide a sum that is left out
        parameter.set_value(paddle.uniform(parameter.shape, min=0.1, max=0.9))
network.eval()
shape = paddle.static.InputSpec([None, 3, 32, None], "float32", name="x")
paddle.jit.save(network, "inference", input_spec=[shape])
with open("names.json", "w") as file:
    json.dump({parameter.name: name for name, parameter in network.state_dict().items()}, file)
"""


@pytest.fixture(scope="module")
def paddle_3_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """An `inference.json`, as Paddle 3 writes it, of the sample's architecture."""
    folder = tmp_path_factory.mktemp("paddle3")
    (folder / "export.py").write_text(EXPORT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "export.py", str(sample().network.parameters["classes"])]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    names = json.loads((folder / "names.json").read_text())
    pir, parameters = (Blob.open(folder / f"inference.{suffix}") for suffix in ("json", "pdiparams"))
    program = read_pir(pir)
    arrays = read_pdiparams(parameters, program.parameters)
    return Source(
        name="paddle3",
        kind="inference",
        path=folder,
        files=ModelFiles(folder, parameters=parameters, pir=pir),
        model=None,
        url=None,
        sha256="",
        tensors={names[variable]: array for variable, array in arrays.items()},
        program=program,
        variables={names[variable]: variable for variable in arrays},
    )


def test_a_model_of_paddle_3_runs_by_its_own_program(paddle_3_source: Source, worker: PaddleWorker) -> None:
    conversion = convert(paddle_3_source)
    result = verify(conversion, cases=short_cases(), worker=worker)
    # These weights are random, so that the output hardly depends on the image; the layers tell.
    assert result.divergence is None
    assert result.worst[0].difference.error > 0
    assert {row.layer.module for row in result.worst} == {key.rpartition(".")[0] for key in conversion.origins}


def test_other_weights_run_through_the_program_of_paddle_3(
    paddle_3_source: Source, tmp_path: Path, worker: PaddleWorker
) -> None:
    result = verify(sample(), reference=paddle_3_source, cases=short_cases(), worker=worker)
    assert result.passed, result.failures

    fewer = {name: array[..., :7] if name.startswith("head.fc") else array for name, array in sample().tensors.items()}
    (tmp_path / "fewer.pdparams").write_bytes(write_pdparams(fewer))
    conversion = convert(load_source(str(tmp_path / "fewer.pdparams"), zoo(), Fetcher(offline=True)))
    with pytest.raises(MappingError, match="give a --reference exported with the same class count"):
        verify(conversion, reference=paddle_3_source, cases=short_cases(), worker=worker)


# ---- what fails --------------------------------------------------------------------------------------------------


def test_the_first_layer_that_diverges_is_named_with_its_neighbours(
    verify_changed: Callable[..., ParityResult],
) -> None:
    module, parameter = "backbone.blocks.3.mid_se.conv1", "backbone.blocks.3.mid_se.conv1.bias"
    result = verify_changed(lambda model: model.get_parameter(parameter).mul_(1.01))
    found = result.divergence
    assert found is not None
    assert found.result.layer.module == module
    assert parameter in found.result.layer.parameters
    assert found.before is not None
    assert found.after is not None
    assert found.before.layer.module == "backbone.blocks.3.bottleneck_conv.bn"
    assert found.after.layer.module == "backbone.blocks.3.mid_se.conv2"
    assert found.before.difference.error < TOLERANCE < found.after.difference.error
    assert result.failures[0].startswith(f"{found.case.name}: first divergence at {module} (")
    assert f"before it {found.before.layer.module} has {found.before.difference.error:.1e}" in result.failures[0]


def replace_modules(old: type[nn.Module], new: Callable[[], nn.Module]) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        path = next(path for path, module in model.named_modules() if type(module) is old)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new())

    return change


def set_epsilon(model: nn.Module) -> None:
    model.get_submodule("backbone.blocks.5.linear_conv.bn").eps = 1e-3


def forget_transpose(model: nn.Module) -> None:
    weight = model.get_parameter("head.fc.weight")
    weight.copy_(weight.T.reshape(weight.shape))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(replace_modules(nn.Hardswish, nn.ReLU), id="ReLU for a Hardswish"),
        pytest.param(replace_modules(nn.ReLU, nn.Hardswish), id="Hardswish for a ReLU"),
        pytest.param(replace_modules(Hardsigmoid02, nn.Hardsigmoid), id="the other hard sigmoid"),
        pytest.param(replace_modules(nn.MaxPool2d, lambda: nn.MaxPool2d(2, ceil_mode=True)), id="ceil_mode"),
        pytest.param(set_epsilon, id="an epsilon"),
        pytest.param(forget_transpose, id="a transpose"),
    ],
)
def test_a_network_that_is_not_the_same_is_caught(
    change: Callable[[nn.Module], None], verify_changed: Callable[..., ParityResult]
) -> None:
    result = verify_changed(change)
    assert not result.passed
    assert result.divergence is not None


def test_a_wrong_end_of_the_network_is_caught_by_the_final_output(verify_changed: Callable[..., ParityResult]) -> None:
    # In training mode the head alone leaves its softmax out: every layer is right, the output is not.
    result = verify_changed(lambda model: model.head.train())
    assert result.divergence is None
    assert any("final output" in line for line in result.failures)


def test_a_layer_that_the_network_does_not_call_is_no_agreement(verify_changed: Callable[..., ParityResult]) -> None:
    def bypass(model: nn.Module) -> None:
        head = model.head
        weight, bias = head.fc.weight, head.fc.bias
        head.forward = lambda x: torch.softmax(x @ weight.to(x).T + bias.to(x), -1)

    result = verify_changed(bypass)
    assert [row.layer.module for row in result.worst if row.difference.problem] == ["head.fc"]
    assert "the module was not called" in result.failures[0]


def test_values_that_are_not_finite_fail_and_still_make_a_report(
    verify_changed: Callable[..., ParityResult], tmp_path: Path
) -> None:
    result = verify_changed(lambda model: model.get_parameter("head.fc.bias").fill_(math.nan))
    assert not result.passed
    assert "NaN or infinity in PyTorch's values" in result.failures[0]
    write_report(result, tmp_path)
    assert json.loads((tmp_path / "parity.json").read_text())["worst_error"] is None


@pytest.mark.parametrize("value", [0.0, -0.7])
def test_a_blank_image_proves_nothing(value: float, worker: PaddleWorker) -> None:
    case = short_cases()[0]
    blank = replace(case, name="blank", array=np.full_like(case.array, value))
    result = verify(sample(), cases=[blank], worker=worker)
    assert result.divergence is None
    assert [line.split(":")[:2] for line in result.failures] == [["blank", " says nothing"]]


def test_dead_weights_prove_nothing(tmp_path: Path, worker: PaddleWorker) -> None:
    tensors = {**sample().tensors, "head.fc.weight": np.zeros_like(sample().tensors["head.fc.weight"])}
    (tmp_path / "dead.pdparams").write_bytes(write_pdparams(tensors))
    conversion = convert(load_source(str(tmp_path / "dead.pdparams"), zoo(), Fetcher(offline=True)))
    result = verify(conversion, reference=sample().source, cases=short_cases(), worker=worker)
    assert "says nothing" in "".join(result.failures)


def test_the_tolerance_is_the_users(worker: PaddleWorker) -> None:
    result = verify(sample(), cases=short_cases(), tolerance=1e-19, worker=worker)
    assert result.divergence is not None


def test_every_tensor_transpose_and_epsilon_is_noticed(worker: PaddleWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    sensitivity = importlib.import_module("scripts.checks.sensitivity")
    with torch.inference_mode():
        probe = sensitivity.Probe(sample(), sample().source, worker, short_cases())
        tallies = {kind: change(probe) for kind, change in sensitivity.LOCAL_CHANGES.items()}
    assert tallies[sensitivity.SHIFTED].total == len(sample().origins)
    assert {what: error for tally in tallies.values() for what, error in tally.missed.items()} == {}


# ---- what cannot be compared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda state: state.pop("head.fc.bias"), r"1 missing \(head\.fc\.bias\)", id="missing"),
        pytest.param(lambda state: state.update(extra=torch.ones(1)), r"1 left over \(extra\)", id="left over"),
        pytest.param(
            lambda state: state.update({"head.fc.bias": torch.ones(3)}),
            r"1 of another shape \(head\.fc\.bias \[3\] ≠ \[63\]\)",
            id="another shape",
        ),
    ],
)
def test_weights_of_something_else_are_refused(
    damage: Callable[[dict[str, torch.Tensor]], object], message: str, tmp_path: Path, worker: PaddleWorker
) -> None:
    state = dict(sample().state)
    damage(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(MappingError, match=rf"weights\.pth: its tensors are not those of .*: {message}"):
        verify(sample(), weights=tmp_path / "weights.pth", cases=short_cases(), worker=worker)


def test_a_file_that_is_no_weights_is_named(tmp_path: Path, worker: PaddleWorker) -> None:
    (tmp_path / "weights.pth").write_text("no weights")
    with pytest.raises(SourceError, match=r"weights\.pth: not a file that torch\.load"):
        verify(sample(), weights=tmp_path / "weights.pth", cases=short_cases(), worker=worker)
    with pytest.raises(SourceError, match=r"other\.pth: there is no such file"):
        verify(sample(), weights=tmp_path / "other.pth", cases=short_cases(), worker=worker)


def test_a_checkpoint_without_a_program_asks_for_a_reference(worker: PaddleWorker) -> None:
    with pytest.raises(SourceError, match="is no inference model; give a folder or tarball"):
        verify(sample("trained"), cases=short_cases(), worker=worker)


def test_an_architecture_that_the_zoo_has_no_program_of_asks_for_one() -> None:
    nowhere = replace(zoo(), models={})
    with pytest.raises(SourceError, match=r"export one with PaddleOCR's.*--reference"):
        find_reference(sample("trained"), nowhere, Fetcher(offline=True))


# ---- how it is told ----------------------------------------------------------------------------------------------


def test_the_table_begins_with_the_result_and_the_worst_layer(passed: ParityResult) -> None:
    lines = format_table(passed).splitlines()
    assert lines[0].startswith(f"{passed.name}: passed, worst layer ")
    first = next(index for index, line in enumerate(lines) if line.lstrip().startswith("WORST LAYERS")) + 1
    assert [line.split()[0] for line in lines[first : first + 3]] == [row.layer.module for row in passed.worst[:3]]
    assert any(line.lstrip().startswith("before the last activation: head.fc") for line in lines)


def test_the_json_has_every_figure(passed: ParityResult) -> None:
    content = to_json(passed, "paddle2torch verify sample")
    assert content["passed"] is True
    assert content["command"] == "paddle2torch verify sample"
    assert {"torch", "paddlepaddle", "numpy", "python", "paddle2torch"} <= content["versions"].keys()
    assert re.fullmatch("[0-9a-f]{64}", content["source"]["sha256"])
    for case, batch in zip(passed.cases, content["batches"], strict=True):
        assert [layer["module"] for layer in batch["layers"]] == [row.layer.module for row in case.layers]
        assert all(layer["max_error"] is not None for layer in batch["layers"])


class _Page(HTMLParser):
    """What a page refers to, and whether its elements are closed."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(passed: ParityResult, tmp_path: Path) -> None:
    _, path = write_report(passed, tmp_path / "new" / "folder")
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert page.tags.isdisjoint({"script", "link", "iframe"})
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert len(page.sources) == sum(len(case.answers) for case in passed.cases)
    for row in passed.worst:
        assert row.layer.module in text


def test_names_from_outside_cannot_become_markup(passed: ParityResult, tmp_path: Path) -> None:
    named = replace(passed, name="<script>alert(1)</script>")
    _, path = write_report(named, tmp_path)
    assert "script" not in _Page(path.read_text(encoding="utf-8")).tags


def test_a_folder_that_cannot_be_written_is_named(passed: ParityResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="parity"):
        write_report(passed, tmp_path / "file" / "report")
