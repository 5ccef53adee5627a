"""The result for a model, and everything that it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle2torch.architectures.matching import shorten
from paddle2torch.converter.parity.compare import Deviation
from paddle2torch.converter.parity.inputs import Case
from paddle2torch.converter.parity.pairing import Layer
from paddle2torch.converter.tasks import Answer

# Equal networks differ by some 1e-14 in double precision, by 2e-11 where generated recurrent weights make them chaotic
# (measured over the zoo); a tensor off by 1 % of its scale shows as 4e-7 at least.
TOLERANCE = 1e-8
# Blank paper answers 0, noise 0.014 and more, text 0.4 and more (measured over the zoo).
LEAST_RESPONSE = 1e-3


@dataclass(frozen=True)
class Third:
    """What the released graph, run by PyTorch, says to a value, in double precision.

    Attributes:
        module: PyTorch's module against the graph.
        paddle: the graph against Paddle.
    """

    module: Deviation
    paddle: Deviation

    @property
    def error(self) -> float:
        """The larger of the two."""
        return max(self.module.error, self.paddle.error)


@dataclass(frozen=True)
class LayerResult:
    """One layer on one batch.

    Attributes:
        layer: which.
        shape: of its output.
        difference: PyTorch against the reference in double precision, what decides.
        single: the same in single precision, where rounding has its part.
        rounding: the reference's own: its single against its double precision, as a largest relative error.
        third: the graph beside Paddle, where both were asked.
    """

    layer: Layer
    shape: tuple[int, ...]
    difference: Deviation
    single: Deviation
    rounding: float
    third: Third | None = None

    @property
    def error(self) -> float:
        """The largest between any two that were asked."""
        return max(self.difference.error, 0.0 if self.third is None else self.third.error)


@dataclass(frozen=True)
class CaseResult:
    """All that one batch showed.

    Attributes:
        case: the batch.
        response: how much of the reference's values before the last activation is owed to the images, 0 to about 1.
        layers: in the program's execution order.
        output: the final output, in double precision.
        steepness: how much larger than the error before it the last activation may make that of the output.
        answers: one per image, from the final output in single precision.
        maps: the reference's and PyTorch's final output in single precision; detectors only.
        third: what the graph says to the final output, where it was asked beside Paddle.
    """

    case: Case
    response: float
    layers: tuple[LayerResult, ...]
    output: Deviation
    steepness: float
    answers: tuple[Answer, ...]
    maps: tuple[np.ndarray, np.ndarray] | None = None
    third: Third | None = None


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
class Folding:
    """How the weights of training came into a program whose layers are folded.

    Attributes:
        layers: how many convolutions took the place of branches and norms.
        error: how far both layouts are apart in double precision, relative to the largest value of any module.
    """

    layers: int
    error: float


@dataclass(frozen=True)
class ParityResult:
    """The result for one model, with everything that it rests on.

    Attributes:
        name: of the model.
        task: "det", "rec" or "cls".
        architecture: its name.
        parameters: of the architecture.
        tolerance: largest error allowed for a layer, in double precision.
        cases: one per batch.
        source: the Paddle weights.
        reference: the file whose program ran them.
        weights: the PyTorch weights.
        versions: of what computed.
        engine: what PyTorch was compared with: "Paddle", or "the graph", run by PyTorch.
        folding: what was folded first, of a checkpoint whose program has a folded layout; both sides have it then.
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
    engine: str = "Paddle"
    folding: Folding | None = None

    @property
    def passed(self) -> bool:
        """Whether all holds."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """What does not hold, a line each; the first divergence first."""
        lines = [] if self.divergence is None else [self._describe(self.divergence)]
        for result in self.cases:
            name = result.case.name
            if result.response < LEAST_RESPONSE:
                lines.append(
                    f"{name}: says nothing: the output of {self.engine} is nearly constant, {result.response:.1e} of"
                    f" it comes from the image (the least is {LEAST_RESPONSE:g}); give another image, or look at"
                    " the weights"
                )
            allowed = self.tolerance * result.steepness
            third = result.third
            if not max(result.output.error, 0.0 if third is None else third.error) <= allowed:
                lines.append(
                    f"{name}: final output: {describe_difference(result.output)}, {allowed:.1e} allowed"
                    + ("" if third is None else f"; {alone(result.output, third, allowed)}")
                )
            lines += [
                f"{name}: image {index}: {self.engine} says {answer.reference}, PyTorch {answer.candidate}"
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
            if not layer.error <= self.tolerance
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

    @property
    def worst_third(self) -> float | None:
        """The largest error between the graph and the other two, anywhere; None where the graph was not asked."""
        thirds = [part for case in self.cases for part in (case.third, *(layer.third for layer in case.layers))]
        return max((third.error for third in thirds if third is not None), default=None)

    def _describe(self, found: Divergence) -> str:
        result, layer = found.result, found.result.layer
        neighbours = "".join(
            f"; {word} it {neighbour.layer.module} has {neighbour.error:.1e}"
            for word, neighbour in (("before", found.before), ("after", found.after))
            if neighbour is not None
        )
        outlier = "" if result.third is None else f"; {alone(result.difference, result.third, self.tolerance)}"
        return (
            f"{found.case.name}: first divergence at {layer.module} ({layer.operator} with"
            f" {shorten(list(layer.parameters))}): {describe_difference(result.difference)}, tolerance"
            f" {self.tolerance:g}{outlier}{neighbours}"
        )


def alone(difference: Deviation, third: Third, tolerance: float) -> str:
    """Which of the three stands alone where they do not all agree.

    Args:
        difference: PyTorch's module against Paddle.
        third: the graph against both.
        tolerance: above which two do not agree.
    """
    agreeing = {
        "the PyTorch module": third.paddle,
        "Paddle": third.module,
        "the graph run by PyTorch": difference,
    }
    left = [name for name, others in agreeing.items() if others.error <= tolerance]
    if len(left) != 1:
        return "no two of Paddle, the graph and the module agree"
    return f"{left[0]} stands alone, the other two agree to {agreeing[left[0]].error:.1e}"


def describe_difference(difference: Deviation) -> str:
    """One phrase for a person."""
    if difference.problem is not None:
        return difference.problem
    return f"error {difference.max_error:.1e} (mean {difference.mean_error:.1e})"
