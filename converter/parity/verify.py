"""Run Paddle and PyTorch on the same input, and compare every layer, the output and the answer.

The released graph, run by PyTorch, is a third implementation: it tells who is wrong where two disagree, and stands in
for Paddle where there is none.

Layers and output are compared in double precision: both frameworks run the same operators on the same weights without
rounding to speak of, so that equal networks agree to some 1e-14 and a tight tolerance is honest. In single precision
the frameworks' own rounding reaches 1e-5 in a plain network and 1e-2 in a recurrent one whose weights make it chaotic;
those errors are reported beside, and what people use, the answer, is compared in single precision.
"""

from __future__ import annotations

import copy
import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle2torch.architectures.circulating import own_tensors
from paddle2torch.architectures.matching import COUNTER, Expected, match, shorten
from paddle2torch.architectures.records import spelled_out
from paddle2torch.converter import __version__
from paddle2torch.converter.conversion.fold import Folded, fold, fold_weights
from paddle2torch.converter.conversion.network import NamedNetwork
from paddle2torch.converter.parity.compare import Deviation, compare_in_both_precisions, measure, measure_all, response
from paddle2torch.converter.parity.engines import Engine, GraphEngine, PaddleEngine, Values
from paddle2torch.converter.parity.inputs import Case, default_cases, image_cases
from paddle2torch.converter.parity.pairing import Layer, pair_layers
from paddle2torch.converter.parity.programs import in_layout_of, prepare_program
from paddle2torch.converter.parity.reference import PaddleWorker, Precision, ReferenceProgram
from paddle2torch.converter.parity.result import (
    TOLERANCE,
    CaseResult,
    Folding,
    LayerResult,
    ParityResult,
    Third,
    WeightFile,
)
from paddle2torch.converter.sources import Source
from paddle2torch.converter.support.digests import sha256_of
from paddle2torch.converter.support.errors import MappingError, ParityError, SourceError
from paddle2torch.converter.support.scratch import Scratch
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.writing.artifacts import metadata, safetensors_bytes

if TYPE_CHECKING:
    from paddle2torch.converter.conversion.convert import Conversion

# A change d of all values before a sigmoid or softmax changes the relative result by at most 2d.
STEEPNESS = 2.0
NOT_CALLED = Deviation(math.inf, math.inf, "the module was not called")
# By module path, and those of the whole network.
Outputs = tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]


def verify(
    conversion: Conversion,
    *,
    reference: Source | None = None,
    weights: Path | None = None,
    images: Sequence[Path] = (),
    cases: Sequence[Case] | None = None,
    tolerance: float = TOLERANCE,
    worker: PaddleWorker | None = None,
    without_paddle: bool = False,
) -> ParityResult:
    """Compare a converted model with Paddle and with the released graph, layer by layer.

    Args:
        conversion: the model and its Paddle source.
        reference: an inference model whose program runs the source's weights (see
            `paddle2torch.converter.parity.programs.find_reference`); the source itself by default.
        weights: a `.pth` or `.safetensors` to check in place of the conversion's own tensors.
        images: the user's images, in place of the rendered text.
        cases: the very batches to run, in place of both.
        tolerance: largest relative error allowed for any layer, in double precision.
        worker: a running Paddle process; one is started for this call otherwise.
        without_paddle: whether to compare with the graph alone.

    Raises:
        ParityError: operators and modules cannot be paired.
        PaddleError: Paddle is missing or failed.
        MappingError: weights or reference are of another architecture.
        SourceError: a file cannot be read, or the tolerance is none.
    """
    if not 0 < tolerance < math.inf:
        raise SourceError(f"--tolerance: {tolerance} is no relative error that is allowed; give a small number above 0")
    task, record = find_task(conversion.network.task), conversion.network.preprocessing
    with ExitStack() as stack:
        if without_paddle:
            worker = None
        elif worker is None:
            worker = stack.enter_context(PaddleWorker())
        if cases is None:
            cases = image_cases(task, record, images) if images else default_cases(task, record)
        reference = reference or conversion.source
        folded = in_layout_of(reference, conversion)
        compared = conversion if folded is None else folded.conversion
        session = stack.enter_context(Session(compared, reference, worker))
        model = compared.build() if weights is None else load_weights(conversion, weights, folded)
        labels = conversion.labels.labels if conversion.labels else None
        models = in_both_precisions(model)
        results = tuple(session.run(models, case, labels) for case in cases)
        return ParityResult(
            name=conversion.name,
            task=task.name,
            architecture=conversion.network.name,
            parameters=dict(conversion.network.parameters),
            tolerance=tolerance,
            cases=results,
            source=WeightFile(conversion.source.file, conversion.source.sha256),
            reference=WeightFile(session.reference.file, session.reference.sha256),
            weights=_digest_of_conversion(conversion) if weights is None else _digest(weights),
            versions=_versions(worker),
            engine=session.engine,
            folding=None if folded is None else Folding(folded.layers, folded.error),
        )


@dataclass(frozen=True)
class ReferenceRun:
    """The reference at work on one batch: values by name, once they are there.

    Attributes:
        single: every layer's value and the output, of the program as it is.
        double: the same in double precision.
        blank: the value before the last activation, for blank images.
    """

    single: Future[Values]
    double: Future[Values]
    blank: Future[Values]


@dataclass(frozen=True)
class PairedEngine:
    """An engine that has the program, and what its values are to the network.

    Attributes:
        engine: see there.
        layers: in the program's execution order.
    """

    engine: Engine
    layers: tuple[Layer, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The values that are the network's outputs, in its order."""
        return self.engine.program.fetches

    @property
    def values(self) -> list[str]:
        """Every layer's value, and the outputs."""
        return list(dict.fromkeys([*(layer.value for layer in self.layers), *self.outputs]))

    def by_module(self, values: Values) -> Values:
        """Module path → the value it should compute, (N, T, C) for recurrent layers."""
        return {layer.module: _as_output(values[layer.value], layer) for layer in self.layers}


def _as_output(value: np.ndarray, layer: Layer) -> np.ndarray:
    """A layer's value in the layout of its module's output."""
    if layer.time_major:
        return value.transpose(1, 0, 2)
    return value.squeeze(2) if layer.one_row and value.ndim == 4 and value.shape[2] == 1 else value


class Session:
    """A program paired with a PyTorch architecture, ready to run batches through both; a context manager.

    Args:
        conversion: the model and its Paddle source.
        reference: the inference model whose program runs the source's weights.
        worker: a running Paddle process; without one the program's graph is the reference, beside one the third
            implementation.

    Raises:
        ParityError, PaddleError, MappingError, SourceError: see `verify`.
    """

    def __init__(self, conversion: Conversion, reference: Source, worker: PaddleWorker | None) -> None:
        from paddle2torch.architectures.graph.module import module_keys, owners
        from paddle2torch.converter.parity.capture import parametrised_modules

        graph = conversion.network.graph
        if worker is None and graph is not None:
            raise ParityError(
                f"{conversion.name}: a model converted by its graph cannot be verified by the same graph; compare it "
                "with Paddle (leave out --reference)"
            )
        self.reference = reference
        self._conversion = conversion
        self._folder = Scratch()
        prepared = prepare_program(conversion, reference)
        engines: list[Engine] = []
        if worker is not None:
            engines.append(PaddleEngine(prepared, worker, Path(self._folder.name)))
        if graph is None:  # a graph cannot be compared with itself
            engines.append(GraphEngine(prepared))
        model = conversion.build()
        owned = None if graph is None else owners(graph)
        modules = parametrised_modules(model) if owned is None else list(dict.fromkeys(owned.values()))
        absent = [path for path in modules if f"{path}.".startswith(conversion.network.optional or ("\0",))]

        def paired(program: ReferenceProgram, keys: Mapping[str, str]) -> tuple[Layer, ...]:
            return pair_layers(program, keys, modules, absent, owned)

        self._paired, *others = [
            PairedEngine(engine, _laid_out(paired(engine.program, prepared.keys), model, graph is not None))
            for engine in engines
        ]
        # What the layers of a graph are called → the values that they compute there.
        self._values: dict[str, str] | None = None
        if graph is not None:
            from paddle2torch.converter.parity.graph_engine import reference_program

            own = paired(reference_program(graph), module_keys(graph))
            self._values = {layer.module: layer.value for layer in own}
        self._third = others[0] if others else None
        self.engine, self.layers, self.outputs = self._paired.engine.name, self._paired.layers, self._paired.outputs
        self._pre_activation = next(layer.value for layer in self.layers if layer.pre_activation)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self, models: Mapping[Precision, Any], case: Case, labels: Sequence[str] | None = None) -> CaseResult:
        """Run one batch through all, Paddle at the same time as PyTorch, and compare.

        Args:
            models: the PyTorch network in both precisions.
            case: the batch.
            labels: a text per class, where known.
        """
        started = self.start_reference(case)
        outputs, third = self.run_torch(models, case), self.ask_third(case)
        return self.measure(case, started, outputs, labels, third)

    def start_reference(self, case: Case) -> ReferenceRun:
        """Have the reference work on a batch, in the background if it is Paddle."""
        engine, fetch = self._paired.engine, self._paired.values
        return ReferenceRun(
            single=engine.submit(case.array, fetch, "single"),
            double=engine.submit(case.array, fetch, "double"),
            blank=engine.submit(blank(case.array), [self._pre_activation], "single"),
        )

    def ask_third(self, case: Case) -> Outputs | None:
        """Layer outputs and outputs of the graph beside Paddle, in double precision."""
        if self._third is None:
            return None
        values = self._third.engine.submit(case.array, self._third.values, "double").result()
        return self._third.by_module(values), tuple(values[name] for name in self._third.outputs)

    def run_torch(self, models: Mapping[Precision, Any], case: Case) -> dict[Precision, Outputs]:
        """Layer outputs and outputs of the network, in both precisions."""
        from paddle2torch.converter.parity.capture import run_with_layers, run_with_values

        modules, values = [layer.module for layer in self.layers], self._values
        dtypes: dict[Precision, type] = {"single": np.float32, "double": np.float64}
        return {
            precision: run_with_layers(models[precision], modules, case.array.astype(dtype))
            if values is None
            else run_with_values(models[precision], values, case.array.astype(dtype))
            for precision, dtype in dtypes.items()
        }

    def measure(
        self,
        case: Case,
        reference: ReferenceRun,
        torch: Mapping[Precision, Outputs],
        labels: Sequence[str] | None = None,
        third: Outputs | None = None,
    ) -> CaseResult:
        """Compare what was computed."""
        single, double, task = (
            reference.single.result(),
            reference.double.result(),
            find_task(self._conversion.network.task),
        )
        pre_activation = single[self._pre_activation]
        final = tuple(single[name] for name in self.outputs), torch["single"][1]
        exact = tuple(double[name] for name in self.outputs), torch["double"][1]
        first, first_exact = (final[0][0], final[1][0]), (exact[0][0], exact[1][0])
        return CaseResult(
            case=case,
            response=response(pre_activation, reference.blank.result()[self._pre_activation]),
            layers=self._measure_layers(single, double, torch, third),
            output=measure_all(*exact),
            steepness=max(1.0, STEEPNESS * float(np.abs(pre_activation).max())),
            answers=tuple(compare_in_both_precisions(task, first, first_exact, labels)),
            maps=first if first[0].ndim == 4 else None,
            third=None if third is None else Third(measure_all(third[1], exact[1]), measure_all(exact[0], third[1])),
        )

    def _measure_layers(
        self, single: Values, double: Values, torch: Mapping[Precision, Outputs], third: Outputs | None
    ) -> tuple[LayerResult, ...]:
        singles, doubles = self._paired.by_module(single), self._paired.by_module(double)
        results = []
        for layer in self.layers:
            path, exact = layer.module, doubles[layer.module]
            found = {precision: outputs.get(path) for precision, (outputs, _) in torch.items()}
            results.append(
                LayerResult(
                    layer=layer,
                    shape=exact.shape,
                    difference=_measure_layer(exact, found["double"]),
                    single=_measure_layer(singles[path], found["single"]),
                    rounding=measure(exact, singles[path]).max_error,
                    third=None
                    if third is None
                    else Third(_measure_layer(third[0][path], found["double"]), measure(exact, third[0][path])),
                )
            )
        return tuple(results)


def _laid_out(layers: Sequence[Layer], model: Any, is_graph: bool) -> tuple[Layer, ...]:
    """The layers in the layouts of a network's modules; a graph has the program's own."""
    from torch import nn

    def laid_out(layer: Layer) -> Layer:
        module = model.get_submodule(layer.module)
        recurrent = layer.time_major and module.batch_first
        return replace(layer, time_major=recurrent, one_row=isinstance(module, nn.Conv1d))

    return tuple(replace(layer, time_major=False) if is_graph else laid_out(layer) for layer in layers)


def _measure_layer(value: np.ndarray, output: np.ndarray | None) -> Deviation:
    return NOT_CALLED if output is None else measure(value, output)


def in_both_precisions(model: Any) -> dict[Precision, Any]:
    """The network, and a copy of it in double precision."""
    return {"single": model, "double": copy.deepcopy(model).double()}


def blank(array: np.ndarray) -> np.ndarray:
    """Images of nothing: each in its own mean colour, (N, 3, H, W) like the given ones."""
    colour = array.mean((2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(colour, array.shape))


def load_weights(conversion: Conversion, path: Path, folded: Folded | None = None) -> Any:
    """The conversion's architecture with the tensors of a `.pth` or `.safetensors`, in evaluation mode.

    Args:
        conversion: of the same weights.
        path: of the file, which may have another layout than the conversion: as it is compared, or folded throughout.
        folded: the conversion as it is compared, where that is folded; the network returned has this layout.

    Raises:
        SourceError: the file is missing or neither of the two.
        MappingError: its tensors are not exactly those of the architecture, or not those of the folded conversion.
    """
    if folded is None:
        return _with_state_of(path, conversion)
    own, compared, throughout = conversion.state, folded.conversion, fold(conversion).conversion
    names = _read_state(path, own).keys()
    if throughout.state.keys() <= names and not compared.state.keys() <= names:
        state = _read_state(path, throughout.state)
        apart = [key for key, tensor in throughout.state.items() if not state[key].equal(tensor)]
        if apart:
            raise MappingError(f"{path}: is not what folding {conversion.name} gives: {shorten(apart)} differ")
        return compared.build()
    if compared.state.keys() <= names:
        return _with_state_of(path, compared)
    model = _with_state_of(path, conversion)
    network = compared.network
    assert isinstance(network, NamedNetwork)  # graphs are not folded
    state = fold_weights(model, network.architecture, network.parameters, compared.state).state
    model = compared.network.build_empty()
    model.load_state_dict(state, assign=True)
    return model.eval()


def _read_state(path: Path, names: Mapping[str, object]) -> dict[str, Any]:
    from paddle2torch.architectures.loading import read_state

    if not path.is_file():
        raise SourceError(f"{path}: there is no such file; --weights takes a .pth or .safetensors")
    try:
        return read_state(path, names)
    except (ValueError, OSError, ImportError) as error:
        raise SourceError(str(error)) from error


def _with_state_of(path: Path, conversion: Conversion) -> Any:
    state = _read_state(path, conversion.state)
    if isinstance(conversion.network, NamedNetwork):
        state = own_tensors(state, conversion.network.architecture)
    model = conversion.build()
    own = model.state_dict()
    counters = {key: tensor for key, tensor in own.items() if key.endswith(COUNTER)}
    state = counters | state  # files written by others often lack them
    expected = {key: Expected(tuple(tensor.shape), "") for key, tensor in own.items()}
    problems = match({key: tuple(tensor.shape) for key, tensor in state.items()}, expected).problems()
    if problems:
        found = [f"{len(keys)} {what} ({shorten(keys)})" for what, keys in problems.items()]
        raise MappingError(f"{path}: its tensors are not those of {conversion.network.name}: {'; '.join(found)}")
    # Assigned, not copied: the module shares its memory with the conversion.
    typed = {key: state[key].to(own[key].dtype) for key in own}
    model.load_state_dict(typed, strict=True, assign=True)
    return model.eval()


def _digest(path: Path) -> WeightFile:
    return WeightFile(spelled_out(path.name), sha256_of(path))


def _digest_of_conversion(conversion: Conversion) -> WeightFile:
    """That of the file which `convert` writes, whether it has been written or not."""
    content = safetensors_bytes(conversion.state, metadata(conversion))
    return WeightFile(f"{conversion.name}.safetensors", hashlib.sha256(content).hexdigest())


def _versions(worker: PaddleWorker | None) -> dict[str, str]:
    import torch

    return {
        "paddle2torch": __version__,
        "torch": torch.__version__,
        **({"paddlepaddle": worker.versions["paddlepaddle"]} if worker is not None else {}),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
