"""Run Paddle and PyTorch on the same input, and judge every layer, the output and the answer."""

from __future__ import annotations

import hashlib
import math
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter import __version__
from converter.errors import MappingError, SourceError
from converter.parity.compare import Answer, Difference, compare_answers, measure, response
from converter.parity.inputs import Case, default_cases, image_cases
from converter.parity.pairing import Layer, pair_layers
from converter.parity.programs import write_program
from converter.parity.reference import PaddleWorker
from converter.source import Source

if TYPE_CHECKING:
    from converter.convert import Conversion

TOLERANCE = 1e-5
# Blank paper answers 0, noise 0.014 and more, text 0.4 and more (measured over the zoo).
LEAST_RESPONSE = 1e-3


@dataclass(frozen=True)
class LayerResult:
    """One layer on one batch."""

    layer: Layer
    shape: tuple[int, ...]
    difference: Difference


@dataclass(frozen=True)
class CaseResult:
    """All that one batch showed.

    Attributes:
        case: the batch.
        response: how much of Paddle's values before the last activation is owed to the pictures, 0 to about 1.
        layers: in the program's execution order.
        output: the final output.
        answers: one per picture.
        maps: Paddle's and PyTorch's final output; detectors only.
    """

    case: Case
    response: float
    layers: tuple[LayerResult, ...]
    output: Difference
    answers: tuple[Answer, ...]
    maps: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Divergence:
    """The first layer in execution order whose error exceeds the tolerance.

    Attributes:
        case: the batch that showed it.
        result: the layer there.
        before: the layer executed before it; None where there is none.
        after: the layer executed after it; likewise.
    """

    case: Case
    result: LayerResult
    before: LayerResult | None
    after: LayerResult | None


@dataclass(frozen=True)
class WeightFile:
    """Weights that took part: which, and the file's digest."""

    name: str
    sha256: str | None


@dataclass(frozen=True)
class ParityResult:
    """The verdict on one model, with everything that it rests on.

    Attributes:
        name: of the model.
        task: "det", "rec" or "cls".
        architecture: its name.
        parameters: of the architecture.
        tolerance: largest error allowed for layers and output.
        cases: one per batch.
        source: the Paddle weights.
        reference: the file whose program ran them.
        weights: the PyTorch weights.
        versions: of what computed.
    """

    name: str
    task: str
    architecture: str
    parameters: dict[str, Any]
    tolerance: float
    cases: tuple[CaseResult, ...]
    source: WeightFile
    reference: WeightFile
    weights: WeightFile
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether all holds."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """What does not hold, a line each; the first divergence first."""
        lines = [] if self.divergence is None else [_describe_divergence(self.divergence, self.tolerance)]
        for result in self.cases:
            name = result.case.name
            if not result.response >= LEAST_RESPONSE:
                lines.append(
                    f"{name}: proves nothing: Paddle's output is nearly constant, blank pictures give the same but for"
                    f" {result.response:.1e} of it (at least {LEAST_RESPONSE:g} is needed); give another picture"
                )
            if not result.output.error <= self.tolerance:
                lines.append(f"{name}: final output: {describe_difference(result.output)}")
            lines += [
                f"{name}: picture {index}: Paddle says {answer.reference}, PyTorch {answer.candidate}"
                + ("" if answer.overlap is None else f", overlap {answer.overlap:.4f}")
                for index, answer in enumerate(result.answers, 1)
                if not answer.agrees
            ]
        return lines

    @property
    def divergence(self) -> Divergence | None:
        """The first layer in execution order that diverges on any batch."""
        found = [
            (index, result) for result in self.cases for index, layer in enumerate(result.layers)
            if not layer.difference.error <= self.tolerance
        ]  # fmt: skip
        if not found:
            return None
        index, result = min(found, key=lambda pair: pair[0])
        layers = result.layers
        return Divergence(
            result.case,
            layers[index],
            layers[index - 1] if index else None,
            layers[index + 1] if index + 1 < len(layers) else None,
        )

    @property
    def worst(self) -> list[LayerResult]:
        """Every layer at its worst over the batches, the worst layer first."""
        per_layer = zip(*(result.layers for result in self.cases), strict=True)
        worst = [max(results, key=lambda result: result.difference.error) for results in per_layer]
        return sorted(worst, key=lambda result: -result.difference.error)


def describe_difference(difference: Difference) -> str:
    """One phrase for a person."""
    if difference.problem is not None:
        return difference.problem
    return f"error {difference.max_error:.1e} (mean {difference.mean_error:.1e})"


def _describe_divergence(found: Divergence, tolerance: float) -> str:
    layer = found.result.layer
    neighbours = [
        f"{word} it {neighbour.layer.module} with {neighbour.difference.error:.1e}"
        for word, neighbour in (("before", found.before), ("after", found.after))
        if neighbour is not None
    ]
    return (
        f"{found.case.name}: first divergence at {layer.module} ({layer.operator}; {', '.join(layer.parameters)}):"
        f" {describe_difference(found.result.difference)}, tolerance {tolerance:g}; {', '.join(neighbours)}"
    )


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
        tolerance: largest relative error allowed for any layer and the output.
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
        results = tuple(session.run(model, case, labels) for case in cases)
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
        self._output = program.fetches[0]
        self._pre_activation = next(layer.value for layer in self.layers if layer.pre_activation)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def paddle_values(self, case: Case) -> Mapping[str, np.ndarray]:
        """Every layer's value and the output in Paddle, by value name."""
        return self._worker.run(case.array, self._fetch)

    @property
    def _fetch(self) -> list[str]:
        return list(dict.fromkeys([*(layer.value for layer in self.layers), self._output]))

    def run(self, model: Any, case: Case, labels: Sequence[str] | None = None) -> CaseResult:
        """Run one batch through both frameworks, at the same time, and compare."""
        from converter.parity.capture import run_with_layers

        in_paddle = self._worker.submit(case.array, self._fetch)
        on_blank = self._worker.submit(blank(case.array), [self._pre_activation])
        outputs, final = run_with_layers(model, [layer.module for layer in self.layers], case.array)
        return self.judge(case, in_paddle.result(), on_blank.result()[self._pre_activation], outputs, final, labels)

    def judge(
        self,
        case: Case,
        values: Mapping[str, np.ndarray],
        blank_value: np.ndarray,
        outputs: Mapping[str, np.ndarray],
        final: np.ndarray,
        labels: Sequence[str] | None = None,
    ) -> CaseResult:
        """Compare what the two frameworks computed.

        Args:
            case: the batch.
            values: Paddle's, by value name.
            blank_value: Paddle's value before the last activation for blank pictures.
            outputs: the modules', by module path.
            final: PyTorch's final output.
            labels: a text per class, where known.
        """
        task = self._conversion.architecture.task
        return CaseResult(
            case=case,
            response=response(values[self._pre_activation], blank_value),
            layers=tuple(_compare_layer(layer, values[layer.value], outputs.get(layer.module)) for layer in self.layers),
            output=measure(values[self._output], final),
            answers=tuple(compare_answers(task, values[self._output], final, labels)),
            maps=(values[self._output], final) if task == "det" else None,
        )


def _compare_layer(layer: Layer, value: np.ndarray, output: np.ndarray | None) -> LayerResult:
    if layer.time_major:
        value = value.transpose(1, 0, 2)
    if output is None:
        difference = Difference(math.inf, math.inf, "the module was not called")
    else:
        difference = measure(value, output)
    return LayerResult(layer, value.shape, difference)


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
    from converter.rules import shorten

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
