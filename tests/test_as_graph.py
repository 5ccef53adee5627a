"""Inference models by their graph alone: read, converted, loaded again, compared with Paddle."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import fx, nn

from paddle2torch.architectures import load_model, matching, optimize, registry
from paddle2torch.architectures.loading import HEADER_KEY
from paddle2torch.architectures.records import Size
from paddle2torch.cli import main
from paddle2torch.converter.conversion.as_graph import convert_graph
from paddle2torch.converter.conversion.choice import Choice
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.formats.pdmodel import Operator
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.parity.verify import verify
from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.support.errors import MappingError, ParityError, SourceError
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.graphs import EMBEDDED

PIR = EMBEDDED / "embedded_rec_pir.tar"
IMAGES = torch.rand(2, 3, 32, 100, generator=torch.Generator().manual_seed(0))


def source(text: str = "embedded_rec", kind: str = "inference") -> Source:
    return load_source(text, load_zoo(), Fetcher(offline=True), kind)


def unpacked(folder: Path, *left_out: str) -> Path:
    """The embedded inference model as a folder, without some of its files."""
    with tarfile.open(EMBEDDED / "embedded_rec_infer.tar") as archive:
        archive.extractall(folder, filter="data")
    (model,) = folder.iterdir()
    for name in left_out:
        (model / name).unlink()
    return model


# ---- names without an .info --------------------------------------------------------------------------------------


def test_without_an_info_the_tensors_are_the_same_and_the_way_is_told(tmp_path: Path) -> None:
    bare = source(str(unpacked(tmp_path, "inference.pdiparams.info")))
    found, expected = convert(bare), convert(source())
    assert found.state.keys() == expected.state.keys()
    assert all(torch.equal(tensor, expected.state[key]) for key, tensor in found.state.items())
    assert "named by their places in the graph" in " ".join(found.notes)
    assert artifacts.metadata(found)["source"]["named_by"] == "graph"
    assert artifacts.metadata(expected)["source"]["named_by"] == "info"


def test_paddle_3s_form_converts_to_the_same_file(tmp_path: Path) -> None:
    found, expected = convert(source(str(PIR))), convert(source())
    assert all(torch.equal(tensor, expected.state[key]) for key, tensor in found.state.items())


def test_inspect_names_the_tensors_by_the_graph_too() -> None:
    result = CliRunner().invoke(main, ["inspect", str(PIR)])
    assert result.exit_code == 0, result.output
    assert "by the places in the graph" in result.output
    assert "rec_mobilenet_v3_bilstm_ctc\n" in result.output


# ---- conformity, at every conversion -----------------------------------------------------------------------------


def test_a_network_that_is_not_its_graph_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ReLU for a Hardswish leaves every key matching."""

    build = registry.Architecture.build_empty

    def wrong(architecture: registry.Architecture, parameters: dict[str, object]) -> nn.Module:
        model = build(architecture, parameters)
        swishes = [path for path, module in model.named_modules() if isinstance(module, nn.Hardswish)]
        model.set_submodule(swishes[3], nn.ReLU())
        return model

    monkeypatch.setattr(registry.Architecture, "build_empty", wrong)
    matching._empty.cache_clear()
    try:
        with pytest.raises(MappingError, match=r"embedded_rec_infer\.tar: .*\n.*relu.*hardswish"):
            convert(source())
        assert convert(source(kind="trained")).state  # which carries no graph to compare with
    finally:
        matching._empty.cache_clear()  # the next test is not to find the wrong one


# ---- as graphs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["embedded_rec", str(PIR)], ids=["pdmodel", "pir"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_three_files_load_and_compute_the_same(text: str, suffix: str, tmp_path: Path) -> None:
    conversion = convert_graph(source(text), fetcher=Fetcher(offline=True))
    paths = {path.suffix: path for path in artifacts.write(conversion, tmp_path)}
    assert paths.keys() == {".pth", ".safetensors", ".json"}
    if suffix == ".safetensors":
        paths[".json"].unlink()  # one file is enough
    model = load_model(paths[suffix])
    assert isinstance(model, fx.GraphModule)
    assert model.metadata["architecture"] == "graph"
    expected = convert(source()).build()
    with torch.inference_mode():
        assert torch.allclose(model(IMAGES), expected(IMAGES), rtol=0, atol=1e-5)


def test_tensors_have_their_structured_names_where_they_are_known() -> None:
    known, unknown = convert_graph(source()), convert_graph(source(str(PIR)))
    assert known.state.keys() >= {
        "backbone.conv1.conv.weight",
        "head.fc.bias",
        "neck.encoder.lstm.weight_ih_l1_reverse",
    }
    assert not any(key.startswith("backbone.") for key in unknown.state)
    assert "names of the program's variables" in " ".join(unknown.notes)


def test_the_graph_is_stored_as_plain_data(tmp_path: Path) -> None:
    _, tensors, record = artifacts.write(convert_graph(source()), tmp_path)
    with safe_open(tensors, "pt") as file:
        header = json.loads(file.metadata()[HEADER_KEY])
    assert header == json.loads(record.read_text(encoding="utf-8"))
    assert header["graph"]["format"] == "paddle2torch-graph"
    assert header["parameters"] == {"classes": 63}


def test_a_damaged_graph_is_one_clear_error(tmp_path: Path) -> None:
    weights, _, record = artifacts.write(convert_graph(source()), tmp_path)
    content = json.loads(record.read_text(encoding="utf-8"))
    content["graph"]["nodes"][3]["type"] = "os.system"
    record.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"os\.system"):
        load_model(weights)


def test_a_training_checkpoint_has_no_graph() -> None:
    with pytest.raises(SourceError, match=r"has no graph, .* give an inference model"):
        convert_graph(source(kind="trained"))


def test_uncovered_operators_are_listed_and_nothing_is_converted() -> None:
    model = source()
    strange = [Operator("deformable_conv", each.inputs, each.outputs, {}) for each in model.program.operators[3:4]]
    program = replace(model.program, operators=(*model.program.operators[:3], *strange, *model.program.operators[4:]))
    with pytest.raises(MappingError, match=r"embedded_rec_infer\.tar: its program has 1 operators .* deformable_conv"):
        convert_graph(replace(model, program=program))


def test_what_is_no_network_for_text_is_refused() -> None:
    model = source()
    early = model.program.operators[4].outputs
    fetch = Operator("fetch", {"X": next(iter(early.values()))}, {"Out": ("fetch",)}, {"col": 0})
    program = replace(model.program, operators=(*model.program.operators[:-1], fetch))
    with pytest.raises(MappingError, match=r"its program returns \[1, \d+, \d+, \d+\] .* known are the maps"):
        convert_graph(replace(model, program=program))


def test_a_model_that_fits_no_architecture_is_told_of_the_way_by_its_graph() -> None:
    model = source()
    other = replace(model, tensors={name.replace("backbone", "trunk"): a for name, a in model.tensors.items()})
    with pytest.raises(MappingError, match="--as-graph converts an inference model by its graph alone"):
        convert(other)
    checkpoint = source(kind="trained")
    other = replace(checkpoint, tensors={name.replace("neck", "nick"): a for name, a in checkpoint.tensors.items()})
    with pytest.raises(MappingError) as caught:
        convert(replace(other, model=None))
    assert "--as-graph" not in str(caught.value)


def test_a_stated_size_that_the_network_does_not_take_is_not_followed(mirror: Path) -> None:
    """The released classifier states 32 × 100, which is too low for it."""
    model = load_source("ch_ppocr_mobile_v2.0_cls", load_zoo(), Fetcher(mirror=str(mirror)))
    conversion = convert_graph(model)
    assert conversion.network.task == "cls"
    assert conversion.network.preprocessing.size == Size("height_padded", 48, 192)
    assert conversion.labels.labels == ["0", "180"]


@pytest.mark.parametrize("text", ["embedded_rec", str(PIR)], ids=["pdmodel", "pir"])
def test_paddle_proves_it_layer_by_layer(text: str) -> None:
    with PaddleWorker() as worker:
        result = verify(convert_graph(source(text), fetcher=Fetcher(offline=True)), worker=worker)
    assert result.passed, result.failures
    assert len(result.worst) == 90
    assert result.worst[0].difference.error < 1e-12


def test_a_graph_is_no_proof_of_itself() -> None:
    with pytest.raises(ParityError, match="cannot be verified by the same graph"):
        verify(convert_graph(source()), without_paddle=True)


def test_the_command_converts_by_the_graph(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["convert", "embedded_rec", "--as-graph", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "operators of the model's own program" in result.output
    with torch.inference_mode():
        output = load_model(tmp_path / "embedded_rec.pth")(IMAGES)
    assert np.allclose(output.sum(-1), 1, atol=1e-5)


def test_what_was_converted_by_the_graph_reads_with_a_dictionary(tmp_path: Path) -> None:
    _, weights, _ = artifacts.write(convert_graph(source(str(PIR))), tmp_path)
    dictionary = tmp_path / "dict.txt"
    dictionary.write_bytes((EMBEDDED / "embedded_dict.txt").read_bytes())
    arguments = [
        "read",
        str(EMBEDDED / "sample.png"),
        "--det",
        "none",
        "--rec",
        str(weights),
        "--dict",
        str(dictionary),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("PaddleOCR2026")


def test_what_was_converted_by_the_graph_is_exported_and_optimised(tmp_path: Path) -> None:
    _, weights, _ = artifacts.write(convert_graph(source(), fetcher=Fetcher(offline=True)), tmp_path)
    model = load_model(weights)
    with torch.inference_mode():
        assert torch.allclose(optimize(model)(IMAGES), model(IMAGES), rtol=0, atol=1e-4)
    arguments = ["export", str(weights), "--format", "onnx", "--output", str(tmp_path / "exported")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "exported" / "embedded_rec.onnx").is_file()


def test_what_the_zoo_lists_as_a_graph_becomes_one_by_itself(tmp_path: Path) -> None:
    place = tmp_path / "openatom" / "openatom_rec_svtrv2_ch_infer.tar"
    place.parent.mkdir()
    place.write_bytes((EMBEDDED / "embedded_rec_infer.tar").read_bytes())
    source = load_source("openatom_rec_svtrv2_ch", load_zoo(), Fetcher(mirror=tmp_path))
    assert Choice().convert(source).network.name == "graph"
    named = Choice(architecture="rec_mobilenet_v3_bilstm_ctc").convert(source)
    assert (named.name, named.network.name) == ("openatom_rec_svtrv2_ch", "rec_mobilenet_v3_bilstm_ctc")
    place.with_name("openatom_rec_svtrv2_ch_train.tar").write_bytes((EMBEDDED / "embedded_rec_train.tar").read_bytes())
    trained = load_source("openatom_rec_svtrv2_ch", load_zoo(), Fetcher(mirror=tmp_path), "trained")
    assert Choice().convert(trained).network.name == "rec_mobilenet_v3_bilstm_ctc"
