"""Back to Paddle: converted weights, fine-tuned perhaps, as a `.pdparams`, or in a released program."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.loading import GRAPH
from paddle2torch.architectures.matching import COUNTER, expected_tensors
from paddle2torch.architectures.registry import Architecture, get
from paddle2torch.converter.conversion.fold import fold_weights
from paddle2torch.converter.conversion.weights import open_weights
from paddle2torch.converter.formats.pdparams import write_pdparams
from paddle2torch.converter.mapping.rules import assign, to_paddle, to_torch
from paddle2torch.converter.support.errors import FormatError, MappingError
from paddle2torch.converter.support.files import atomic_write, write_together
from paddle2torch.converter.support.names import result_name
from paddle2torch.converter.writing.programs import keys_by_variable, layout_of, with_weights

if TYPE_CHECKING:
    from paddle2torch.converter.sources import Source

STEM = "inference"


@dataclass(frozen=True)
class PaddleWeights:
    """Weights in Paddle's names and layout.

    Attributes:
        name: stem for the output.
        architecture: whose they are.
        parameters: of the architecture.
        tensors: structured name → array, as an inference tarball names them.
    """

    name: str
    architecture: Architecture
    parameters: dict[str, Any]
    tensors: dict[str, np.ndarray]


def state_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Module key → array of a converted file, without what a conversion makes itself; halves as float32."""
    weights = open_weights(path)
    made = set(weights.metadata.initialised if weights.metadata is not None else ())
    return {
        key: (tensor.detach().float() if tensor.dtype.itemsize < 4 and tensor.is_floating_point() else tensor).numpy()
        for key, tensor in weights.state.items()
        if key not in made and not key.endswith(COUNTER)
    }


def read_converted(path: str | os.PathLike[str], name: str | None = None) -> PaddleWeights:
    """Read a converted `.pth` or `.safetensors` and turn it back.

    Args:
        path: of the file.
        name: of the result; made from the path by default, see `paddle2torch.converter.support.names`.

    Raises:
        SourceError, FormatError: see `open_weights`.
        MappingError: the model was converted by its graph.
    """
    weights = open_weights(path)
    if weights.architecture == GRAPH:
        raise MappingError(
            f"{path}: was converted by its graph (--as-graph), whose tensors have no names in Paddle's checkpoints; "
            "convert the model without --as-graph, where an architecture fits it, or use the inference model that it "
            "comes from"
        )
    for key, tensor in weights.state.items():
        if not (tensor.is_floating_point() or key.endswith(COUNTER)):
            raise FormatError(str(path), f"{key} is of type {tensor.dtype}; floating-point numbers were expected")
    architecture = get(weights.architecture)
    tensors = to_paddle(weights.state, architecture, weights.parameters)
    return PaddleWeights(name or result_name(path), architecture, dict(weights.parameters), tensors)


def checkpoint_tensors(weights: PaddleWeights) -> dict[str, np.ndarray]:
    """The tensors as a training checkpoint has them: every LSTM parameter under both of its names."""
    expected = expected_tensors(weights.architecture, weights.parameters)
    aliases = {
        key: weights.tensors[sources[0]]
        for key, sources in assign(weights.tensors, weights.architecture).sources.items()
        if expected[key].owner == "LSTM"
    }
    return {**weights.tensors, **aliases}


def write_checkpoint(weights: PaddleWeights, folder: Path) -> Path:
    """Write `NAME.pdparams`, which `paddle.load` takes and PaddleOCR fine-tunes from.

    Raises:
        OutputError: it could not be written.
    """
    path = folder / f"{weights.name}.pdparams"
    with atomic_write(path) as file:
        file.write(write_pdparams(checkpoint_tensors(weights)))
    return path


def write_inference(weights: PaddleWeights, reference: Source, folder: Path) -> list[Path]:
    """Write `NAME/inference.{pdmodel,pdiparams,pdiparams.info}`, or `inference.{json,pdiparams}` of Paddle 3: the
    reference's program with these weights.

    Args:
        weights: what to put in.
        reference: an inference model of the same architecture; another class count is adapted.
        folder: where the folder NAME is made.

    Raises:
        SourceError: the reference has no program.
        MappingError: the reference is of another architecture, or has another width; or, in the form of Paddle 3,
            another class count.
        OutputError: something could not be written.
    """
    tensors = _in_layout_of(weights, reference)
    ours = {key: tensors[names[0]] for key, names in assign(tensors, weights.architecture).sources.items()}
    keys = keys_by_variable(reference, weights.architecture, ours)
    checked, parameters = with_weights(reference, {variable: ours[key] for variable, key in keys.items()})
    contents = {
        f"{STEM}.{'json' if checked.program.pir else 'pdmodel'}": checked.content,
        f"{STEM}.pdiparams": parameters,
    }
    if reference.files.info is not None:
        contents[f"{STEM}.pdiparams.info"] = reference.files.info.data
    files = {folder / weights.name / name: content for name, content in contents.items()}
    write_together(files)
    return list(files)


def _in_layout_of(weights: PaddleWeights, reference: Source) -> dict[str, np.ndarray]:
    """The tensors, folded where the reference's program is."""
    entry = weights.architecture
    layout = layout_of(reference, entry, weights.parameters)
    if layout.keys() <= expected_tensors(entry, weights.parameters).keys():
        return weights.tensors
    model = entry.build_empty(weights.parameters)
    model.load_state_dict(to_torch(weights.tensors, entry, weights.parameters).state, assign=True)
    folded = fold_weights(model, entry, weights.parameters, layout)
    return to_paddle(folded.state, entry, folded.parameters)
