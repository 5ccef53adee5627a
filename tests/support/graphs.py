"""Programs for the tests of `paddle2torch.converter.graph`: the embedded recogniser's in both dialects, and the mirror's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.architectures.registry import Architecture, get
from paddle2torch.converter import zoo
from paddle2torch.converter.containers.archive import open_model_files
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.formats.pdiparams import read_pdiparams
from paddle2torch.converter.formats.pdmodel import Program, read_pdmodel
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.mirror import smallest

EMBEDDED = Path(zoo.__file__).parent / "embedded"


@dataclass(frozen=True)
class Released:
    """An inference model as it lies in its tarball.

    Attributes:
        path: of the tarball.
        program: its network.
        arrays: variable → array.
        names: variable → structured name; empty where the tarball has no `.info`.
    """

    path: Path
    program: Program
    arrays: dict[str, np.ndarray]
    names: dict[str, str]

    def graph(self) -> Graph:
        return graph_from_program(self.program, self.names, self.path.name)

    def tensors(self) -> dict[str, np.ndarray]:
        """As `graph_to_module` wants them."""
        return {self.names.get(variable, variable): array for variable, array in self.arrays.items()}


@cache
def released(path: Path) -> Released:
    files = open_model_files(path)
    program = read_pdmodel(files.program) if files.program is not None else read_pir(files.pir)
    names = read_info(files.info) if files.info is not None else {}
    return Released(path, program, dict(read_pdiparams(files.parameters, program.parameters)), names)


def embedded(dialect: str = "legacy") -> Released:
    return released(EMBEDDED / {"legacy": "embedded_rec_infer.tar", "pir": "embedded_rec_pir.tar"}[dialect])


@cache
def tarballs() -> dict[str, Path]:
    """Of each architecture the mirror's smallest inference tarball, by model."""
    return {each.model: each.path for each in smallest() if each.kind == "inference"}


def families() -> dict[str, Path]:
    """One tarball for each architecture, the embedded one first."""
    architectures = {model.name: model.architecture for model in load_zoo()}
    found = {"rec_mobilenet_v3_bilstm_ctc": EMBEDDED / "embedded_rec_infer.tar"}
    for model, path in tarballs().items():
        found.setdefault(architectures[model], path)
    return found


@dataclass(frozen=True)
class Pair:
    """A hand-written network, and the graph that its weights came with.

    Attributes:
        architecture: of the network.
        graph: the released one.
        model: in evaluation mode.
        keys: the graph's variables → keys of the model.
    """

    architecture: Architecture
    graph: Graph
    model: object
    keys: dict[str, str]


@cache
def pair(path: Path) -> Pair:
    source = load_source(str(path), load_zoo(), Fetcher(offline=True))
    converted = convert(source)
    # Of an inference model without its `.info` the conversion knows the names.
    keys = {converted.source.variables[name]: key for key, name in converted.origins.items()}
    return Pair(get(converted.network.name), released(path).graph(), converted.build(), keys)
