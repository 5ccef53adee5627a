"""Is the checker any good? Break converted networks in small ways, one at a time, and count what parity catches.

    python scripts/checks/sensitivity.py ch_PP-OCRv3_det french_mobile_v2.0_rec [--mirror DIR] [--json FILE]

Per kind of change the table has how many of how many were caught, the smallest error that any of them caused, and what
was not caught. Judged is what `verify` judges, with its tolerance: every layer and the output, in double precision. A
change to a tensor first shows in the layer that owns it, so that this layer is run alone, on the input that it has in
the unbroken network; only where that does not show it, and for changes between layers, the whole network is run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from paddle2torch.architectures.layers import Hardsigmoid02
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.parity.capture import ConstantsAsStored, run_with_layers
from paddle2torch.converter.parity.compare import measure, measure_all
from paddle2torch.converter.parity.inputs import Case, default_cases
from paddle2torch.converter.parity.pairing import Layer
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.parity.result import TOLERANCE
from paddle2torch.converter.parity.verify import Session
from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher

SEED = 4
SHIFT = 0.01  # of a tensor's root mean square


@dataclass
class Tally:
    """What became of one kind of change.

    Attributes:
        total: changes made.
        caught: changes that a layer or the output showed beyond the tolerance.
        smallest: the smallest error of a caught change, on the first batch that shows it.
        hardest: the change that caused it.
        missed: what was changed → the error it caused.
    """

    total: int = 0
    caught: int = 0
    smallest: float = math.inf
    hardest: str = ""
    missed: dict[str, float] = field(default_factory=dict)

    def count(self, what: str, error: float, tolerance: float) -> None:
        """Add one change."""
        self.total += 1
        if error > tolerance:
            self.caught += 1
            if error < self.smallest:
                self.smallest, self.hardest = error, what
        else:
            self.missed[what] = error


class Probe:
    """A converted network in double precision, which can be broken and judged against Paddle.

    Args:
        conversion: the network.
        reference: the inference model that runs its weights in Paddle.
        worker: a running Paddle process.
        cases: what to judge on; the default ones of `verify` otherwise.
        tolerance: errors above it count as caught.
    """

    def __init__(
        self,
        conversion: Conversion,
        reference: Source,
        worker: PaddleWorker,
        cases: Sequence[Case] | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        task, preprocessing = find_task(conversion.network.task), conversion.network.preprocessing
        self.tolerance = tolerance
        self.model = conversion.build().double()
        with Session(conversion, reference, worker) as session:
            self.layers = session.layers
            runs = [(case, session.start_reference(case)) for case in (cases or default_cases(task, preprocessing))]
            self._batches = [
                _Batch(self.model, self.layers, case.array.astype(np.float64), run.double.result(), session.outputs)
                for case, run in runs
            ]
        self._order = {layer.module: index for index, layer in enumerate(self.layers)}

    @property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """Path and module of everything that runs in evaluation."""
        return [(path, module) for path, module in self.model.named_modules() if path in self._batches[0].called]

    def error(self, changed: Sequence[str] = ()) -> float:
        """The first error beyond the tolerance, or the largest error; infinite where the network does not run.

        Args:
            changed: keys of the tensors, or paths of the layers, that were changed; none for anything between layers.
        """
        owners = {key if key in self._order else key.rpartition(".")[0] for key in changed}
        first = min(owners, key=self._order.__getitem__, default=None)
        largest = 0.0
        for batch in self._batches:
            if first is not None:
                largest = max(largest, batch.layer_error(self.model, self.layers[self._order[first]]))
            if largest <= self.tolerance:
                largest = max(largest, batch.network_error(self.model, self.layers))
            if largest > self.tolerance:
                break
        return largest


class _Batch:
    """One batch: Paddle's values, and what every layer of the unbroken network is given."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        inputs: np.ndarray,
        values: dict[str, np.ndarray],
        outputs: Sequence[str],
    ) -> None:
        self.inputs, self.outputs = inputs, tuple(values[name] for name in outputs)
        self.values = {
            layer.module: values[layer.value].transpose(1, 0, 2) if layer.time_major else values[layer.value]
            for layer in layers
        }
        self.called: set[str] = set()
        self._given: dict[str, Tensor] = {}
        handles = [module.register_forward_pre_hook(self._keep(path)) for path, module in model.named_modules()]
        run_with_layers(model, [], inputs)
        for handle in handles:
            handle.remove()

    def _keep(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self.called.add(path)
            if path in self.values:
                self._given[path] = arguments[0].clone()

        return hook

    def layer_error(self, model: nn.Module, layer: Layer) -> float:
        """The error of one layer, given what it is given in the unbroken network."""
        with torch.inference_mode(), ConstantsAsStored():
            output = model.get_submodule(layer.module)(self._given[layer.module])
        tensor = output[0] if isinstance(output, tuple) else output
        return measure(self.values[layer.module], tensor.numpy()).error

    def network_error(self, model: nn.Module, layers: Sequence[Layer]) -> float:
        """The largest error of any layer and the output."""
        try:
            outputs, final = run_with_layers(model, [layer.module for layer in layers], self.inputs)
        except (RuntimeError, ValueError):  # sizes that do not fit each other
            return math.inf
        return max(
            measure_all(self.outputs, final).error,
            *(measure(self.values[layer.module], outputs[layer.module]).error for layer in layers),
        )


# ---- changes -----------------------------------------------------------------------------------------------------


@contextmanager
def replaced(module: nn.Module, attribute: str, value: object) -> Iterator[None]:
    """Give a module another attribute (or submodule) for a while."""
    before = getattr(module, attribute)
    setattr(module, attribute, value)
    try:
        yield
    finally:
        setattr(module, attribute, before)


@contextmanager
def overwritten(*pairs: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Give tensors other values for a while."""
    changes = [(tensor, tensor.clone(), values.clone()) for tensor, values in pairs]
    try:
        for tensor, _, values in changes:
            tensor.copy_(values)
        yield
    finally:
        for tensor, values, _ in changes:
            tensor.copy_(values)


def shift(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """The tensor with random values of 1 % of its scale added; never lower, so that variances stay positive."""
    scale = tensor.square().mean().sqrt()
    return tensor + SHIFT * scale * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).abs()


def shifted_tensors(probe: Probe) -> Tally:
    """Each tensor shifted by 1 % of its scale."""
    tally, generator = Tally(), torch.Generator().manual_seed(SEED)
    state = probe.model.state_dict()
    for key in (key for layer in probe.layers for key in layer.parameters):
        with overwritten((state[key], shift(state[key], generator))):
            tally.count(key, probe.error([key]), probe.tolerance)
    return tally


def dropped_transposes(probe: Probe) -> Tally:
    """Each Linear's weight as it would be without its transpose: the same numbers in a row, cut into rows elsewhere."""
    tally = Tally()
    for path, module in _modules(probe, nn.Linear):
        weight = module.weight.data
        with overwritten((weight, weight.T.reshape(weight.shape))):
            tally.count(f"{path}.weight {list(weight.shape)}", probe.error([path]), probe.tolerance)
    return tally


def swapped_tensors(probe: Probe) -> Tally:
    """Each pair of equal-shaped tensors swapped."""
    tally, state = Tally(), probe.model.state_dict()
    groups: dict[tuple[int, ...], list[str]] = {}
    for key in (key for layer in probe.layers for key in layer.parameters):
        groups.setdefault(tuple(state[key].shape), []).append(key)
    for first, second in itertools.chain.from_iterable(itertools.combinations(keys, 2) for keys in groups.values()):
        a, b = state[first], state[second]
        with overwritten((a, b), (b, a)):
            tally.count(f"{first} ↔ {second}", probe.error([first, second]), probe.tolerance)
    return tally


def other_epsilons(kind: type[nn.Module], others: dict[float, float]) -> Change:
    """Each normalisation's epsilon replaced."""

    def change(probe: Probe) -> Tally:
        tally = Tally()
        for path, module in _modules(probe, kind):
            with replaced(module, "eps", others[module.eps]):
                tally.count(f"{path}.eps", probe.error([path]), probe.tolerance)
        return tally

    return change


def other_modules(others: dict[type[nn.Module], type[nn.Module]]) -> Change:
    """Each module of some types replaced by one of another."""

    def change(probe: Probe) -> Tally:
        tally = Tally()
        for path, module in _modules(probe, *others):
            parent, _, name = path.rpartition(".")
            with replaced(probe.model.get_submodule(parent), name, others[type(module)]()):
                tally.count(path, probe.error(), probe.tolerance)
        return tally

    return change


def flipped_ceil_modes(probe: Probe) -> Tally:
    """Each pooling's ceil_mode flipped."""
    tally = Tally()
    for path, module in _modules(probe, nn.MaxPool2d, nn.AvgPool2d):
        with replaced(module, "ceil_mode", not module.ceil_mode):
            tally.count(f"{path}.ceil_mode", probe.error(), probe.tolerance)
    return tally


def _modules(probe: Probe, *kinds: type[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(path, module) for path, module in probe.modules if type(module) in kinds]


Change = Callable[[Probe], Tally]
SHIFTED = "tensor + 1 % of its scale"
# What shows in the changed layer itself, so that it takes seconds; a test keeps these.
LOCAL_CHANGES: dict[str, Change] = {
    SHIFTED: shifted_tensors,
    "transpose dropped": dropped_transposes,
    "batch norm eps 1e-5 → 1e-3": other_epsilons(nn.BatchNorm2d, {1e-5: 1e-3}),
    "layer norm eps 1e-5 ↔ 1e-6": other_epsilons(nn.LayerNorm, {1e-5: 1e-6, 1e-6: 1e-5}),
}
CHANGES: dict[str, Change] = LOCAL_CHANGES | {
    "equal-shaped tensors swapped": swapped_tensors,
    "hard sigmoid slope 0.2 ↔ 1/6": other_modules({Hardsigmoid02: nn.Hardsigmoid, nn.Hardsigmoid: Hardsigmoid02}),
    "Hardswish ↔ ReLU": other_modules({nn.Hardswish: nn.ReLU, nn.ReLU: nn.Hardswish}),
    "ceil_mode flipped": flipped_ceil_modes,
}

# Why a change that was made need not show: (pattern of "kind: what", reason).
REASONS = (
    (r".*lstm\.bias_hh_(\w+) ↔ .*lstm\.bias_ih_\1", "the two are only ever added"),
    (r"ceil_mode.*", "at the sizes that the network takes nothing is left over to round"),
    (r".*\.eps", "every variance is so large that neither epsilon counts"),
    (r"Hardswish ↔ ReLU.*", "on these pictures its inputs are all below -3 or above 3, where both agree"),
)


def reason(kind: str, what: str) -> str:
    """Why this change did not show; empty where no reason is known."""
    return next((text for pattern, text in REASONS if re.fullmatch(pattern, f"{kind}: {what}")), "")


# ---- the script --------------------------------------------------------------------------------------------------


def examine(probe: Probe) -> dict[str, Tally]:
    """All kinds of changes that the network allows."""
    tallies = {kind: change(probe) for kind, change in CHANGES.items()}
    return {kind: tally for kind, tally in tallies.items() if tally.total}


def table(name: str, tallies: dict[str, Tally], shown: int) -> str:
    """The outcome as text."""
    lines = [name]
    for kind, tally in tallies.items():
        lines.append(f"  {kind:32}  {tally.caught:5} of {tally.total:5}  {_margin(tally)}")
        lines += [
            f"      not caught: {what} ({error:.0e}): {reason(kind, what) or 'NO REASON IS KNOWN'}"
            for what, error in list(tally.missed.items())[:shown]
        ]
    return "\n".join(lines)


def _margin(tally: Tally) -> str:
    """How clearly the least clear of the caught changes showed."""
    if not tally.caught:
        return ""
    if not tally.hardest:
        return "the network no longer runs"
    return (
        f"smallest error {tally.smallest:.1e}, {tally.smallest / TOLERANCE:.2g} times the tolerance ({tally.hardest})"
    )


def main() -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of the zoo")
    parser.add_argument("--mirror", help="folder or base URL in place of the zoo's servers")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--shown", type=int, default=10, help="how many changes that were not caught to print per kind")
    arguments = parser.parse_args()
    zoo, fetcher, outcome = load_zoo(), Fetcher(mirror=arguments.mirror), {}
    with PaddleWorker() as worker:
        for name in arguments.names:
            source = load_source(name, zoo, fetcher)
            with torch.inference_mode():
                tallies = examine(Probe(convert(source), source, worker))
            print(table(name, tallies, arguments.shown), flush=True)
            outcome[name] = {kind: asdict(tally) for kind, tally in tallies.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(outcome, indent=1).replace("Infinity", "null") + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
