"""Which value of the Paddle program each module of the PyTorch network computes: paired through the parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from paddle2torch.architectures.matching import shorten
from paddle2torch.converter.parity.reference import ReferenceOperator, ReferenceProgram
from paddle2torch.converter.support.errors import ParityError

# The activations that end a network. Comparing what goes into them is what makes the comparison mean something:
# behind a saturated sigmoid anything looks right.
LAST_ACTIVATIONS = ("sigmoid", "softmax")

# Operators whose result is (time, batch, channels); the modules' is (batch, time, channels).
TIME_MAJOR = ("rnn",)


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own, and the value that it computes in the Paddle program.

    Attributes:
        module: path of the module; of a graph's parameter that is no layer's, the parameter's key.
        operator: type of the operator that completes the module, for example the sum that adds a convolution's bias.
        value: the operator's result.
        parameters: keys of the module's tensors that the program has.
        time_major: whether the value is (T, N, C) where the module's output is (N, T, C).
        one_row: whether the value may be a map of one row, (N, C, 1, T), where the module's output is (N, C, T).
        pre_activation: whether the last activation of the network is applied to this layer's output.
    """

    module: str
    operator: str
    value: str
    parameters: tuple[str, ...]
    time_major: bool = False
    one_row: bool = False
    pre_activation: bool = False


def pair_layers(
    program: ReferenceProgram,
    keys: Mapping[str, str],
    modules: Collection[str],
    absent: Iterable[str] = (),
    owners: Mapping[str, str] | None = None,
) -> tuple[Layer, ...]:
    """The layers in execution order of the program.

    Args:
        program: what Paddle says about the program.
        keys: state dict key by program parameter.
        modules: paths of all modules that have parameters or buffers of their own.
        absent: paths of modules that the program is known to lack (a training-only branch).
        owners: state dict key → path of the module that it belongs to, where its name does not tell.

    Raises:
        ParityError: a parameter of the program has no key, a parametrised module no operator, or the network's last
            activation is not applied to a layer's output.
    """
    owned = {name: (owners or {}).get(key, _module_of(key)) for name, key in keys.items()}
    values = _completing_operators(program, owned)
    _refuse(program.parameters.keys() - keys.keys(), "parameters of the Paddle program are no tensor of the model")
    _refuse(set(modules) - values.keys() - set(absent), "modules have parameters but no operator of the Paddle program")
    _refuse(values.keys() - set(modules), "module paths of the parameters do not exist in the model")
    last_input = _last_activation_input(program)
    layers = tuple(
        Layer(
            module=module,
            operator=operator.type,
            value=operator.result,
            parameters=tuple(sorted(keys[name] for name, owner in owned.items() if owner == module)),
            time_major=operator.type in TIME_MAJOR,
            pre_activation=operator.result == last_input,
        )
        for module, operator in values.items()
        if operator.result is not None
    )
    if not any(layer.pre_activation for layer in layers):
        raise ParityError(
            f"the value before the Paddle program's last activation ({last_input}) is no layer's output;"
            " the program is not one of this architecture"
        )
    return layers


def _module_of(key: str) -> str:
    return key.rpartition(".")[0]


def _completing_operators(program: ReferenceProgram, owned: Mapping[str, str]) -> dict[str, ReferenceOperator]:
    """The last operator that each module's parameters (parameter → path) enter, by module path, in execution order.

    A parameter may pass through operators that see no data (a bias reshaped, recurrent weights combined) before it
    meets data in one.
    """
    carried: dict[str, set[str]] = {name: {module} for name, module in owned.items()}
    data = set(program.feeds)
    completing: dict[str, ReferenceOperator] = {}
    for operator in program.operators:
        modules = {module for name in operator.inputs for module in carried.get(name, ())}
        if data.isdisjoint(operator.inputs):
            if operator.result is not None and modules:
                carried[operator.result] = modules
            continue
        if operator.result is not None:
            data.add(operator.result)
        for module in modules:
            completing.pop(module, None)  # so that the order is that of the last use
            completing[module] = operator
    return completing


def _last_activation_input(program: ReferenceProgram) -> str | None:
    """What the last sigmoid or softmax of the program is applied to."""
    for operator in reversed(program.operators):
        if operator.type in LAST_ACTIVATIONS:
            return operator.inputs[0]
    return None


def _refuse(names: Iterable[str], problem: str) -> None:
    found = sorted(names)
    if found:
        raise ParityError(f"{len(found)} {problem}: {shorten(found)}")
