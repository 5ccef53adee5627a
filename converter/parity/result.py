"""The verdict on a model, and everything that it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.parity.compare import Answer, Difference
from converter.parity.inputs import Case
from converter.parity.pairing import Layer
from converter.rules import shorten

# Equal networks differ by some 1e-14 in double precision, by 2e-11 where generated recurrent weights make them chaotic
# (measured over the zoo); a tensor off by 1 % of its scale shows as 4e-7 at least.
TOLERANCE = 1e-8
# Blank paper answers 0, noise 0.014 and more, text 0.4 and more (measured over the zoo).
LEAST_RESPONSE = 1e-3


@dataclass(frozen=True)
class LayerResult:
    """One layer on one batch.

    Attributes:
        layer: which.
        shape: of its output.
        difference: PyTorch against Paddle in double precision, what is judged.
        single: the same in single precision, where rounding has its part.
        rounding: Paddle's own rounding: its single against its double precision, as a largest relative error.
    """

    layer: Layer
    shape: tuple[int, ...]
    difference: Difference
    single: Difference
    rounding: float


@dataclass(frozen=True)
class CaseResult:
    """All that one batch showed.

    Attributes:
        case: the batch.
        response: how much of Paddle's values before the last activation is owed to the pictures, 0 to about 1.
        layers: in the program's execution order.
        output: the final output, in double precision.
        steepness: how much larger than the error before it the last activation may make that of the output.
        answers: one per picture, from the final output in single precision.
        maps: Paddle's and PyTorch's final output in single precision; detectors only.
    """

    case: Case
    response: float
    layers: tuple[LayerResult, ...]
    output: Difference
    steepness: float
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
        tolerance: largest error allowed for a layer, in double precision.
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
            if result.response < LEAST_RESPONSE:
                lines.append(
                    f"{name}: proves nothing: Paddle's output is nearly constant, {result.response:.1e} of it comes"
                    f" from the picture (the least is {LEAST_RESPONSE:g}); give another picture, or look at the weights"
                )
            allowed = self.tolerance * result.steepness
            if not result.output.error <= allowed:
                lines.append(f"{name}: final output: {describe_difference(result.output)}, {allowed:.1e} allowed")
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
    neighbours = "".join(
        f"; {word} it {neighbour.layer.module} has {neighbour.difference.error:.1e}"
        for word, neighbour in (("before", found.before), ("after", found.after))
        if neighbour is not None
    )
    return (
        f"{found.case.name}: first divergence at {layer.module} ({layer.operator} with"
        f" {shorten(list(layer.parameters))}): {describe_difference(found.result.difference)}, tolerance"
        f" {tolerance:g}{neighbours}"
    )
