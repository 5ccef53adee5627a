"""A converted network as one file for another runtime: ONNX, TorchScript, or PyTorch's own `.pt2`.

    exported = export_model(model, model.metadata, "onnx")
    write_export(exported, Path("exported"))

The file takes any number of images and any width (a detector any height and width that are multiples of 32). It
describes itself: what the `.json` of a conversion says lies in it under `paddle2torch`. And it has been run: nobody
gets a file that does not compute what the module computes.
"""

from __future__ import annotations

import copy
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from paddle2torch.architectures.loading import GRAPH, HEADER_KEY, build_model
from paddle2torch.architectures.records import Preprocessing
from paddle2torch.architectures.registry import get
from paddle2torch.converter.conversion.weights import open_weights
from paddle2torch.converter.parity.compare import Deviation, compare_answers, measure_all
from paddle2torch.converter.parity.inputs import Case, text_case
from paddle2torch.converter.support.digests import sha256_of
from paddle2torch.converter.support.errors import FormatError, OutputError, ParityError
from paddle2torch.converter.support.extras import require
from paddle2torch.converter.support.files import atomic_write
from paddle2torch.converter.support.names import result_name
from paddle2torch.converter.tasks import find_task

Run = Callable[[np.ndarray], tuple[np.ndarray, ...]]

OPSET = 17  # the first with layer normalisation as one operator; onnxruntime has run it since 1.12
INPUT = "x"  # as in the released programs, and in what others made of them
METADATA_FILE = f"{HEADER_KEY}.json"  # of the extra files in a TorchScript or `.pt2` archive
CHARACTERS_KEY = "character"  # where RapidOCR looks for the labels in an ONNX file, without the blank, one a line

# An export is the same arithmetic in single precision in another order. What that may change is told by the module
# itself, which is run in double precision too: over the zoo's networks TorchScript and `.pt2` differ by nothing at all,
# ONNX by up to 4.4 times the module's own rounding error.
ROUNDINGS = 10.0
LEAST_TOLERANCE = 1e-5  # where the module happens to round to next to nothing; ONNX differs by up to 2e-5 elsewhere


@dataclass(frozen=True)
class Comparison:
    """An exported file against its module, on one batch.

    Attributes:
        case: the batch.
        difference: of the outputs, both in single precision.
        allowed: the largest error that rounding explains.
        answers: the module's and the file's, of each image where they differ although rounding does not change the
            module's own.
    """

    case: Case
    difference: Deviation
    allowed: float
    answers: tuple[tuple[str, str], ...]

    @property
    def failure(self) -> str | None:
        """What does not hold, for a person."""
        if self.difference.problem is not None:
            return f"{self.case.name}: its output has another shape, or NaN or infinity in it"
        if not self.difference.error <= self.allowed:
            return f"{self.case.name}: error {self.difference.error:.1e}, {self.allowed:.1e} allowed"
        if self.answers:
            return f"{self.case.name}: the module says {self.answers[0][0]}, the file {self.answers[0][1]}"
        return None


@dataclass(frozen=True)
class Exported:
    """An exported file that has proved right.

    Attributes:
        file: its name.
        content: its bytes.
        comparisons: with the module, one per batch.
    """

    file: str
    content: bytes
    comparisons: tuple[Comparison, ...]

    @property
    def error(self) -> float:
        """The largest relative error over all batches."""
        return max(comparison.difference.error for comparison in self.comparisons)


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: of its name.
        build: (module in evaluation mode, example input, metadata) → the file's bytes.
        load: the file's bytes → what runs it, and returns its outputs.
        packages: that it needs besides torch.
    """

    suffix: str
    build: Callable[[nn.Module, Tensor, Mapping[str, Any]], bytes]
    load: Callable[[bytes], Run]
    packages: tuple[str, ...] = ()


def open_converted(path: str | os.PathLike[str], name: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a converted `.pth` or `.safetensors`, ours or anyone's, and its metadata.

    Of a file that came without our `.json` the metadata is what its architecture says; its labels are not known.

    Args:
        path: what `load_model` takes.
        name: of the results, which the metadata then have; made from the path by default, see
            `paddle2torch.converter.support.names`.

    Raises:
        SourceError, FormatError: see `paddle2torch.converter.conversion.weights.open_weights`.
    """
    name = name or result_name(path)
    weights = open_weights(path)
    try:
        model = build_model(weights)
    except ValueError as error:
        raise FormatError(str(path), str(error).removeprefix(f"{weights.file}: ")) from error
    if weights.metadata is not None:
        return model, {**weights.metadata.to_json(), "name": name}
    entry = get(weights.architecture)
    return model, {
        "name": name,
        "task": entry.task,
        "architecture": entry.name,
        "parameters": weights.parameters,
        "preprocessing": entry.preprocessing.to_json(),
        "labels": None,
        "source": {"file": weights.file.name, "sha256": sha256_of(weights.file)},
    }


def export_model(
    model: nn.Module, metadata: Mapping[str, Any], format: str, cases: Sequence[Case] | None = None
) -> Exported:
    """Export a network, run the result, and compare it with the network.

    Args:
        model: of ours, or any module with the same input and output for its task, such as one made from a graph.
        metadata: as in a conversion's `.json`; "name", "task", "preprocessing" and "labels" are used, all is put into
            the file.
        format: a key of `FORMATS`.
        cases: the batches to compare on; rendered text of two batch sizes and three widths or sizes by default.

    Raises:
        OutputError: the network cannot be written in this format.
        MissingPackageError: a package that this takes is not installed.
        ParityError: the file does not compute what the module computes.
    """
    import torch

    chosen, task = FORMATS[format], find_task(metadata["task"])
    record = Preprocessing.from_json(metadata["preprocessing"], str(metadata["name"]))
    for package in chosen.packages:
        require(package, "export", f"writing {format}")
    model = copy.deepcopy(model).eval()
    example = torch.from_numpy(text_case(task, record, task.traced).array)
    with _quietly(), torch.no_grad():
        try:
            result = model(example)
        except Exception as error:  # what a network's own code raises over sizes that it was not made for
            height, width = example.shape[2:]
            raise OutputError(
                f"{metadata['name']}: the network takes no images of {height} × {width} pixels, as its metadata say "
                f"({_first_line(error)}); convert the model again"
            ) from error
        if isinstance(result, tuple):
            metadata = {"outputs": _output_names(result), **metadata}
            model = _PlainTuple(model).eval()
        try:
            content = chosen.build(model, example, metadata)
            run = chosen.load(content)
        except Exception as error:  # the exporters raise nearly anything
            raise OutputError(
                f"{metadata['name']}: cannot be written as {format} ({_first_line(error)}); nothing was written"
            ) from error
        cases = cases or [text_case(task, record, batch) for batch in task.exported]
        comparisons = _compare(model, run, cases, metadata, format)
    failures = [comparison.failure for comparison in comparisons if comparison.failure is not None]
    if failures:
        raise ParityError(_failed(metadata, format, failures[0]))
    return Exported(metadata["name"] + chosen.suffix, content, comparisons)


def write_export(exported: Exported, folder: Path) -> Path:
    """Write the file into a folder, which is made if need be.

    Raises:
        OutputError: it could not be written.
    """
    path = folder / exported.file
    with atomic_write(path) as file:
        file.write(exported.content)
    return path


def _output_names(result: tuple[Tensor, ...]) -> list[str]:
    """What several outputs are called."""
    fields = getattr(result, "_fields", None)
    return list(fields) if fields else [f"output_{place}" for place in range(1, len(result) + 1)]


class _PlainTuple(nn.Module):
    """A network with its outputs in a tuple without names, which every format can hold."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(x))


# ---- comparing ---------------------------------------------------------------------------------------------------


def _compare(
    model: nn.Module, run: Run, cases: Sequence[Case], metadata: Mapping[str, Any], format: str
) -> tuple[Comparison, ...]:
    """The file against the module, batch by batch."""
    import torch

    precise = copy.deepcopy(model).double()
    comparisons = []
    for case in cases:
        single = _arrays(model(torch.from_numpy(case.array)))
        double = _arrays(precise(torch.from_numpy(case.array.astype(np.float64))))
        try:
            candidate = run(case.array)
        except Exception as error:  # the runtimes raise nearly anything
            failure = f"{case.name}: it does not take this input ({_last_line(error)})"
            raise ParityError(_failed(metadata, format, failure)) from error
        comparisons.append(
            Comparison(
                case=case,
                difference=measure_all(single, candidate),
                allowed=max(LEAST_TOLERANCE, ROUNDINGS * measure_all(double, single).error),
                answers=tuple(_other_answers(metadata, single[0], double[0], candidate[0])),
            )
        )
    return tuple(comparisons)


def _other_answers(
    metadata: Mapping[str, Any], single: np.ndarray, double: np.ndarray, candidate: np.ndarray
) -> Iterator[tuple[str, str]]:
    """Answers that differ, but for those that rounding alone changes."""
    if candidate.shape != single.shape:
        return
    task, labels = find_task(metadata["task"]), metadata["labels"]
    answers, steady = (compare_answers(task, single, other, labels) for other in (candidate, double))
    for answer, own in zip(answers, steady, strict=True):
        if own.agrees and not answer.agrees:
            yield answer.reference, answer.candidate


def _failed(metadata: Mapping[str, Any], format: str, failure: str) -> str:
    return (
        f"{metadata['name']}: as {format} it does not compute what the module computes: {failure}; nothing was written"
    )


# ---- formats -----------------------------------------------------------------------------------------------------


def _build_onnx(model: nn.Module, example: Tensor, metadata: Mapping[str, Any]) -> bytes:
    import onnx
    import torch

    task, labels = find_task(metadata["task"]), metadata["labels"]
    # Several outputs are of one kind.
    outputs = [replace(task.outputs[0], name=name) for name in metadata.get("outputs") or ()] or task.outputs
    buffer = io.BytesIO()
    # The exporter that traces: it writes an LSTM as the one operator that it is in ONNX, for any number of time steps.
    # Its successor, dynamo=True, writes a loop over the steps.
    torch.onnx.export(
        model,
        (example,),
        buffer,  # type: ignore[arg-type]  # a stream is taken too
        dynamo=False,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[value.name for value in outputs],
        dynamic_axes={value.name: dict(value.axes) for value in (*task.inputs, *outputs)},
    )
    file = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(
        file,
        {HEADER_KEY: _metadata_text(metadata)}
        | ({CHARACTERS_KEY: "\n".join(labels[1:])} if task.reads and labels else {}),
    )
    onnx.checker.check_model(file, full_check=True)
    return file.SerializeToString(deterministic=True)


def _load_onnx(content: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # nothing but crashes: errors are raised
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda array: tuple(session.run(None, {INPUT: array}))


def _build_torchscript(model: nn.Module, example: Tensor, metadata: Mapping[str, Any]) -> bytes:
    import torch

    buffer = io.BytesIO()
    # Its classes are numbered by what this process has traced before; so the bytes may differ where the others' do not.
    traced = torch.jit.trace(model, example, check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={METADATA_FILE: _metadata_text(metadata)})
    return _without_debug_records(buffer)


def _without_debug_records(archive: io.BytesIO) -> bytes:
    """A TorchScript archive without the records that say which files of this machine each operator comes from."""
    stripped = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(stripped, "w") as new:
        for record in old.infolist():
            if not record.filename.endswith(".debug_pkl"):
                new.writestr(record, old.read(record))
    return stripped.getvalue()


def _load_torchscript(content: bytes) -> Run:
    import torch

    module = torch.jit.load(io.BytesIO(content))
    return lambda array: _arrays(module(torch.from_numpy(array)))


def _build_pt2(model: nn.Module, example: Tensor, metadata: Mapping[str, Any]) -> bytes:
    import torch
    from torch import fx

    with _lstm_as_one_operator():
        program = torch.export.export(model, (example,), dynamic_shapes=(_dimensions(metadata),), strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # names files of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: _metadata_text(metadata)})
    return buffer.getvalue()


def _dimensions(metadata: Mapping[str, Any]) -> dict[int, Any]:
    """What `torch.export` may take for granted of each axis that varies."""
    from torch.export import Dim

    multiple = metadata["preprocessing"]["size"].get("multiple")
    dimensions: dict[int, Any] = {}
    for axis, name in find_task(metadata["task"]).inputs[0].axes.items():
        if name == "batch":
            dimensions[axis] = Dim(name, min=1)
        elif multiple:
            # From two multiples on: that a map has more than one row or column decides how it is interpolated.
            dimensions[axis] = multiple * Dim(f"{name}_in_{multiple}s", min=2)
        else:
            dimensions[axis] = Dim.AUTO
    return dimensions


@contextmanager
def _lstm_as_one_operator() -> Iterator[None]:
    """Has `torch.export` derive the shapes of an LSTM's results without unrolling it over the time steps.

    The operator stays whole in an exported program in any case. But where its shapes are derived by running its
    decomposition, step by step, the number of steps, and with it the width, becomes a constant.
    """
    import torch

    operator, key = torch.ops.aten.lstm.input, torch._C.DispatchKey.CompositeImplicitAutograd
    kernels = dict(operator.py_kernels)

    def shapes(x: Tensor, state: Sequence[Tensor], *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        hidden, cell = state
        *_, bidirectional, _batch_first = arguments
        features = hidden.shape[2] * (2 if bidirectional else 1)
        return x.new_empty((*x.shape[:2], features)), torch.empty_like(hidden), torch.empty_like(cell)

    try:
        operator.py_kernels[key] = shapes
        operator._dispatch_cache.clear()
        yield
    finally:
        operator.py_kernels.clear()
        operator.py_kernels.update(kernels)
        operator._dispatch_cache.clear()


def _load_pt2(content: bytes) -> Run:
    import torch

    module = torch.export.load(io.BytesIO(content)).module()
    return lambda array: _arrays(module(torch.from_numpy(array)))


def _arrays(result: Tensor | tuple[Tensor, ...]) -> tuple[np.ndarray, ...]:
    """What a network returns, one or several."""
    return tuple(each.numpy() for each in (result if isinstance(result, tuple) else (result,)))


FORMATS = {
    "onnx": Format(".onnx", _build_onnx, _load_onnx, ("onnx", "onnxruntime")),
    "torchscript": Format(".torchscript", _build_torchscript, _load_torchscript),
    "pt2": Format(".pt2", _build_pt2, _load_pt2),
}


def _metadata_text(metadata: Mapping[str, Any]) -> str:
    """What the file says of itself; the graph of a model converted by it is what the file is."""
    return json.dumps({key: value for key, value in metadata.items() if key != GRAPH}, ensure_ascii=False)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _last_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporters' warnings, which concern their own future, from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
