"""Any inference model by its graph alone: the program is the network, and no architecture of the registry is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from paddle2torch.architectures.graph.form import Graph, reachable
from paddle2torch.architectures.graph.module import lay_out
from paddle2torch.architectures.records import Preprocessing
from paddle2torch.architectures.registry import Task
from paddle2torch.converter.conversion.convert import Conversion, find_labels, note_outputs
from paddle2torch.converter.conversion.network import GraphNetwork
from paddle2torch.converter.conversion.usage import (
    Sides,
    instructions_of,
    note_usage,
    postprocessing_of,
    require_height,
    stated_sides,
    with_sides,
)
from paddle2torch.converter.conversion.values import require_sound
from paddle2torch.converter.graph.build import build_module
from paddle2torch.converter.graph.program import graph_from_program
from paddle2torch.converter.graph.trace import trace_graph
from paddle2torch.converter.mapping.rules import Mapped
from paddle2torch.converter.sources import Source
from paddle2torch.converter.support.errors import MappingError, SourceError
from paddle2torch.converter.tasks import tasks
from paddle2torch.converter.tasks.task import Value

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
        MappingError: the program has operators that the table does not cover, or is not for text in images.
        FormatError: the program is inconsistent, or its `inference.yml` is damaged or has a step that is not followed.
    """
    if source.program is None:
        raise SourceError(
            f"{source.path}: a training checkpoint has no graph, so --as-graph cannot convert it; give an inference "
            "model (.pdmodel or inference.json with .pdiparams), exported with PaddleOCR's tools/export_model.py"
        )
    names = {variable: name for name, variable in (source.variables or {}).items()}
    graph = graph_from_program(source.program, names, source.path.name)
    task, usual, parameters, sides, outputs = _purpose(graph, source)
    instructions = instructions_of(source)
    said, told_by = instructions.preprocessing(usual, task)
    require_height(said, told_by, task, sides)
    preprocessing = with_sides(said, task, sides)
    known = graph.tensor_names()
    origins = {key: known[origin.variable] for key, origin in lay_out(graph).origins.items()}
    arrays = {key: source.tensors[name] for key, name in origins.items()}
    variances = {name for key, name in origins.items() if key.endswith("running_var")}
    read = {name: source.tensors[name] for name in origins.values()}
    value_notes = require_sound(read, variances, source.path.name, constants=True)
    module = build_module(graph, source.path.name, source.tensors)
    notes = ["the network is the program itself", *value_notes, *note_usage(told_by, sides, said, preprocessing)]
    if told_by is None:
        notes.append(
            "the preprocessing is the usual one of its kind, which the program does not tell: compare it with the "
            "model's documentation"
        )
    if source.named_by is None:
        notes.append("there is no .info that names the tensors; they have the names of the program's variables")
    notes += [source.known.told] if source.known else []
    notes += note_outputs(outputs)
    labels = find_labels(task, parameters, source, dictionary, instructions, fetcher)
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
        labels=labels,
        notes=tuple(notes),
        postprocessing=postprocessing_of(task, instructions, labels.labels if labels else None),
        outputs=outputs,
    )


def _purpose(graph: Graph, source: Source) -> tuple[Task, Preprocessing, dict[str, Any], Sides, tuple[Value, ...]]:
    """Task, usual preprocessing and parameters, told by the shapes of input and outputs, what sides are fixed, and the
    outputs where they are several."""
    file, shapes = source.path.name, list(graph.inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (3, -1) or not graph.outputs:
        raise MappingError(
            f"{file}: its program takes {_listed(shapes)} and returns {len(graph.outputs)} values; a network for text "
            "in images takes one batch of images [N, 3, H, W] and returns what it makes of them"
        )
    shape, results = _trial(graph, shapes[0][2:], file)
    output = results[0]
    found = {name: each.parameters_of(output) for name, each in tasks().items()}
    told = [(name, parameters) for name, parameters in found.items() if parameters is not None]
    several: tuple[Value, ...] | None = ()
    if told and len(results) > 1:
        first, *others = graph.outputs
        derived = all(_reads(graph, other, first) for other in others)
        several = tasks()[told[0][0]].several(len(results), derived) if len(set(results)) == 1 else None
    if not told or several is None:
        raise MappingError(
            f"{file}: its program returns {_listed(results)} for an image of {list(shape)}; known are the maps "
            "[N, 1, H, W] of detectors, one or several, [N, T, classes] of recognisers and [N, classes] of classifiers"
        )
    (name, parameters), *_ = told
    usual = tasks()[name].preprocessing
    # A height that was tried and taken is the network's, even where the program does not mean its width.
    if usual.size.height and shapes[0][2] == shape[2]:
        usual = replace(usual, size=replace(usual.size, height=shape[2]))
    height, width = stated_sides(shapes[0], source)
    sides = height if height == shape[2] else None, width if width == shape[3] else None
    return cast(Task, name), usual, parameters, sides, several


def _reads(graph: Graph, value: str, other: str) -> bool:
    """Whether a value is computed from another one."""
    return any(other in node.reads for node in reachable(graph.nodes, [value]))


def _trial(graph: Graph, stated: tuple[int, ...], file: str) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The shape of an image that the network takes, and of what it returns for it."""
    open_or_stated = [
        tuple(given if given > 0 else size for given, size in zip(stated, sizes, strict=True)) for sizes in SIZES
    ]
    failures = []
    for sizes in dict.fromkeys([*open_or_stated, *SIZES]):
        trace = trace_graph(graph, {}, (1, 3, *sizes), file)
        if trace.failure is None:
            results = [each.shape if each.places is None else each.places.shape for each in trace.outputs]
            return (1, 3, *sizes), list(map(tuple, results))
        failures.append(f"\n  {[1, 3, *sizes]}: {trace.failure}")
    raise MappingError(f"{file}: its program takes no image of the sizes that were tried{''.join(failures)}")


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes) or "nothing"
