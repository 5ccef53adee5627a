"""What a PyTorch module computes, as steps with their attributes: seen from outside.

The module runs once on a stand-in for a small image, while every call of a PyTorch function is written down and only
the shape of its result is worked out (see `shapes`). What may be written in several ways is written down in one:
defaults are filled in, numbers become pairs, a hard sigmoid spelled out becomes one step, and whatever only rearranges
(reshape, transpose, slice, …) is no step at all, but part of the operand, as the list of places that its elements come
from. So a hand-written network and one made from a graph can be compared step by step.
"""

from __future__ import annotations

import ast
import inspect
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from paddle2torch.architectures.graph.form import Graph, GraphError
from paddle2torch.architectures.graph.module import arguments, check_operators
from paddle2torch.architectures.graph.operators import OPERATORS, SEVERAL_RESULTS, torch_dtype
from paddle2torch.converter.graph.shapes import (
    BudgetError,
    Shape,
    exchanged,
    flat,
    result_of,
    stand_in,
    tensors_in,
    works_in_place,
)
from paddle2torch.converter.mapping.rules import TRANSPOSED_OWNERS
from paddle2torch.converter.support.boundary import boundary
from paddle2torch.converter.support.errors import FormatError
from paddle2torch.converter.support.interrupts import raise_pending

# What a network may do is bounded, for what is converted is to be run. Released ones make up to 525 calls; for each
# pixel of an image a value has up to 112 elements, and 20 are rearranged. Some values are of the same size always.
MOST_CALLS = 6_000
MOST_ELEMENTS_OF_A_PIXEL, MOST_ELEMENTS_AT_ALL = 2_048, 2**22
MOST_PLACES_OF_A_PIXEL, MOST_PLACES_AT_ALL = 512, 2**24
MOST_PIXELS = 2**24

# Hooks are called for the modules of all threads.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor that a step reads: something made before, perhaps rearranged.

    Attributes:
        source: the step that made it, the number of the network's input, or a parameter's key.
        shape: of the source's result.
        part: which of the source's results it is.
        places: for each element, where in the source's result it stands; None for the result as it is.
    """

    source: Step | int | str
    shape: Shape
    part: int = 0
    places: Tensor | None = None

    def rearranged(self, function: Callable[[Tensor], Any]) -> Any:
        """This operand after a function that only rearranges; a tuple where the function returns one."""
        places = self.places
        if places is None:
            places = torch.arange(torch.Size(self.shape).numel()).reshape(self.shape)
        moved = function(places)
        return tuple(map(self._at, moved)) if isinstance(moved, (tuple, list)) else self._at(moved)

    def _at(self, places: Tensor) -> Operand:
        unmoved = places.shape == self.shape and bool((places.reshape(-1) == torch.arange(places.numel())).all())
        return replace(self, places=None if unmoved else places)

    def same_places(self, other: Operand) -> bool:
        """Whether both are rearranged alike."""
        if self.places is None or other.places is None:
            return self.places is other.places
        return self.places.shape == other.places.shape and torch.equal(self.places, other.places)


@dataclass(frozen=True)
class Call:
    """The call of a PyTorch function behind a step, so that it can be made.

    Attributes:
        function: what was called.
        arguments: by place, and by name; operands stand for the tensors.
        in_place: whether it changes its first argument.
        turned: whether its first result has the batch before the time, where the step's has it behind.
    """

    function: Callable[..., Any]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    in_place: bool = False
    turned: bool = False


@dataclass(eq=False)
class Step:
    """One thing that a network computes.

    Attributes:
        kind: for example `conv2d`.
        operands: what it reads, by the names of the function's arguments.
        attributes: everything else that matters, under PyTorch's names.
        where: path of the module whose code computes it, or name of the graph's value.
        call: what computes it; None where it is a constant from elsewhere.
        shapes: of its results.
        value: of such a constant.
    """

    kind: str
    operands: dict[str, Operand]
    attributes: dict[str, Any]
    where: str
    call: Call | None = None
    shapes: tuple[Shape, ...] = ()
    value: Tensor | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the parameters that it reads."""
        return tuple(each.source for each in self.operands.values() if isinstance(each.source, str))


@dataclass(eq=False)
class Trace:
    """What a module computes.

    Attributes:
        steps: in execution order.
        outputs: what it returns.
        failure: why it did not come to its end, in one line, where it did not; the steps go as far as it came.
        turned: keys of the parameters that lie the other way round than Paddle has them.
    """

    steps: list[Step]
    outputs: list[Operand]
    failure: str | None = None
    turned: frozenset[str] = frozenset()


# ---- tracing -----------------------------------------------------------------------------------------------------


def trace_module(model: nn.Module, shape: Shape) -> Trace:
    """Trace a module; parameters are known by their keys in its state dict.

    Args:
        model: in evaluation mode, with or without values (on the meta device); it is left as it is.
        shape: of the input.
    """
    paths = {module: path for path, module in model.named_modules()}
    parameters = {
        id(tensor): f"{path}.{name}" if path else name
        for path, module in model.named_modules(remove_duplicate=False)
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
    }
    turned = frozenset(
        f"{path}.weight" if path else "weight"
        for module, path in paths.items()
        if type(module).__name__ in TRANSPOSED_OWNERS
    )
    with _ONE_AT_A_TIME, _located(paths) as where:
        return replace(_trace(model, parameters, where, shape), turned=turned)


def trace_graph(graph: Graph, keys: Mapping[str, str], shape: Shape, file: str = "the graph") -> Trace:
    """Trace a graph, by the functions of the table of operators.

    Args:
        graph: with one input.
        keys: variables → the names by which its parameters are to be known, where they differ.
        shape: of the input.
        file: what to call the graph in messages.

    Raises:
        FormatError: the graph has operators or attributes that the table does not know, or is far larger than any
            network's.
    """
    with boundary(file, "a network"):
        try:
            check_operators(graph)
            run = _GraphRun(graph)
            parameters = {id(tensor): keys.get(variable, variable) for variable, tensor in run.parameters.items()}
            turned = frozenset(keys.get(variable, variable) for variable in run.turned)
            return replace(_trace(run, parameters, lambda: run.value, shape), turned=turned)
        except GraphError as error:
            raise FormatError(file, error.problem) from error
        except BudgetError as error:
            raise FormatError(file, f"refused: {error}") from error


def _trace(
    run: Callable[[Tensor], Any], parameters: Mapping[int, str], where: Callable[[], str], shape: Shape
) -> Trace:
    pixels = math.prod(shape[2:])
    if pixels > MOST_PIXELS:
        raise BudgetError(f"it is for images of the sizes {list(shape[2:])!s:.60}")
    recorder = _Recorder(parameters, where, shape[0] * pixels)
    inputs = stand_in(shape)
    recorder.know(inputs, Operand(0, shape))
    try:
        with torch.no_grad(), recorder:
            result = run(inputs)
    except BudgetError:
        raise
    except Exception as error:  # what a network's own code raises is part of the finding
        raise_pending(error)
        return Trace(recorder.steps, [], str(error).strip().partition("\n")[0] or type(error).__name__)
    results = result if isinstance(result, (tuple, list)) else (result,)
    if not all(isinstance(each, Tensor) for each in results):
        return Trace(recorder.steps, [], "it returns what is no tensor")
    return Trace(recorder.steps, [recorder.operand(each) for each in results])


@contextmanager
def _located(paths: Mapping[nn.Module, str]) -> Iterator[Callable[[], str]]:
    """Tells which of a module's parts is running, by the part's path, while the context lasts."""
    stack = [""]

    def enter(module: nn.Module, _: Any) -> None:
        if module in paths:
            stack.append(paths[module])

    def leave(module: nn.Module, *_: Any) -> None:
        if module in paths:
            stack.pop()

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        yield lambda: stack[-1]
    finally:
        for hook in hooks:
            hook.remove()


class _GraphRun:
    """Runs a graph on stand-ins, and tells which of its values is being computed.

    Attributes:
        parameters: variable → stand-in.
        turned: variables that lie as PyTorch has them, not as Paddle has: the weights of linear layers.
        value: that is being computed.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self.value = graph, ""
        self.turned = {
            variable
            for variable, readers in graph.consumers().items()
            if all(each.type == "linear" and each.attributes["transposed"] for each in readers)
            and all((variable,) == each.inputs["weight"] for each in readers)
        }
        self.parameters = {variable: self._parameter(variable) for variable in graph.parameters}

    def _parameter(self, variable: str) -> Tensor:
        described = self._graph.parameters[variable]
        dtype, shape = torch_dtype(described.dtype), described.shape
        dtype = torch.float32 if dtype.is_floating_point else dtype
        return stand_in(shape[::-1] if variable in self.turned else shape, dtype)

    def __call__(self, inputs: Tensor) -> Any:
        """What the graph returns for a batch of images (N, 3, H, W)."""
        (name,) = self._graph.inputs
        values: dict[str, Any] = {**self.parameters, name: inputs}
        for node in self._graph.nodes:
            self.value = node.outputs[0]
            first, rest = arguments(self._graph, node, values)
            if node.type == "linear" and node.inputs["weight"][0] in self.turned:
                rest["transposed"] = False
            result: Any = OPERATORS[node.type](*first, **rest)
            values |= zip(node.outputs, result if node.type in SEVERAL_RESULTS else (result,), strict=False)
        results = tuple(values[output] for output in self._graph.outputs)
        return results[0] if len(results) == 1 else results


class _Recorder(TorchFunctionMode):
    """Writes down every call of a PyTorch function, in place of making it.

    Args:
        parameters: identity of a tensor → its key.
        where: tells whose code is running.
        pixels: how many there are in the images of the input.
    """

    def __init__(self, parameters: Mapping[int, str], where: Callable[[], str], pixels: int) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._parameters, self._where = parameters, where
        self._calls = MOST_CALLS
        self._places = MOST_PLACES_AT_ALL + MOST_PLACES_OF_A_PIXEL * pixels
        self._elements = MOST_ELEMENTS_AT_ALL + MOST_ELEMENTS_OF_A_PIXEL * pixels
        # By identity, which is given away again once a tensor is gone.
        self._known: dict[int, tuple[weakref.ref[Tensor], Operand]] = {}

    def know(self, tensor: Tensor, operand: Operand) -> None:
        """Remember what a tensor is."""
        self._known[id(tensor)] = weakref.ref(tensor), operand

    def operand(self, tensor: Tensor) -> Operand:
        """What a tensor is."""
        if id(tensor) in self._parameters:
            return Operand(self._parameters[id(tensor)], tuple(tensor.shape))
        known, operand = self._known.get(id(tensor), (None, None))
        if known is None or operand is None or known() is not tensor:
            shape = tuple(tensor.shape)
            value = None if tensor.is_meta else tensor.detach()
            operand = Operand(Step("constant", {}, {}, self._where(), shapes=(shape,), value=value), shape)
            self.know(tensor, operand)
        return operand

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, _name(func)
        self._calls -= 1
        if self._calls < 0:
            raise BudgetError(f"it takes more than {MOST_CALLS:,} steps, which no network does")
        if name in REARRANGING:
            return self._rearrange(name, func, args, kwargs)
        given = _arguments(func, args, kwargs)
        if name in SAME_VALUES:
            operand, result = self.operand(given["input"]), result_of(name, func, args, kwargs, given)
            for each in tensors_in(result):
                self.know(each, operand)
            return result
        step = self._step(name, func, args, kwargs, given)
        try:
            result = result_of(name, func, args, kwargs, given)
        except Exception:
            self.steps.append(step)  # the step at which it ends
            raise
        if parts := tensors_in(result):  # it may also be a question about a tensor, such as its size
            self.steps.append(step)
            self._finish(step, given, parts)
        return result

    def _step(
        self,
        name: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        arguments: Mapping[str, Any],
    ) -> Step:
        kind, attributes = _canonical(name, arguments)
        operands = {}
        for argument, value in arguments.items():
            tensors = tensors_in(value)
            for place, each in enumerate(tensors):
                operands[argument if len(tensors) == 1 else f"{argument}[{place}]"] = self.operand(each)
        if kind == "lstm" and arguments["batch_first"]:
            operands["input"] = operands["input"].rearranged(swapped)
        if name == "conv1d":
            operands |= {label: operands[label].rearranged(as_row) for label in ("input", "weight")}
        call = Call(
            function=func,
            arguments=exchanged((tuple(args), dict(kwargs)), Tensor, self.operand),
            in_place=works_in_place(func, arguments),
            turned=kind == "lstm" and bool(arguments["batch_first"]),
        )
        return replace(folded(Step(kind, operands, attributes, self._where())), call=call)

    def _finish(self, step: Step, arguments: Mapping[str, Any], results: list[Tensor]) -> None:
        shapes = [tuple(result.shape) for result in results]
        step.shapes = tuple(shapes)
        if step.call is not None and step.call.turned:
            step.shapes = ((shapes[0][1], shapes[0][0], *shapes[0][2:]), *shapes[1:])
        if step.kind == "interpolate":  # however the size was asked for
            step.attributes["size"] = shapes[0][2:]
        for part, (result, shape) in enumerate(zip(results, shapes, strict=True)):
            self._check(shape)
            operand = Operand(step, shape, part)
            if step.kind == "lstm" and part == 0 and arguments["batch_first"]:
                operand = Operand(step, (shape[1], shape[0], *shape[2:])).rearranged(swapped)
            if step.kind == "conv2d" and arguments["weight"].dim() == 3:
                operand = Operand(step, (*shape[:2], 1, shape[2])).rearranged(lambda places: places.squeeze(2))
            if step.kind == "identity":
                operand = step.operands["input"]
            self.know(result, operand)

    def _rearrange(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a function that only rearranges, which is told by the places of its elements."""
        times = math.prod(each for each in flat(list(args[1:])) if type(each) is int) if name == "tile" else 1
        self._spend(args[0].numel() * times, kept=False)
        moved = self.operand(args[0]).rearranged(lambda places: func(places, *args[1:], **kwargs))
        results = []
        for operand in flat(moved):
            self._spend(0 if operand.places is None else operand.places.numel())
            shape = operand.shape if operand.places is None else operand.places.shape
            self._check(shape)
            results.append(stand_in(shape, args[0].dtype))
            self.know(results[-1], operand)
        return tuple(results) if isinstance(moved, tuple) else results[0]

    def _check(self, shape: Sequence[int]) -> None:
        if math.prod(shape) > self._elements:
            raise BudgetError(f"it computes a value of the sizes {list(shape)!s:.60}, which no network does")

    def _spend(self, places: int, kept: bool = True) -> None:
        """Take up memory for places, or see that there is some."""
        if places > self._places:
            raise BudgetError("it rearranges more elements than any network does")
        self._places -= places if kept else 0


def swapped(places: Tensor) -> Tensor:
    """With time and batch exchanged."""
    return places.transpose(0, 1)


def as_row(places: Tensor) -> Tensor:
    """A sequence as a map of one row: (N, C, T) → (N, C, 1, T)."""
    return places.unsqueeze(2)


# ---- one form for what may be written in several ways ------------------------------------------------------------

# Functions that only rearrange their first argument.
REARRANGING = frozenset(
    {
        *("T", "mT", "chunk", "expand", "expand_as", "flatten", "flip", "getitem", "movedim", "narrow", "permute"),
        *("reshape", "select", "split", "squeeze", "swapaxes", "swapdims", "t", "tile", "transpose", "unbind"),
        *("unflatten", "unsqueeze", "view"),
    }
)
# Functions that return what they are given; here, in evaluation, and with all tensors of one type.
SAME_VALUES = frozenset({"alias", "clone", "contiguous", "data", "detach", "dropout", "float", "to", "type_as"})

# Arguments of functions that do not tell them, or whose defaults are needed.
SIGNATURES = {
    "adaptive_avg_pool2d": "input output_size",
    "adaptive_max_pool2d": "input output_size return_indices",
    "add": "input other",
    "amax": "input dim=() keepdim=False",
    "amin": "input dim=() keepdim=False",
    "argmax": "input dim=None keepdim=False",
    "avg_pool2d": "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True "
    "divisor_override=None",
    "batch_norm": "input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-05",
    "cat": "tensors dim=0",
    "clamp": "input min=None max=None",
    "conv1d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv2d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv_transpose2d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "div": "input other",
    "gelu": "input",
    "hardswish": "input inplace=False",
    "hardtanh": "input min_val=-1.0 max_val=1.0 inplace",
    "index_select": "input dim index",
    "layer_norm": "input normalized_shape weight=None bias=None eps=1e-05",
    "leaky_relu": "input negative_slope=0.01 inplace",
    "linear": "input weight bias=None",
    "log_softmax": "input dim",
    "lstm": "input hx weights has_biases num_layers dropout train bidirectional batch_first",
    "matmul": "input other",
    "max_pool2d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices",
    "mean": "input dim=None keepdim=False",
    "mul": "input other",
    "prod": "input dim=None keepdim=False",
    "relu": "input inplace",
    "rsub": "input other",
    "sigmoid": "input",
    "silu": "input inplace",
    "softmax": "input dim",
    "stack": "tensors dim=0",
    "sub": "input other",
    "sum": "input dim=None keepdim=False",
}
# Other names of the same functions.
SYNONYMS = {
    "bmm": "matmul",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "multiply": "mul",
    "radd": "add",
    "rmul": "mul",
    "subtract": "sub",
    "true_divide": "div",
    "truediv": "div",
    "iadd": "add",
    "imul": "mul",
}


@lru_cache(maxsize=1024)
def _name(func: Callable[..., Any]) -> str:
    name = func.__name__
    if name == "__get__":  # of a property such as `T`
        name = getattr(func, "__self__").__name__  # noqa: B009 (it is no attribute of every callable)
    name = name.strip("_")
    return SYNONYMS.get(name, name)


def _arguments(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults included where they are known."""
    name = _name(func)
    if name not in SIGNATURES:
        try:
            bound = _signature(func).bind(*args, **kwargs)
        except TypeError:
            return {"input" if not place else str(place): value for place, value in enumerate(args)} | dict(kwargs)
        bound.apply_defaults()
        return bound.arguments
    names, defaults = _parsed(SIGNATURES[name])
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    known = defaults | given
    # In the order of the signature, whichever way each was given.
    return {name: known[name] for name in names if name in known} | given


@lru_cache(maxsize=256)
def _signature(func: Callable[..., Any]) -> inspect.Signature:
    """What a function takes; nothing where it does not say."""
    try:
        return inspect.signature(func)
    except (TypeError, ValueError):
        return inspect.Signature()


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names in a signature, and the defaults of those that have one."""
    words = [word.partition("=") for word in text.split()]
    return tuple(name for name, *_ in words), {name: ast.literal_eval(value) for name, _, value in words if value}


def pair(value: Any) -> Any:
    """A number as a pair; a list as a tuple; a word, "same", as it is."""
    if isinstance(value, str):
        return value
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * 2 if len(values) == 1 else values


def _conv(a: Mapping[str, Any]) -> dict[str, Any]:
    sizes = ("stride", "padding", "output_padding", "dilation")
    return {name: pair(a[name]) for name in sizes if name in a} | {"groups": a["groups"]}


def _conv1d(a: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the convolution over one row that computes the same, as Paddle has it."""
    along = {name: pair(a[name]) for name in ("stride", "padding", "dilation")}
    across = {"stride": 1, "padding": 0, "dilation": 1}
    rows = {name: size if isinstance(size, str) else (across[name], size[0]) for name, size in along.items()}
    return {**rows, "groups": a["groups"]}


def _pool(a: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {
        "kernel_size": pair(a["kernel_size"]),
        "stride": pair(a["stride"] or a["kernel_size"]),
        "padding": pair(a["padding"]),
    }
    attributes["ceil_mode"] = a["ceil_mode"] and attributes["stride"] != (1, 1)  # at stride 1 nothing is rounded
    if "dilation" in a:
        attributes["dilation"] = pair(a["dilation"])
    elif attributes["padding"] != (0, 0) or a["divisor_override"]:
        # Without padding nobody can tell whether it counts.
        attributes |= {name: a[name] for name in ("count_include_pad", "divisor_override")}
    return attributes


def _dim(a: Mapping[str, Any]) -> dict[str, Any]:
    tensor = flat(a.get("input", a.get("tensors")))[0]
    return {"dim": a["dim"] % tensor.dim()}


# The attributes that matter, from a call's arguments; all that are no tensors where nothing is said.
ATTRIBUTES: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "adaptive_avg_pool2d": lambda a: {"output_size": pair(a["output_size"])},
    "adaptive_max_pool2d": lambda a: {"output_size": pair(a["output_size"])},
    "avg_pool2d": _pool,
    "batch_norm": lambda a: {"eps": a["eps"], "training": a["training"]},
    "cat": _dim,
    "conv1d": _conv1d,
    "conv2d": _conv,
    "conv_transpose2d": _conv,
    "hardswish": lambda _: {},
    "interpolate": lambda a: {"mode": a["mode"], "align_corners": bool(a["align_corners"])},
    "layer_norm": lambda a: {"normalized_shape": tuple(a["normalized_shape"]), "eps": a["eps"]},
    "log_softmax": _dim,
    "lstm": lambda a: {name: a[name] for name in ("has_biases", "num_layers", "bidirectional")},
    "max_pool2d": _pool,
    "relu": lambda _: {},
    "relu6": lambda _: {},
    "silu": lambda _: {},
    "softmax": _dim,
}


def _canonical(name: str, a: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Kind and attributes of a step."""
    if name in ATTRIBUTES:
        return "conv2d" if name == "conv1d" else name, ATTRIBUTES[name](a)
    if name == "hardsigmoid":
        return "hard_sigmoid", {"slope": 1 / 6, "offset": 0.5}
    if name in AFFINE and not isinstance(a["other"], Tensor):
        return "affine", AFFINE[name](a["other"])
    if name == "mean" and a["input"].dim() == 4 and a["keepdim"] and sorted(d % 4 for d in flat(a["dim"])) == [2, 3]:
        return "adaptive_avg_pool2d", {"output_size": (1, 1)}
    return name, {key: value for key, value in a.items() if not any(isinstance(v, Tensor) for v in flat(value))}


# Arithmetic with a number as scale·x + bias.
AFFINE: Mapping[str, Callable[[float], dict[str, float]]] = {
    "add": lambda n: {"scale": 1.0, "bias": n},
    "sub": lambda n: {"scale": 1.0, "bias": -n},
    "rsub": lambda n: {"scale": -1.0, "bias": n},
    "mul": lambda n: {"scale": n, "bias": 0.0},
    "div": lambda n: {"scale": 1 / n, "bias": 0.0},
}


def folded(step: Step) -> Step:
    """A step put together with the one before it, where both together are one in the common form."""
    if step.kind == "lstm":
        return _without_zero_state(step)
    if step.kind not in ("affine", "clamp"):
        return step
    inner = step.operands["input"]
    before = inner.source if isinstance(inner.source, Step) and inner.places is None else None
    scale, bias, operands = 1.0, 0.0, step.operands
    if before is not None and before.kind == "affine":
        scale, bias, operands = before.attributes["scale"], before.attributes["bias"], before.operands
    if step.kind == "affine":
        factor = step.attributes["scale"]
        attributes = {"scale": scale * factor, "bias": bias * factor + step.attributes["bias"]}
        kind = "identity" if attributes == {"scale": 1.0, "bias": 0.0} else "affine"
        return Step(kind, operands, attributes, step.where)
    if (step.attributes["min"], step.attributes["max"]) == (0, 1):
        return Step("hard_sigmoid", operands, {"slope": scale, "offset": bias}, step.where)
    return step


def _without_zero_state(step: Step) -> Step:
    """An LSTM starts from zeros unless told otherwise, so telling it zeros is not telling it anything."""
    states = [label for label in step.operands if label.startswith("hx")]
    operands = {label: each for label, each in step.operands.items() if label not in states}
    if not all(_is_zero(step.operands[label]) for label in states):
        operands |= {label: step.operands[label] for label in states}
    return Step(step.kind, operands, step.attributes, step.where)


def _is_zero(operand: Operand) -> bool:
    source = operand.source
    return isinstance(source, Step) and source.kind in ("zeros", "new_zeros", "zeros_like")
