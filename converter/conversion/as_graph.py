"""Any inference model by its graph alone: the program is the network, and no architecture of the registry is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from paddle2torch.architectures.graph.form import Graph
from paddle2torch.architectures.graph.module import lay_out
from paddle2torch.architectures.records import Preprocessing
from paddle2torch.architectures.registry import Task
from paddle2torch.converter.conversion.convert import Conversion, find_labels
from paddle2torch.converter.conversion.network import GraphNetwork
from paddle2torch.converter.conversion.values import require_sound
from paddle2torch.converter.graph.build import build_module
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.graph.trace import trace_graph
from paddle2torch.converter.mapping.exported import Settings, read_settings
from paddle2torch.converter.mapping.labels import Labels, match_labels
from paddle2torch.converter.mapping.rules import Mapped
from paddle2torch.converter.sources import Source
from paddle2torch.converter.support.errors import MappingError, SourceError
from paddle2torch.converter.tasks import find_task, tasks

if TYPE_CHECKING:
    from paddle2torch.converter.zoo.download import Fetcher

# Heights and widths to try, for sizes that the program leaves open or (as the released classifier's) states wrongly.
SIZES = ((64, 96), (48, 192), (48, 320), (32, 320), (640, 640))


def convert_graph(source: Source, *, dictionary: Path | None = None, fetcher: Fetcher | None = None) -> Conversion:
    """Convert an inference model by its graph alone; nothing is written.

    Args:
        source: see `paddle2torch.converter.sources.load_source`.
        dictionary: file of the characters.
        fetcher: gets the zoo's dictionary.

    Raises:
        SourceError: the source has no program.
        MappingError: the program has operators that the table does not cover, or is not for text in pictures.
        FormatError: the program is inconsistent.
    """
    if source.program is None:
        raise SourceError(
            f"{source.path}: a training checkpoint has no graph, so --as-graph cannot convert it; give an inference "
            "model (.pdmodel or inference.json with .pdiparams), exported with PaddleOCR's tools/export_model.py"
        )
    names = {variable: name for name, variable in (source.variables or {}).items()}
    graph = graph_from_program(source.program, names, source.path.name)
    task, preprocessing, parameters = _purpose(graph, source.path.name)
    settings = read_settings(source.files.settings) if source.files.settings is not None else None
    if settings is not None and settings.steps:
        preprocessing = settings.preprocessing(preprocessing)
    known = graph.tensor_names()
    origins = {key: known[origin.variable] for key, origin in lay_out(graph).origins.items()}
    arrays = {key: source.tensors[name] for key, name in origins.items()}
    variances = {name for key, name in origins.items() if key.endswith("running_var")}
    read = {name: source.tensors[name] for name in origins.values()}
    value_notes = require_sound(read, variances, source.path.name, constants=True)
    module = build_module(graph, source.path.name, source.tensors)
    told = (
        "that of its inference.yml"
        if settings is not None and settings.steps
        else "the usual one of its kind, which the program does not tell: compare it with the model's documentation"
    )
    notes = [f"the network is the program itself; its preprocessing is {told}"]
    notes += value_notes
    if source.named_by is None:
        notes.append("there is no .info that names the tensors; they have the names of the program's variables")
    return Conversion(
        source=source,
        name=source.name,
        network=GraphNetwork(graph, source.path.name, task, parameters, preprocessing),
        mapped=Mapped(
            state=module.state_dict(),
            origins=origins,
            ignored=dict.fromkeys(source.tensors.keys() - set(origins.values()), "the program does not read it"),
            initialised=(),
            widened={key: str(array.dtype) for key, array in arrays.items() if array.dtype == np.float16},
            narrowed={key: str(array.dtype) for key, array in arrays.items() if array.dtype == np.float64},
        ),
        branch="",
        branches=("",),
        tensors=source.tensors,
        recognised_by=None,
        labels=_labels(task, parameters, source, settings, dictionary, fetcher),
        notes=tuple(notes),
    )


def _labels(
    task: str,
    parameters: dict[str, Any],
    source: Source,
    settings: Settings | None,
    dictionary: Path | None,
    fetcher: Fetcher | None,
) -> Labels | None:
    """What the classes stand for; a dictionary that is given wins over the model's own."""
    if find_task(task).reads and dictionary is None and settings is not None and settings.characters is not None:
        return match_labels(settings.characters, parameters["classes"], None, settings.file)
    return find_labels(task, parameters, source, dictionary, None, fetcher)


def _purpose(graph: Graph, file: str) -> tuple[Task, Preprocessing, dict[str, Any]]:
    """Task, preprocessing and parameters, told by the shapes of input and output."""
    shapes = list(graph.inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (3, -1) or len(graph.outputs) != 1:
        raise MappingError(
            f"{file}: its program takes {_listed(shapes)} and returns {len(graph.outputs)} values; a network for text "
            "in pictures takes one batch of pictures [N, 3, H, W] and returns one value"
        )
    shape, output = _trial(graph, shapes[0][2:], file)
    found = {name: each.parameters_of(output) for name, each in tasks().items()}
    told = [(name, parameters) for name, parameters in found.items() if parameters is not None]
    if not told:
        raise MappingError(
            f"{file}: its program returns {list(output)} for a picture of {list(shape)}; known are the maps "
            "[N, 1, H, W] of detectors, [N, T, classes] of recognisers and [N, classes] of classifiers"
        )
    (name, parameters), *_ = told
    usual = tasks()[name].preprocessing
    stated = {side: size for side, size in zip(("height", "width"), shapes[0][2:], strict=True) if size in shape[2:]}
    size = replace(usual.size, **stated) if usual.size.height else usual.size
    return cast(Task, name), replace(usual, size=size), parameters


def _trial(graph: Graph, stated: tuple[int, ...], file: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a picture that the network takes, and of what it returns for it."""
    open_or_stated = [
        tuple(given if given > 0 else size for given, size in zip(stated, sizes, strict=True)) for sizes in SIZES
    ]
    failures = []
    for sizes in dict.fromkeys([*open_or_stated, *SIZES]):
        trace = trace_graph(graph, {}, (1, 3, *sizes), file)
        if trace.failure is None:
            (output,) = trace.outputs
            return (1, 3, *sizes), tuple(output.shape if output.places is None else output.places.shape)
        failures.append(f"\n  {[1, 3, *sizes]}: {trace.failure}")
    raise MappingError(f"{file}: its program takes no picture of the sizes that were tried{''.join(failures)}")


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes) or "nothing"
