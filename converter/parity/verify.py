"""Run Paddle and PyTorch on the same input, and judge every layer, the output and the answer.

Layers and output are judged in double precision: both frameworks run the same operators on the same weights without
rounding to speak of, so that equal networks agree to some 1e-14 and a tight tolerance is honest. In single precision
the frameworks' own rounding reaches 1e-5 in a plain network and 1e-2 in a recurrent one whose weights make it chaotic;
those errors are reported beside, and what people use, the answer, is compared in single precision.
"""

from __future__ import annotations

import copy
import hashlib
import math
import platform
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter import __version__
from converter.errors import MappingError, SourceError
from converter.parity.compare import Difference, judge_answers, measure, response
from converter.parity.inputs import Case, default_cases, image_cases
from converter.parity.pairing import Layer, pair_layers
from converter.parity.programs import write_program
from converter.parity.reference import PaddleWorker, Precision
from converter.parity.result import TOLERANCE, CaseResult, LayerResult, ParityResult, WeightFile
from converter.rules import shorten
from converter.source import Source

if TYPE_CHECKING:
    from converter.convert import Conversion

# A change d of all values before a sigmoid or softmax changes the relative result by at most 2d.
STEEPNESS = 2.0
NOT_CALLED = Difference(math.inf, math.inf, "the module was not called")
Outputs = tuple[dict[str, np.ndarray], np.ndarray]  # by module path, and the final one


def verify(
    conversion: Conversion,
    *,
    reference: Source | None = None,
    weights: Path | None = None,
    images: Sequence[Path] = (),
    cases: Sequence[Case] | None = None,
    tolerance: float = TOLERANCE,
    worker: PaddleWorker | None = None,
) -> ParityResult:
    """Compare a converted model with Paddle, layer by layer.

    Args:
        conversion: the model and its Paddle source.
        reference: an inference model whose program runs the source's weights (see
            `converter.parity.programs.find_reference`); the source itself by default.
        weights: a `.pth` or `.safetensors` to check in place of the conversion's own tensors.
        images: the user's pictures, in place of the rendered text.
        cases: the very batches to run, in place of both.
        tolerance: largest relative error allowed for any layer, in double precision.
        worker: a running Paddle process; one is started for this call otherwise.

    Raises:
        ParityError: operators and modules cannot be paired.
        PaddleError: Paddle is missing or failed.
        MappingError: weights or reference are of another architecture.
        SourceError: a file cannot be read.
    """
    task, record = conversion.architecture.task, conversion.architecture.preprocessing
    with ExitStack() as stack:
        worker = worker or stack.enter_context(PaddleWorker())
        if cases is None:
            cases = image_cases(task, record, images) if images else default_cases(task, record)
        session = stack.enter_context(Session(conversion, reference or conversion.source, worker))
        model = conversion.build() if weights is None else load_weights(conversion, weights)
        labels = conversion.labels.labels if conversion.labels else None
        models = in_both_precisions(model)
        results = tuple(session.run(models, case, labels) for case in cases)
        return ParityResult(
            name=conversion.name,
            task=task,
            architecture=conversion.architecture.name,
            parameters=conversion.parameters,
            tolerance=tolerance,
            cases=results,
            source=WeightFile(conversion.source.path.name, conversion.source.sha256),
            reference=WeightFile(session.reference.path.name, session.reference.sha256),
            weights=WeightFile("converted, in memory", None) if weights is None else _digest(weights),
            versions=_versions(worker),
        )


@dataclass(frozen=True)
class PaddleRun:
    """Paddle at work on one batch: values by name, once they are there.

    Attributes:
        single: every layer's value and the output, of the program as it is.
        double: the same in double precision.
        blank: the value before the last activation, for blank pictures.
    """

    single: Future[dict[str, np.ndarray]]
    double: Future[dict[str, np.ndarray]]
    blank: Future[dict[str, np.ndarray]]


class Session:
    """A Paddle program paired with a PyTorch architecture, ready to run batches through both; a context manager.

    Args:
        conversion: the model and its Paddle source.
        reference: the inference model whose program runs the source's weights.
        worker: a running Paddle process.

    Raises:
        ParityError, PaddleError, MappingError, SourceError: see `verify`.
    """

    def __init__(self, conversion: Conversion, reference: Source, worker: PaddleWorker) -> None:
        from converter.parity.capture import parametrised_modules

        self.reference = reference
        self._conversion, self._worker = conversion, worker
        self._folder = tempfile.TemporaryDirectory(prefix="paddle2torch-program-")
        prepared = write_program(conversion, reference, Path(self._folder.name))
        program = worker.load(prepared.folder, prepared.form)
        modules = parametrised_modules(conversion.build())
        absent = [path for path in modules if f"{path}.".startswith(conversion.architecture.optional or ("\0",))]
        self.layers = pair_layers(program, prepared.keys, modules, absent)
        self.output = program.fetches[0]
        self._pre_activation = next(layer.value for layer in self.layers if layer.pre_activation)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self, models: Mapping[Precision, Any], case: Case, labels: Sequence[str] | None = None) -> CaseResult:
        """Run one batch through both frameworks, at the same time, and compare.

        Args:
            models: the PyTorch network in both precisions.
            case: the batch.
            labels: a text per class, where known.
        """
        return self.judge(case, self.start_paddle(case), self.run_torch(models, case), labels)

    def start_paddle(self, case: Case) -> PaddleRun:
        """Have Paddle work on a batch, in the background."""
        fetch = list(dict.fromkeys([*(layer.value for layer in self.layers), self.output]))
        return PaddleRun(
            single=self._worker.submit(case.array, fetch, "single"),
            double=self._worker.submit(case.array, fetch, "double"),
            blank=self._worker.submit(blank(case.array), [self._pre_activation], "single"),
        )

    def run_torch(self, models: Mapping[Precision, Any], case: Case) -> dict[Precision, Outputs]:
        """Layer outputs and final output of the network, in both precisions."""
        from converter.parity.capture import run_with_layers

        modules = [layer.module for layer in self.layers]
        dtypes: dict[Precision, type] = {"single": np.float32, "double": np.float64}
        return {
            precision: run_with_layers(models[precision], modules, case.array.astype(dtype))
            for precision, dtype in dtypes.items()
        }

    def judge(
        self,
        case: Case,
        paddle: PaddleRun,
        torch: Mapping[Precision, Outputs],
        labels: Sequence[str] | None = None,
    ) -> CaseResult:
        """Compare what the two frameworks computed."""
        single, double, task = paddle.single.result(), paddle.double.result(), self._conversion.architecture.task
        pre_activation = single[self._pre_activation]
        final = single[self.output], torch["single"][1]
        exact = double[self.output], torch["double"][1]
        return CaseResult(
            case=case,
            response=response(pre_activation, paddle.blank.result()[self._pre_activation]),
            layers=tuple(self._judge_layer(layer, single, double, torch) for layer in self.layers),
            output=measure(*exact),
            steepness=max(1.0, STEEPNESS * float(np.abs(pre_activation).max())),
            answers=tuple(judge_answers(task, final, exact, labels)),
            maps=final if task == "det" else None,
        )

    @staticmethod
    def _judge_layer(
        layer: Layer,
        single: Mapping[str, np.ndarray],
        double: Mapping[str, np.ndarray],
        torch: Mapping[Precision, Outputs],
    ) -> LayerResult:
        values = {"single": single[layer.value], "double": double[layer.value]}
        if layer.time_major:
            values = {precision: value.transpose(1, 0, 2) for precision, value in values.items()}
        double_, single_ = (_measure_layer(values[p], torch[p][0].get(layer.module)) for p in ("double", "single"))
        rounding = measure(values["double"], values["single"]).max_error
        return LayerResult(layer, values["double"].shape, double_, single_, rounding)


def _measure_layer(value: np.ndarray, output: np.ndarray | None) -> Difference:
    return NOT_CALLED if output is None else measure(value, output)


def in_both_precisions(model: Any) -> dict[Precision, Any]:
    """The network, and a copy of it in double precision."""
    return {"single": model, "double": copy.deepcopy(model).double()}


def blank(array: np.ndarray) -> np.ndarray:
    """Pictures of nothing: each in its own mean colour, (N, 3, H, W) like the given ones."""
    colour = array.mean((2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(colour, array.shape))


def load_weights(conversion: Conversion, path: Path) -> Any:
    """The conversion's architecture with the tensors of a `.pth` or `.safetensors`, in evaluation mode.

    Raises:
        SourceError: the file is missing or neither of the two.
        MappingError: its tensors are not exactly those of the architecture.
    """
    from architectures.loading import read_state

    if not path.is_file():
        raise SourceError(f"{path}: there is no such file; --weights takes a .pth or .safetensors")
    try:
        state = read_state(path)
    except (ValueError, OSError, ImportError) as error:
        raise SourceError(str(error)) from error
    model = conversion.build()
    own = model.state_dict()
    counters = {key: tensor for key, tensor in own.items() if key.endswith("num_batches_tracked")}
    state = counters | state  # files written by others often lack them
    missing, left_over = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [key for key in sorted(own.keys() & state.keys()) if own[key].shape != state[key].shape]
    problems = [("missing", missing), ("left over", left_over), ("of another shape", shapes)]
    found = [f"{len(keys)} {what} ({shorten(keys)})" for what, keys in problems if keys]
    if found:
        raise MappingError(f"{path}: its tensors are not those of {conversion.architecture.name}: {'; '.join(found)}")
    # Assigned, not copied: the module shares its memory with the conversion.
    typed = {key: state[key].to(own[key].dtype) for key in own}
    model.load_state_dict(typed, strict=True, assign=True)
    return model.eval()


def _digest(path: Path) -> WeightFile:
    with path.open("rb") as stream:
        return WeightFile(path.name, hashlib.file_digest(stream, "sha256").hexdigest())


def _versions(worker: PaddleWorker) -> dict[str, str]:
    import torch

    return {
        "paddle2torch": __version__,
        "torch": torch.__version__,
        "paddlepaddle": worker.versions["paddlepaddle"],
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
