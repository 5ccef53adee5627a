"""The table of operators, each operator against Paddle itself, in both dialects.

`graph_cases.tar.xz` holds small programs as Paddle saved them and what Paddle computed with them; see
`scripts/fixtures/make_graph_cases.py`.
"""

from __future__ import annotations

import io
import json
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from paddle2torch.architectures.graph.form import Graph, graph_from_json, graph_to_json
from paddle2torch.architectures.graph.operators import OPERATORS
from paddle2torch.converter.formats.pdiparams import read_pdiparams
from paddle2torch.converter.formats.pdmodel import Program, read_pdmodel
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.graph.build import build_module
from paddle2torch.converter.graph.dialects import LEGACY, PIR
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.support.blob import Blob

ARCHIVE = Path(__file__).parent / "graph_cases.tar.xz"
READERS = {"legacy": ("inference.pdmodel", read_pdmodel), "pir": ("inference.json", read_pir)}
# How far results may be apart, as a share of the largest value: those of single operators, and of whole networks.
OPERATOR_ERROR, NETWORK_ERROR = 2e-6, 1e-5
NETWORKS = ("mobile_detector", "mobile_recogniser", "server_recogniser")

# Operators of Paddle 3's first versions, and of old programs that were translated; 3.3 writes others in their place.
NOT_WRITTEN_TODAY = {"full_batch_size_like", "shape"}

Files = dict[str, bytes]


@cache
def cases() -> dict[str, Files]:
    """Files by case, for example `legacy/conv2d`."""
    found: dict[str, Files] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            case, _, file = member.name.rpartition("/")
            found.setdefault(case, {})[file] = archive.extractfile(member).read()
    return found


def program_of(case: str) -> Program:
    file, read = READERS[case.partition("/")[0]]
    return read(Blob(file, memoryview(cases()[case][file])))


def load(case: str) -> tuple[Graph, dict[str, np.ndarray]]:
    program, files = program_of(case), cases()[case]
    data = Blob("inference.pdiparams", memoryview(files.get("inference.pdiparams", b"")))
    return graph_from_program(program), dict(read_pdiparams(data, program.parameters))


def calls(case: str) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Inputs and results of each call."""

    def arrays(call: int, kind: str) -> list[np.ndarray]:
        names = (f"{call}.{kind}{place}.npy" for place in range(9))
        return [np.load(io.BytesIO(cases()[case][name])) for name in names if name in cases()[case]]

    numbers = sorted({int(file[0]) for file in cases()[case] if file.endswith(".npy")})
    return [(arrays(number, "in"), arrays(number, "out")) for number in numbers]


def check(module: torch.nn.Module, case: str, inputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
    error = NETWORK_ERROR if case.endswith(NETWORKS) else OPERATOR_ERROR
    with torch.no_grad():
        results = module(*map(torch.from_numpy, inputs))
    results = results if isinstance(results, (tuple, list)) else [results]
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert result.shape == wanted.shape
        assert str(result.dtype).removeprefix("torch.") == str(wanted.dtype)
        largest = float(np.abs(wanted).max()) if wanted.size else 0.0
        assert_allclose(result.numpy(), wanted, rtol=0, atol=error * largest)


@pytest.mark.parametrize("case", cases())
def test_operator_computes_what_paddle_computes(case: str) -> None:
    graph, tensors = load(case)
    module = build_module(graph, tensors=tensors)
    for inputs, expected in calls(case):
        check(module, case, inputs, expected)


@pytest.mark.parametrize("case", cases())
def test_graph_survives_json(case: str) -> None:
    graph, tensors = load(case)
    again = graph_from_json(json.loads(json.dumps(graph_to_json(graph))))
    assert again == graph
    inputs, expected = calls(case)[0]
    check(build_module(again, tensors=tensors), case, inputs, expected)


@pytest.mark.parametrize(("dialect", "table"), [("legacy", LEGACY), ("pir", PIR)])
def test_every_row_of_the_table_has_a_case(dialect: str, table: dict[str, object]) -> None:
    used = {
        each.type.removeprefix("pd_op.").rstrip("_")
        for case in cases()
        if case.startswith(dialect)
        for each in program_of(case).operators
    }
    assert sorted(table.keys() - used) == sorted(NOT_WRITTEN_TODAY if dialect == "pir" else [])


def test_every_operator_has_a_case() -> None:
    assert sorted(OPERATORS.keys() - {node.type for case in cases() for node in load(case)[0].nodes}) == []
