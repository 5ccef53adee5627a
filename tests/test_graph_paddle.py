"""With a mirror of the zoo: each released graph as PyTorch against Paddle itself, value by value."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx

from conftest import MIRROR_VARIABLE
from paddle2torch.architectures.graph.module import VALUE
from paddle2torch.architectures.registry import get
from paddle2torch.converter.containers.archive import open_model_files
from paddle2torch.converter.formats.pdiparams import write_pdiparams
from paddle2torch.converter.parity.graph_engine import GraphReference
from paddle2torch.converter.parity.inputs import Case, default_cases
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.zoo.catalog import load_zoo
from support import recipe
from support.graphs import EMBEDDED, released

pytestmark = pytest.mark.skipif(find_spec("paddle") is None, reason="PaddlePaddle is not installed")

# As shares of the largest value: what one operator makes of the same input, and what the whole network ends with.
# Paddle's own result is as far from that of double precision: sums of thousands of products in single precision.
OPERATOR_ERROR, FINAL_ERROR = 1.5e-5, 2e-5


def programs() -> dict[str, Path]:
    """Tarballs with a released graph, by model; the embedded ones in both dialects."""
    found = {name: EMBEDDED / f"{name}.tar" for name in ("embedded_rec_infer", "embedded_rec_pir")}
    index = Path(os.environ.get(MIRROR_VARIABLE, "")) / "mirror.json"
    entries = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    return found | {
        each["model"]: index.parent / path for path, each in entries.items() if each.get("graph") == "released"
    }


@pytest.fixture(scope="module")
def paddle() -> Iterator[PaddleWorker]:
    with PaddleWorker() as worker:
        yield worker


class Stepwise(fx.Interpreter):
    """Gives each operator the inputs that Paddle's had, and keeps how far its result is from Paddle's."""

    def __init__(self, module: fx.GraphModule, expected: dict[str, np.ndarray]) -> None:
        super().__init__(module)
        self.expected = expected
        self.errors: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        name = n.meta.get(VALUE)
        if name not in self.expected:
            return result
        self.errors[name] = error(self.expected[name], np.asarray(result))
        return torch.from_numpy(self.expected[name])


def error(expected: np.ndarray, found: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def first_case(model: str) -> Case:
    listed = load_zoo().find(model) or load_zoo().get("embedded_rec")
    architecture = get(listed.architecture)
    return default_cases(find_task(architecture.task), architecture.preprocessing)[1]


@pytest.mark.parametrize(("model", "path"), programs().items(), ids=str)
def test_every_operator_of_a_released_graph_agrees(
    model: str, path: Path, paddle: PaddleWorker, tmp_path: Path
) -> None:
    """With weights by recipe where there are names: generated ones make recurrent layers chaotic."""
    model_files, network = open_model_files(path), released(path)
    arrays = network.arrays
    if network.names:
        drawn = recipe.weights({network.names[variable]: array.shape for variable, array in arrays.items()})
        arrays = {variable: drawn[network.names[variable]] for variable in arrays}
    program, file, form = (
        (model_files.program, "inference.pdmodel", "pdmodel")
        if model_files.program is not None
        else (model_files.pir, "inference.json", "pir")
    )
    (tmp_path / file).write_bytes(program.data)
    (tmp_path / "inference.pdiparams").write_bytes(write_pdiparams(arrays))
    described = paddle.load(tmp_path, form)
    graph = network.graph()
    names = graph.tensor_names()
    reference = GraphReference(graph, {names[variable]: arrays[variable] for variable in graph.parameters})
    values = [operator.result for operator in reference.program.operators]
    assert set(values) <= {operator.result for operator in described.operators}

    image = first_case(model).array
    expected = paddle.run(image, [*values, *described.fetches])
    stepwise = Stepwise(reference.module, {name: expected[name] for name in values})
    with torch.inference_mode():
        stepwise.run(torch.from_numpy(image))
    assert stepwise.errors.keys() == set(values)
    assert {name: wrong for name, wrong in stepwise.errors.items() if wrong > OPERATOR_ERROR} == {}
    (final,) = reference.program.fetches
    assert error(expected[described.fetches[0]], reference.run(image, [final])[final]) <= FINAL_ERROR
    shutil.rmtree(tmp_path)
