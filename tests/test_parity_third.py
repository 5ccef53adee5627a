"""The released graph as a third implementation: beside Paddle it tells who is wrong, without Paddle it stands in for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from paddle2torch.cli import main
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.parity import engines, verifier
from paddle2torch.converter.parity.inputs import Case, default_cases
from paddle2torch.converter.parity.programs import PreparedProgram
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.parity.report import format_table, to_html, to_json
from paddle2torch.converter.parity.result import ParityResult
from paddle2torch.converter.parity.verify import verify
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.graphs import EMBEDDED

LAYER = "backbone.blocks.2.expand_conv.conv"
VARIABLE_NAME = "backbone.blocks.2.expand_conv.conv.weight"


@cache
def sample() -> Conversion:
    fetcher = Fetcher(offline=True)
    return convert(load_source("embedded_rec", load_zoo(), fetcher), fetcher=fetcher)


@cache
def one_line() -> tuple[Case, ...]:
    architecture = sample().network
    return tuple(default_cases(find_task(architecture.task), architecture.preprocessing)[:1])


@pytest.fixture(scope="module")
def worker() -> Iterator[PaddleWorker]:
    with PaddleWorker() as started:
        yield started


def scale(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_submodule(LAYER).weight.mul_(1.01)


def change_module(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(sample().build())
    scale(model)
    monkeypatch.setattr(Conversion, "build", lambda self: model)


def change_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    start = engines.GraphEngine.__init__

    def changed(self: engines.GraphEngine, prepared: PreparedProgram) -> None:
        arrays = {
            name: array * 1.01 if prepared.keys[name] == VARIABLE_NAME else array
            for name, array in prepared.arrays.items()
        }
        start(self, replace(prepared, arrays=arrays))

    monkeypatch.setattr(engines.GraphEngine, "__init__", changed)


def change_paddle(monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle2torch.converter.formats.pdiparams import write_pdiparams

    def changed(self: PreparedProgram, folder: Path) -> None:
        arrays = {
            name: array * np.float32(1.01) if self.keys[name] == VARIABLE_NAME else array
            for name, array in self.arrays.items()
        }
        (folder / "inference.pdmodel").write_bytes(self.contents[0])
        (folder / "inference.pdiparams").write_bytes(write_pdiparams(arrays))

    monkeypatch.setattr(PreparedProgram, "write", changed)


def verified(worker: PaddleWorker | None, **options: object) -> ParityResult:
    return verify(sample(), cases=one_line(), worker=worker, **options)


def test_all_three_agree(worker: PaddleWorker) -> None:
    result = verified(worker)
    assert result.passed, result.failures
    assert result.worst_third < 1e-12
    assert "third implementation: worst error to either" in format_table(result)
    assert to_json(result)["worst_error_of_the_graph"] < 1e-12
    layer = to_json(result)["batches"][0]["layers"][5]
    assert layer["graph"]["pytorch"]["max_error"] < 1e-12 > layer["graph"]["paddle"]["max_error"]


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        pytest.param(change_module, "the PyTorch module stands alone", id="module"),
        pytest.param(change_graph, "the graph run by PyTorch stands alone", id="graph"),
        pytest.param(change_paddle, "Paddle stands alone", id="Paddle"),
    ],
)
def test_who_stands_alone_is_told(
    change: Callable[[pytest.MonkeyPatch], None], alone: str, worker: PaddleWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    result = verified(worker)
    assert not result.passed
    assert f"first divergence at {LAYER} " in result.failures[0]
    assert f"; {alone}, the other two agree to " in result.failures[0]
    assert alone in format_table(result)


def test_three_that_all_differ_are_told_too(worker: PaddleWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    change_graph(monkeypatch)
    model = copy.deepcopy(sample().build())
    scale(model)
    scale(model)
    monkeypatch.setattr(Conversion, "build", lambda self: model)
    assert "no two of Paddle, the graph and the module agree" in verified(worker).failures[0]


# ---- without Paddle ----------------------------------------------------------------------------------------------


@pytest.fixture
def no_paddle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Paddle was started")

    monkeypatch.setattr(PaddleWorker, "__init__", refuse)


@pytest.mark.usefixtures("no_paddle")
def test_the_graph_alone_proves_a_module() -> None:
    result = verified(None, without_paddle=True)
    assert result.passed, result.failures
    assert result.engine == "the graph"
    assert result.worst_third is None
    assert "paddlepaddle" not in result.versions
    assert "in the graph of the program, run by PyTorch against" in format_table(result)
    assert "Parity with the graph" in to_html(result)


@pytest.mark.usefixtures("no_paddle")
def test_the_graph_alone_catches_a_wrong_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    change_module(monkeypatch)
    result = verified(None, without_paddle=True)
    assert not result.passed
    assert f"first divergence at {LAYER} " in result.failures[0]


@pytest.mark.usefixtures("no_paddle")
@pytest.mark.parametrize("reference", ["graph", f"graph:{EMBEDDED / 'embedded_rec_pir.tar'}"], ids=["own", "another"])
def test_the_command_compares_without_paddle(reference: str) -> None:
    result = CliRunner().invoke(main, ["verify", "embedded_rec", "--reference", reference])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("embedded_rec: passed")
    assert verifier.GRAPH in result.stdout


@pytest.mark.usefixtures("no_paddle")
def test_a_checkpoint_is_proved_by_the_graph_of_another_tarball() -> None:
    reference = str(EMBEDDED / "embedded_rec_infer.tar")
    result = CliRunner().invoke(
        main, ["verify", "embedded_rec", "--kind", "trained", "--reference", f"graph:{reference}"]
    )
    assert result.exit_code == 0, result.output
    assert "(program of embedded_rec_infer.tar)" in result.stdout
