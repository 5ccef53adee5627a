"""Exports: each network in each format does what the module does at any size; what does not is not written."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, fx, nn

from paddle2torch.architectures import create_model, list_models
from paddle2torch.architectures.registry import get
from paddle2torch.cli import main
from paddle2torch.converter.cli.export import FORMATS as OFFERED
from paddle2torch.converter.mapping.rules import to_torch
from paddle2torch.converter.parity.inputs import text_case
from paddle2torch.converter.release import export
from paddle2torch.converter.release.export import FORMATS, Exported, export_model, write_export
from paddle2torch.converter.support.errors import MissingPackageError, OutputError, ParityError
from paddle2torch.converter.tasks import Batch, Task, find_task, tasks
from support.checkpoints import random_tensors
from support.recipe import weights

# Smaller than what users' models are compared on.
SMALL_CASES = {
    "det": (Batch(1, 128), Batch(3, 64, 96), Batch(1, 224, 160)),
    "rec": (Batch(1, 160), Batch(3, 117), Batch(1, 64)),
    "cls": (Batch(1, 192), Batch(3, 117), Batch(1, 64)),
}
RECURRENT, SMALLEST = "rec_mobilenet_v3_bilstm_ctc", "cls_mobilenet_v3"
# The others take a minute, and the layers of most are in these too.
QUICK = [(name, format) for name in list_models() for format in FORMATS if "mobilenet" in name and format != "pt2"]
QUICK += [(name, "pt2") for name in (RECURRENT, SMALLEST, "det_mobilenet_v3_rsefpn")]
FOUR = "cls_pp_lcnet_page"  # of four classes, where the labels below are two
SLOW = [(name, kind) for name in list_models() for kind in FORMATS if (name, kind) not in QUICK and name != FOUR]

LABELS = {"cls": ["0 °", '"180" é\n あ']}

Run = Callable[..., Result]


@cache
def network(name: str) -> nn.Module:
    """With weights whose answers depend on the image; few classes."""
    parameters = {"classes": 11} if get(name).task == "rec" else {}
    shapes = {key: array.shape for key, array in random_tensors(name, **parameters).items()}
    model = create_model(name, **parameters)
    model.load_state_dict(to_torch(weights(shapes), get(name), parameters).state)
    return model.eval()


def record(name: str, **changes: Any) -> dict[str, Any]:
    """What a conversion would say of such a network."""
    entry = get(name)
    return {
        "name": name, "task": entry.task, "architecture": name, "parameters": {}, "labels": LABELS.get(entry.task),
        "preprocessing": entry.preprocessing.to_json(), "source": {"file": "made.up", "sha256": "0" * 64},
    } | changes  # fmt: skip


def exported(name: str, format: str, model: nn.Module | None = None, **changes: Any) -> Exported:
    """A new export, compared on the small cases."""
    task, preprocessing = get(name).task, get(name).preprocessing
    cases = [text_case(find_task(task), preprocessing, batch) for batch in SMALL_CASES[task]]
    return export_model(model or network(name), record(name, **changes), format, cases)


@cache
def known(name: str, format: str) -> Exported:
    """An export that several tests look at."""
    return exported(name, format)


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


# ---- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "format"), QUICK)
def test_network_does_the_same_at_other_sizes(name: str, format: str) -> None:
    assert len(known(name, format).comparisons) == 3


@pytest.mark.parametrize(("name", "format"), SLOW)
@pytest.mark.usefixtures("mirror")
def test_large_network_does_the_same_at_other_sizes(name: str, format: str) -> None:
    assert len(exported(name, format).comparisons) == 3


@pytest.mark.parametrize("name", ["ch_PP-OCRv3_det", "ch_ppocr_mobile_v2.0_cls", "french_mobile_v2.0_rec"])
def test_released_model_is_exported_to_every_format(run: Run, mirror: Path, name: str, tmp_path: Path) -> None:
    formats = [word for format in FORMATS for word in ("--format", format)]
    result = run("export", name, *formats, "--mirror", mirror, "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}{f.suffix}" for f in FORMATS.values())


@pytest.mark.parametrize("task", tasks().values(), ids=lambda task: task.name)
def test_sizes_compared_are_none_that_were_traced(task: Task) -> None:
    assert task.traced.count not in {batch.count for batch in task.exported}
    assert len({batch.count for batch in task.exported}) == 2
    sizes = {(batch.height, batch.width) for batch in task.exported}
    assert len(sizes - {(task.traced.height, task.traced.width)}) == 3


class Both(NamedTuple):
    refined: Tensor
    mean: Tensor


class Twice(nn.Module):
    """A network with two outputs, which have names or none."""

    def __init__(self, model: nn.Module, named: bool, spoilt: float = 0.0) -> None:
        super().__init__()
        self.model, self.named, self.spoilt = model, named, spoilt

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.model(x)
        both = y, 0.5 * y + self.spoilt
        return Both(*both) if self.named else both


@pytest.mark.parametrize("format", FORMATS)
def test_several_outputs_are_exported_by_their_names(format: str) -> None:
    file = exported(SMALLEST, format, Twice(network(SMALLEST), named=True))
    case = text_case(find_task("cls"), get(SMALLEST).preprocessing, Batch(1, 192))
    with torch.no_grad():
        first, second = FORMATS[format].load(file.content)(case.array)
    assert np.allclose(first, 2 * second)
    if format == "onnx":
        onnx = pytest.importorskip("onnx")
        assert [each.name for each in onnx.load_from_string(file.content).graph.output] == ["refined", "mean"]


def test_outputs_without_names_are_numbered_or_called_as_the_metadata_say() -> None:
    onnx = pytest.importorskip("onnx")
    model = Twice(network(SMALLEST), named=False)
    for names, said in ((["output_1", "output_2"], {}), (["a", "b"], {"outputs": ["a", "b"]})):
        file = onnx.load_from_string(exported(SMALLEST, "onnx", model, **said).content)
        assert [each.name for each in file.graph.output] == names


def test_every_output_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "torchscript", lambda model: Twice(model.model.model, named=False, spoilt=1e-3))
    with pytest.raises(ParityError, match="error .* allowed"):
        exported(SMALLEST, "torchscript", Twice(network(SMALLEST), named=False))


def test_command_line_offers_every_format() -> None:
    assert tuple(FORMATS) == OFFERED


def test_module_is_left_as_it_was() -> None:
    model = create_model(SMALLEST).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    exported(SMALLEST, "torchscript", model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("format", FORMATS)
def test_a_graph_module_is_exported_like_any_other(format: str) -> None:
    graph = fx.symbolic_trace(network(SMALLEST))
    assert exported(SMALLEST, format, graph).error == known(SMALLEST, format).error


def test_pt2_keeps_an_lstm_whole_and_its_decomposition_comes_back() -> None:
    operator = torch.ops.aten.lstm.input
    program = torch.export.load(io.BytesIO(known(RECURRENT, "pt2").content))
    assert [node.target for node in program.graph.nodes].count(operator) == 1
    assert {kernel.__module__ for kernel in operator.py_kernels.values()} == {"torch._decomp.decompositions"}


def test_onnx_has_the_lstm_as_an_operator_and_dropped_the_threshold_branch() -> None:
    onnx = pytest.importorskip("onnx")
    recogniser = onnx.load_from_string(known(RECURRENT, "onnx").content)
    onnx.checker.check_model(recogniser, full_check=True)
    assert [node.op_type for node in recogniser.graph.node].count("LSTM") == 2
    assert [entry.version for entry in recogniser.opset_import] == [17]
    axes = [dim.dim_param or dim.dim_value for dim in recogniser.graph.output[0].type.tensor_type.shape.dim]
    assert axes == ["batch", "steps", 11]
    detector = onnx.load_from_string(known("det_mobilenet_v3_dbfpn", "onnx").content)
    assert [tensor.name for tensor in detector.graph.initializer if "thresh" in tensor.name] == []


@pytest.mark.parametrize(("name", "format"), [(RECURRENT, "onnx"), (SMALLEST, "onnx"), (SMALLEST, "pt2")])
def test_same_network_gives_the_same_bytes(name: str, format: str) -> None:
    assert exported(name, format).content == known(name, format).content


@pytest.mark.parametrize("format", FORMATS)
def test_file_tells_nothing_about_the_machine_that_made_it(format: str) -> None:
    content = known(SMALLEST, format).content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    folders = [str(Path(module.__file__).parents[1]).encode() for module in (torch, export)]
    assert [folder for folder in folders if folder in content] == []


# ---- what the file says of itself --------------------------------------------------------------------------------


def read_onnx(path: Path) -> str:
    onnx = pytest.importorskip("onnx")
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["paddle2torch"]


def read_torchscript(path: Path) -> str:
    files = {"paddle2torch.json": ""}
    torch.jit.load(path, _extra_files=files)
    return files["paddle2torch.json"]


def read_pt2(path: Path) -> str:
    files = {"paddle2torch.json": ""}
    torch.export.load(path, extra_files=files)
    return files["paddle2torch.json"]


READERS = {"onnx": read_onnx, "torchscript": read_torchscript, "pt2": read_pt2}


@pytest.mark.parametrize("format", FORMATS)
def test_file_describes_itself(format: str, tmp_path: Path) -> None:
    path = write_export(known(SMALLEST, format), tmp_path)
    assert json.loads(READERS[format](path)) == record(SMALLEST)


def test_onnx_has_the_labels_where_rapidocr_looks_for_them() -> None:
    onnx = pytest.importorskip("onnx")
    labels = ["blank", *"abcdefghi", " "]
    with_labels = onnx.load_from_string(exported(RECURRENT, "onnx", labels=labels).content)
    without = onnx.load_from_string(known(RECURRENT, "onnx").content)
    assert {e.key: e.value for e in with_labels.metadata_props}["character"].splitlines() == labels[1:]
    assert [entry.key for entry in without.metadata_props] == ["paddle2torch"]


# ---- what is not written -----------------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, format: str, change: Callable[[nn.Module], nn.Module]) -> None:
    """The exporter of a format sees another module than the one that is compared."""
    chosen = FORMATS[format]

    def build(model: nn.Module, example: Tensor, metadata: Mapping[str, Any]) -> bytes:
        return chosen.build(change(model), example, metadata)

    monkeypatch.setitem(FORMATS, format, replace(chosen, build=build))


class Wrapped(nn.Module):
    """A network with something after it."""

    def __init__(self, model: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.after = model, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(x))


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
@pytest.mark.parametrize(("after", "message"), [
    (lambda y: y + 1e-3, "error .* allowed"),
    (lambda y: y[:, :1], "another shape"),
    (lambda y: y / 0, "NaN or infinity"),
    (lambda y: y.flip(1), "error|the module says"),
])  # fmt: skip
def test_a_file_that_does_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, format: str, after: Callable[[Tensor], Tensor], message: str
) -> None:
    spoil(monkeypatch, format, lambda model: Wrapped(model, after))
    with pytest.raises(ParityError, match=f"cls_mobilenet_v3: as {format} .* text, 1 x 48 x 192: .*({message})"):
        exported(SMALLEST, format)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_holds_for_the_traced_width_only_is_refused(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    class Fixed(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x.reshape(-1, 3, 48, 96))

    spoil(monkeypatch, format, Fixed)
    with pytest.raises((ParityError, OutputError), match="nothing was written"):
        exported(SMALLEST, format)


def test_other_answers_are_refused_even_where_the_figures_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes as good as even: an error within what is allowed turns the answer round."""
    even = Wrapped(network(SMALLEST), lambda y: y * 0 + torch.tensor([0.5 + 1e-6, 0.5 - 1e-6]))
    spoil(monkeypatch, "torchscript", lambda model: Wrapped(model, lambda y: y.flip(1)))
    with pytest.raises(ParityError, match=r'the module says 0 ° \(0\.5000\), the file "180" '):
        exported(SMALLEST, "torchscript", even)


def test_answers_that_rounding_changes_are_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision the second class wins by less than single precision can tell."""
    tie = Wrapped(network(SMALLEST), lambda y: y * 0 + torch.tensor([0.5, 0.5], dtype=y.dtype) + _hair(y.dtype))
    spoil(monkeypatch, "torchscript", lambda model: Wrapped(model, lambda y: y + torch.tensor([0.0, 1e-7])))
    assert exported(SMALLEST, "torchscript", tie).error < 1e-6


def _hair(dtype: torch.dtype) -> Tensor:
    return torch.tensor([0.0, 1e-12], dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingPackageError, match=rf"needs the package {package}, .*pip install 'paddle2torch\[export\]'"
    ):
        exported(SMALLEST, "onnx")


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The embedded sample in every format, as a user would export it who shows all warnings; and the folder."""
    folder = tmp_path_factory.mktemp("exported")
    formats = [word for format in FORMATS for word in ("--format", format)]
    command = [sys.executable, "-W", "default", "-m", "paddle2torch", "export", "embedded_rec", *formats]
    return subprocess.run([*command, "--output", folder], capture_output=True, text=True, check=False), folder


def test_embedded_sample_through_the_command_line(
    embedded: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    result, folder = embedded
    paths = {format: folder / f"embedded_rec{kind.suffix}" for format, kind in FORMATS.items()}
    assert (result.returncode, result.stdout.splitlines()) == (0, [str(path) for path in paths.values()]), result.stderr
    assert result.stderr.count("does the same as the module on 3 batches") == len(FORMATS)
    case = text_case(find_task("rec"), get(RECURRENT).preprocessing, Batch(1, 200))
    for format, path in paths.items():
        said = json.loads(READERS[format](path))
        assert (said["architecture"], len(said["labels"]), len(said["source"]["sha256"])) == (RECURRENT, 63, 64)
        with torch.no_grad():
            assert FORMATS[format].load(path.read_bytes())(case.array)[0].shape == (1, 50, 63)


def test_user_sees_no_warning_of_the_exporters(
    embedded: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    ours = ("converting", "embedded_rec", "writing", "  ")
    assert [line for line in embedded[0].stderr.splitlines() if not line.startswith(ours)] == []


def test_converted_files_ours_and_others_are_taken(run: Run, tmp_path: Path) -> None:
    run("convert", "embedded_rec", "--output", tmp_path)
    torch.save(network(SMALLEST).state_dict(), tmp_path / "theirs.pth")
    for ours in ("embedded_rec.pth", "embedded_rec.safetensors"):
        out = tmp_path / f"out_of_{ours}"
        result = run("export", tmp_path / ours, tmp_path / "theirs.pth", "--format", "torchscript", "--output", out)
        assert result.exit_code == 0, result.stderr
        assert "no labels" not in result.stderr  # a classifier needs none
        assert len(json.loads(read_torchscript(out / "embedded_rec.torchscript"))["labels"]) == 63
    said = json.loads(read_torchscript(out / "theirs.torchscript"))
    assert (said["architecture"], said["labels"], said["source"]["file"]) == (SMALLEST, None, "theirs.pth")


@pytest.mark.parametrize(("name", "content", "code", "message"), [
    ("none.pth", None, 3, "there is no such file"),
    ("text.pth", b"hello", 7, "not a file that torch.load"),
    ("text.safetensors", b"hello", 7, "not a safetensors file"),
])  # fmt: skip
def test_files_that_are_no_weights_are_refused(
    run: Run, tmp_path: Path, name: str, content: bytes | None, code: int, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run("export", tmp_path / name, "--output", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_when_the_file_disagrees(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spoil(monkeypatch, "onnx", lambda model: Wrapped(model, lambda y: y * 1.01))
    result = run("export", "embedded_rec", "--output", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (9, "")
    assert (
        "embedded_rec: as onnx it does not compute what the module computes: text, 1 x 32 x 320: error" in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_output_is_near_the_modules_own(tmp_path: Path) -> None:
    """By hand, without the package's own comparison."""
    ort = pytest.importorskip("onnxruntime")
    path = write_export(known(RECURRENT, "onnx"), tmp_path)
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 32, 81)).astype(np.float32)
    with torch.no_grad():
        ours = network(RECURRENT)(torch.from_numpy(x)).numpy()
    (theirs,) = ort.InferenceSession(path).run(["probabilities"], {"x": x})
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
