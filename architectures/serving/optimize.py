"""Networks rearranged for serving on a CPU: the same results up to rounding, in much less time.

Two kinds of changes are made, each by a small function over the graph of a network (`torch.fx`):

*Algebra*, for any precision: batch norms go into the convolution, transposed convolution or linear layer before them;
x + x·g becomes x·(1 + g); the slope of a hard sigmoid goes into the convolution before it; what is enlarged only to be
added, concatenated or convolved is not enlarged first; convolutions with nothing between them become one.

*Kernels*, for float32 and bfloat16, where PyTorch has oneDNN: convolution, activation and residual sum in one call;
1×1 convolutions as matrix products over channels-last pixels; the detector head's two transposed convolutions as two
matrix products and one rearrangement at the end.
"""

from __future__ import annotations

import copy
import ctypes
import operator
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..layers import Hardsigmoid02

CHANNELS_LAST = torch.channels_last
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
# Hardsigmoid02 is clip(0.2·x + 0.5, 0, 1); PyTorch's own has the slope 1/6.
HARD_SIGMOID_GAIN = 0.2 * 6

Convolution = nn.Conv2d | nn.ConvTranspose2d
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
ACTIVATIONS: dict[Any, str] = {
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "swish",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    F.relu: "relu",
    F.silu: "swish",
    F.hardswish: "hardswish",
    F.hardsigmoid: "hardsigmoid",
    torch.relu: "relu",
    torch.sigmoid: "sigmoid",
}  # by module type or function: its name in oneDNN's calls
ADDITIONS = (operator.add, torch.add)
PRODUCTS = (operator.mul, torch.mul)
REFUSED = "the network refuses this input"


def optimize(
    model: nn.Module, *, compile: bool = False, dtype: torch.dtype | None = None, keep_memory: bool = True
) -> OptimizedModel:
    """The network rearranged for serving on a CPU; the given one is left as it is.

    Args:
        model: any network of the registry, a `torch.fx.GraphModule`, or another module that `torch.fx` can trace.
        compile: hand the rearranged network to `torch.compile` (inductor, weights frozen) instead of calling oneDNN
            directly. The first call of each kind of shape then takes a while, and needs a C++ compiler.
        dtype: precision to compute in, the network's own by default. `torch.bfloat16` is for processors with
            instructions for it; its results agree to about two digits.
        keep_memory: have the C library keep freed memory for the next call instead of returning it to the system, as
            the arenas of other engines do. It holds for the whole process, and does nothing where there is no glibc.

    Returns:
        A module without parameters to train. It takes what the network takes, in float32 or its own precision and of
        any size, and returns contiguous tensors of the input's precision.

    Raises:
        ValueError: the precision is none of the three, or this processor lacks it; or the network cannot be traced.
    """
    dtype = dtype or next((p.dtype for p in model.parameters()), torch.float32)
    _check_precision(dtype)
    graph_module = trace(model)
    for rearrange in ALGEBRA:
        rearrange(graph_module)
    graph_module.to(dtype=dtype, memory_format=CHANNELS_LAST).requires_grad_(False)
    if not compile:
        for rearrange in EAGER:
            rearrange(graph_module)
        if dtype != torch.float64 and torch.backends.mkldnn.is_available():
            for rearrange in KERNELS:
                rearrange(graph_module)
    graph_module.delete_all_unused_submodules()
    graph_module.graph.lint()
    graph_module.recompile()
    if keep_memory:
        keep_freed_memory()
    return OptimizedModel(model, graph_module, dtype, compile)


class OptimizedModel(nn.Module):
    """What `optimize` returns.

    Attributes:
        network: the rearranged graph.
        dtype: what it computes in.
        task, metadata: those of the original, where it has them.
    """

    def __init__(self, original: nn.Module, network: fx.GraphModule, dtype: torch.dtype, compiled: bool) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype
        self.task, self.metadata = getattr(original, "task", None), getattr(original, "metadata", {})
        # In tuples, so that they are no parts of this module. The original, without its weights, can still say in its
        # own words what is wrong with an input.
        self._original = (copy.deepcopy(original).to("meta").eval(),)
        self._run = (_compiled(network) if compiled else call_directly(network),)
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        inputs = x.to(self.dtype).contiguous(memory_format=CHANNELS_LAST if x.ndim == 4 else torch.contiguous_format)
        try:
            result = self._run[0](inputs)
        except (AssertionError, RuntimeError):
            self._original[0](x.to("meta", self._original_dtype()))
            raise
        return _as_given(result, x.dtype)

    def _original_dtype(self) -> torch.dtype:
        return next((p.dtype for p in self._original[0].parameters()), torch.float32)


def _as_given(result: Any, dtype: torch.dtype) -> Any:
    if isinstance(result, Tensor):
        return result.to(dtype).contiguous() if result.is_floating_point() else result.contiguous()
    return type(result)(_as_given(part, dtype) for part in result) if isinstance(result, (list, tuple)) else result


def _compiled(network: fx.GraphModule) -> Callable[..., Any]:
    """Inductor on a network whose batch norms are folded; its own folding goes wrong on some of these networks."""
    return torch.compile(network, options={"freezing": True})


def _check_precision(dtype: torch.dtype) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: give one of {', '.join(map(str, DTYPES))}")
    if dtype == torch.bfloat16 and not has_bfloat16():
        raise ValueError(
            "dtype=torch.bfloat16: this processor has no instructions for it (AVX512_BF16 or AMX), so that it would be "
            "slower, not faster; leave dtype out"
        )


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16, and PyTorch's oneDNN uses that."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.10
    instructions = ("avx512_bf16", "amx_bf16", "bf16")
    return torch.backends.mkldnn.is_available() and any(capabilities.get(each) for each in instructions)


def keep_freed_memory() -> None:
    """Tell glibc to keep the memory of freed tensors.

    A detector's maps are tens of megabytes; by default each call asks the system for them anew, and a third of its time
    goes into zeroed pages.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)  # large blocks would be unmapped when they are freed


# ---- tracing -----------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """Takes networks apart down to the layers of `torch.nn`.

    Where a network looks at its input's size, that is to refuse it: the way on is that of a condition that is not
    fulfilled, and the graph asserts that it is not.
    """

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, Hardsigmoid02) or super().is_leaf_module(module, path)

    def to_bool(self, condition: fx.Proxy) -> bool:
        passes = self.create_proxy("call_function", operator.not_, (condition,), {})
        self.create_proxy("call_function", torch._assert, (passes, REFUSED), {})
        return False


def trace(model: nn.Module) -> fx.GraphModule:
    """A copy of the network, in evaluation mode, as a graph of layers and functions.

    Raises:
        ValueError: its way depends on more than the sizes of its input.
    """
    model = copy.deepcopy(model).eval()
    if isinstance(model, fx.GraphModule):
        return model
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"{type(model).__name__} cannot be traced by torch.fx: {error}") from error
    return fx.GraphModule(tracer.root, graph)


def _layers(module: fx.GraphModule, *types: type[nn.Module]) -> Iterator[tuple[fx.Node, Any]]:
    """Calls of layers of some types; layers that are called at several places are left out, they must stay as is."""
    calls = [node for node in module.graph.nodes if node.op == "call_module"]
    count = Counter(node.target for node in calls)
    for node in calls:
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, types) and count[node.target] == 1:
            yield node, layer


def _layer(module: fx.GraphModule, node: object) -> nn.Module | None:
    """The layer that a node calls."""
    is_call = isinstance(node, fx.Node) and node.op == "call_module"
    return module.get_submodule(str(node.target)) if is_call else None


def _calls(node: object, functions: tuple[Any, ...]) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in functions


def _only_user(node: fx.Node) -> fx.Node | None:
    """The one node that reads this one's value."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def _replace(module: fx.GraphModule, old: fx.Node, new: fx.Node) -> None:
    old.replace_all_uses_with(new)
    module.graph.eliminate_dead_code()


def _insert_layer(module: fx.GraphModule, before: fx.Node, path: str, layer: nn.Module, *inputs: fx.Node) -> fx.Node:
    """Put a layer beside the one it stands for, and call it."""
    name = f"{path.replace('.', '_')}_optimized"
    module.add_module(name, layer.eval().requires_grad_(False))
    with module.graph.inserting_before(before):
        return module.graph.call_module(name, inputs)


# ---- algebra -----------------------------------------------------------------------------------------------------


def drop_identities(module: fx.GraphModule) -> None:
    """Drop layers that do nothing in evaluation."""
    for node, _ in list(_layers(module, nn.Identity, nn.Dropout, nn.Dropout2d)):
        _replace(module, node, node.args[0])


def fold_batch_norms(module: fx.GraphModule) -> None:
    """Fold each batch norm that follows a convolution, transposed convolution or linear layer alone into it."""
    foldable: dict[Any, Any] = dict(_layers(module, nn.Conv2d, nn.ConvTranspose2d))
    # A linear layer's channels come last; only in a matrix are they those of the norm.
    matrices = flat_values(module)
    foldable |= {node: layer for node, layer in _layers(module, nn.Linear) if node in matrices}
    for node, norm in list(_layers(module, *BATCH_NORMS)):
        before = node.args[0]
        layer = foldable.get(before)
        if layer is None or _only_user(before) is None or norm.running_var is None:
            continue
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            factor = factor * norm.weight.double()
        scale_channels(layer, factor, -norm.running_mean.double() * factor, norm.bias)
        _replace(module, node, before)


def flat_values(module: fx.GraphModule) -> set[fx.Node]:
    """Values that are matrices for sure: flattened ones, and what layers make of them one by one."""
    flat: set[fx.Node] = set()
    for node in module.graph.nodes:
        layer, inputs = _layer(module, node), node.all_input_nodes
        is_flattened = isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1)
        is_flattened |= node.target in ("flatten", torch.flatten) and node.args[1:] == (1,) and not node.kwargs
        keeps_form = isinstance(layer, (nn.Linear, nn.BatchNorm1d)) or type(layer) in ACTIVATIONS
        if is_flattened or (keeps_form and flat.issuperset(inputs)):
            flat.add(node)
    return flat


def scale_channels(layer: Any, factor: Tensor, *summands: Tensor | None) -> None:
    """Multiply the channels that a layer puts out, and add to them; computed in double precision.

    Args:
        layer: convolution, transposed convolution or linear layer.
        factor: one per channel.
        summands: to add after the multiplication, one per channel; None for nothing.
    """
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.ConvTranspose2d):  # [in, out / groups, …]
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * factor.view(layer.groups, 1, -1, 1, 1)).flatten(0, 1)
    else:
        weight = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    bias = factor.new_zeros(factor.shape) if layer.bias is None else layer.bias.detach().double() * factor
    for summand in summands:
        bias = bias if summand is None else bias + summand.detach().double()
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)


def fold_hard_sigmoids(module: fx.GraphModule) -> None:
    """Give the convolution before a hard sigmoid of slope 0.2 what it takes to use PyTorch's own."""
    convolutions = dict(_layers(module, nn.Conv2d))
    for node, _ in list(_layers(module, Hardsigmoid02)):
        before = node.args[0]
        if before in convolutions and _only_user(before) is not None:
            layer = convolutions[before]
            scale_channels(layer, torch.full((layer.out_channels,), HARD_SIGMOID_GAIN, dtype=torch.float64))
            _replace(module, node, _insert_layer(module, node, str(node.target), nn.Hardsigmoid(), before))


def join_gates(module: fx.GraphModule) -> None:
    """x + x·g as x·(1 + g), for a gate g that is smaller than x."""
    gates = small_values(module)
    for node in list(module.graph.nodes):
        if not _calls(node, ADDITIONS) or len(node.args) != 2:
            continue
        for x, scaled in (node.args, node.args[::-1]):
            gate = _gate(scaled, gates)
            if gate is not None and scaled.args[0] is x and _only_user(scaled) is not None:
                with module.graph.inserting_before(node):
                    raised = module.graph.call_function(operator.add, (gate, 1.0))
                    _replace(module, node, module.graph.call_function(operator.mul, (x, raised)))
                break


def small_values(module: fx.GraphModule) -> set[fx.Node]:
    """Values of one pixel per picture: global averages, and what is computed from them alone."""
    small: set[fx.Node] = set()
    for node in module.graph.nodes:
        layer, inputs = _layer(module, node), node.all_input_nodes
        is_average = isinstance(layer, Gate) or _is_average(layer)
        keeps_size = isinstance(layer, nn.Conv2d) and prod(layer.kernel_size) == 1
        keeps_size |= type(layer) in ACTIVATIONS or isinstance(layer, (Pixelwise, Small, Hardsigmoid02))
        keeps_size |= _calls(node, (*ADDITIONS, *PRODUCTS))
        if is_average or (keeps_size and inputs and small.issuperset(inputs)):
            small.add(node)
    return small


def _is_average(layer: nn.Module | None) -> bool:
    """Whether a layer makes one pixel of all."""
    return isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))


def _gate(node: object, small: set[fx.Node]) -> fx.Node | None:
    """The gate g, where a node is x·g and only g is small."""
    if not _calls(node, PRODUCTS):
        return None
    x, gate = node.args
    return gate if gate in small and x not in small else None


ALGEBRA = (drop_identities, fold_batch_norms, fold_hard_sigmoids, join_gates)


# ---- what is written once ----------------------------------------------------------------------------------------


def add_enlarged_(x: Tensor, coarse: Tensor, factor: int) -> Tensor:
    """Add to x, in place, a coarser map with every pixel repeated `factor` times in both directions."""
    _blocks(x, factor).add_(coarse[:, :, :, None, :, None])
    return x


def concatenate_enlarged(maps: list[Tensor], factors: list[int]) -> Tensor:
    """Concatenate maps along the channels, each with every pixel repeated by its factor in both directions."""
    n, _, h, w = maps[0].shape
    size = (n, sum(each.shape[1] for each in maps), h * factors[0], w * factors[0])
    result = torch.empty(size, dtype=maps[0].dtype, device=maps[0].device, memory_format=CHANNELS_LAST)
    at = 0
    for each, factor in zip(maps, factors, strict=True):
        _blocks(result.narrow(1, at, each.shape[1]), factor).copy_(each[:, :, :, None, :, None])
        at += each.shape[1]
    return result


def _blocks(x: Tensor, factor: int) -> Tensor:
    """(N, C, H, W) as a view (N, C, H/factor, factor, W/factor, factor)."""
    return x.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))


def _enlarged(node: object) -> tuple[fx.Node, int] | None:
    """The map and the factor, where a node repeats every pixel a whole number of times."""
    if not _calls(node, (F.interpolate,)) or node.kwargs.get("mode", "nearest") != "nearest":
        return None
    factor = node.kwargs.get("scale_factor")
    whole = isinstance(factor, (int, float)) and factor == int(factor) and node.kwargs.get("size") is None
    return (node.args[0], int(factor)) if whole and len(node.args) == 1 else None


def _is_fresh(module: fx.GraphModule, node: object) -> bool:
    """Whether a node's value lies in memory that no other value shares."""
    fresh = (nn.Conv2d, EnlargedConvolution, GatedConvolution, Fused, Pixelwise)
    return isinstance(_layer(module, node), fresh) or _calls(node, PRODUCTS)


def add_without_enlarging(module: fx.GraphModule) -> None:
    """Sums of a map and an enlarged one, in the former's memory."""
    for node in list(module.graph.nodes):
        if not _calls(node, ADDITIONS) or len(node.args) != 2:
            continue
        for x, other in (node.args, node.args[::-1]):
            enlarged = _enlarged(other)
            if enlarged and _is_fresh(module, x) and _only_user(x) is not None:
                with module.graph.inserting_before(node):
                    _replace(module, node, module.graph.call_function(add_enlarged_, (x, *enlarged)))
                break


def concatenate_without_enlarging(module: fx.GraphModule) -> None:
    """Concatenations of enlarged maps, written once."""
    for node in list(module.graph.nodes):
        if not _calls(node, (torch.cat,)) or node.args[1:] != (1,):
            continue
        parts = [_enlarged(part) or (part, 1) for part in node.args[0]]
        if any(factor > 1 for _, factor in parts):
            maps, factors = [part for part, _ in parts], [factor for _, factor in parts]
            with module.graph.inserting_before(node):
                _replace(module, node, module.graph.call_function(concatenate_enlarged, (maps, factors)))


class EnlargedConvolution(nn.Module):
    """Adds to a map, in place, the 3×3 convolution of a coarser map with every pixel repeated.

    In the enlarged map, the first and the last row of what was one row have their neighbours in two rows of the coarse
    map, all others in one; columns likewise. So all pixels of one kind come from a 2×2 convolution of the coarse map.
    """

    # Kinds of rows: what the coarse row before and the row itself (for the last kind: the row itself and the one after)
    # get of the kernel's three rows.
    FIRST, MIDDLE, LAST = ((1, 0, 0), (0, 1, 1)), ((0, 0, 0), (1, 1, 1)), ((1, 1, 0), (0, 0, 1))

    def __init__(self, weight: Tensor, factor: int) -> None:
        super().__init__()
        self.factor, self.out_channels = factor, weight.shape[0]
        kinds = [self.FIRST, self.MIDDLE, self.LAST] if factor > 2 else [self.FIRST, self.LAST]
        split = torch.tensor(kinds, dtype=torch.float64)
        weights = torch.einsum("rap,cbq,oipq->rcoiab", split, split, weight.detach().double()).flatten(0, 2)
        self.conv = nn.Conv2d(weight.shape[1], len(weights), 2, padding=1, bias=False, dtype=weight.dtype)
        self.conv.weight.data = weights.to(weight.dtype)
        # Place of each kind among the repeated rows, and by how much its result lies further on.
        self.places = [(slice(0, 1), 0), (slice(1, factor - 1), 0), (slice(factor - 1, factor), 1)]
        self.places = self.places if factor > 2 else [self.places[0], self.places[2]]

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        height, width = coarse.shape[2:]
        parts = iter(self.conv(coarse).chunk(len(self.places) ** 2, 1))
        blocks = _blocks(x, self.factor)
        for rows, down in self.places:
            for columns, right in self.places:
                part = next(parts)[:, :, down : down + height, right : right + width]
                blocks[:, :, :, rows, :, columns].add_(part[:, :, :, None, :, None])
        return x


class GatedConvolution(nn.Module):
    """A 3×3 convolution of a gated 1×1 convolution: one convolution, whose weights the gate decides."""

    def __init__(self, inner: nn.Conv2d, outer: nn.Conv2d) -> None:
        super().__init__()
        self.inner, self.outer, self.bias = inner.weight.detach().flatten(1), outer.weight.detach(), outer.bias

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> GatedConvolution:
        self.inner, self.outer = function(self.inner), function(self.outer)
        return super()._apply(function, recurse)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        shape = (len(self.outer), -1, *self.outer.shape[2:])
        weights = self.outer.flatten(2).permute(0, 2, 1)
        pictures = []
        for picture, factors in zip(x.split(1), gate.flatten(1), strict=True):
            weight = (weights @ (factors[:, None] * self.inner)).permute(0, 2, 1).reshape(shape)
            pictures.append(F.conv2d(picture, weight, self.bias, padding=1))
        return pictures[0] if len(pictures) == 1 else torch.cat(pictures)


def _is_3x3(layer: nn.Conv2d) -> bool:
    """Whether a convolution sees a pixel and its eight neighbours, all channels, and zeros outside."""
    geometry = (layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups, layer.padding_mode)
    return geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def _is_1x1(layer: nn.Module | None) -> bool:
    """Whether a layer is a convolution that sees nothing but the pixel."""
    if not isinstance(layer, nn.Conv2d):
        return False
    return (layer.kernel_size, layer.padding, layer.stride, layer.groups) == ((1, 1), (0, 0), (1, 1), 1)


def convolve_before_enlarging(module: fx.GraphModule) -> None:
    """3×3 convolutions of sums and concatenations with enlarged maps: each part convolved in its own size."""
    for node, layer in list(_layers(module, nn.Conv2d)):
        value = node.args[0]
        if not _is_3x3(layer) or _only_user(value) is None:
            continue
        weight = layer.weight.detach()
        if _calls(value, ADDITIONS) and len(value.args) == 2:
            parts = [(part, weight) for part in value.args]
        elif _calls(value, (torch.cat,)) and value.args[1:] == (1,) and _widths(module, value) is not None:
            parts = list(zip(value.args[0], weight.split(_widths(module, value), 1), strict=True))
        else:
            continue
        fine = [(part, weights) for part, weights in parts if not _enlarged(part)]
        if len(fine) != 1 or len(parts) == 1:
            continue
        path = str(node.target)
        ((part, weights),) = fine
        plain = nn.Conv2d(weights.shape[1], len(weights), 3, padding=1, bias=layer.bias is not None, dtype=weight.dtype)
        plain.weight, plain.bias = nn.Parameter(weights.contiguous(), requires_grad=False), layer.bias
        result = _insert_layer(module, node, f"{path}.fine", plain, part)
        for place, (part, weights) in enumerate(parts):
            if enlarged := _enlarged(part):
                coarse, factor = enlarged
                added = EnlargedConvolution(weights, factor)
                result = _insert_layer(module, node, f"{path}.{place}", added, result, coarse)
        _replace(module, node, result)


def _widths(module: fx.GraphModule, node: fx.Node) -> list[int] | None:
    """The channels of each part of a concatenation, where layers tell them."""
    makers = [_enlarged(part)[0] if _enlarged(part) else part for part in node.args[0]]
    layers = [_layer(module, _ungated(maker)) for maker in makers]
    told = [layer.out_channels for layer in layers if isinstance(layer, (nn.Conv2d, EnlargedConvolution))]
    return told if len(told) == len(layers) else None


def _ungated(node: fx.Node) -> fx.Node:
    """The value that a product gates, or the value itself."""
    return node.args[0] if _calls(node, PRODUCTS) else node


def average_first(module: fx.GraphModule) -> None:
    """Global averages of 1×1 convolutions as convolutions of the average, where the input has fewer channels."""
    for node, pool in list(_layers(module, nn.AdaptiveAvgPool2d)):
        layer = _layer(module, node.args[0])
        if _is_average(pool) and _is_1x1(layer) and layer.in_channels < layer.out_channels:
            average = _insert_layer(module, node, f"{node.target}.first", pool, *node.args[0].args)
            _replace(module, node, _insert_layer(module, node, str(node.target), copy.deepcopy(layer), average))


def join_convolutions(module: fx.GraphModule) -> None:
    """3×3 convolutions of 1×1 ones, perhaps gated, as one, where the inner one has fewer channels to read than to
    write. It must add nothing: outside the picture the outer one sees zeros."""
    small = small_values(module)
    for node, outer in list(_layers(module, nn.Conv2d)):
        value, gate = node.args[0], None
        if _gate(value, small) is not None and _only_user(value) is not None:
            value, gate = value.args
        inner = _layer(module, value)
        if not (_is_3x3(outer) and _is_1x1(inner) and inner.bias is None and _only_user(value) is not None):
            continue
        if inner.in_channels >= inner.out_channels:
            continue
        if gate is not None:
            joined: nn.Module = GatedConvolution(inner, outer)
            inputs = (*value.args, gate)
        else:
            weight = torch.einsum("ompq,mi->oipq", outer.weight.double(), inner.weight.double().flatten(1))
            joined = nn.Conv2d(
                inner.in_channels, outer.out_channels, 3, padding=1, bias=outer.bias is not None, dtype=weight.dtype
            )
            joined.weight = nn.Parameter(weight.to(outer.weight.dtype), requires_grad=False)
            joined.bias = outer.bias
            inputs = value.args
        _replace(module, node, _insert_layer(module, node, f"{node.target}.joined", joined, *inputs))


def join_pixelwise(module: fx.GraphModule) -> None:
    """1×1 convolutions of 1×1 ones as one, where that is less work."""
    for node, outer in list(_layers(module, nn.Conv2d)):
        value = node.args[0]
        inner = _layer(module, value)
        if not (_is_1x1(outer) and _is_1x1(inner) and _only_user(value) is not None):
            continue
        before, between, after = inner.in_channels, inner.out_channels, outer.out_channels
        if before * after > between * (before + after):
            continue
        first, second = (layer.weight.detach().double().flatten(1) for layer in (inner, outer))
        joined = nn.Conv2d(before, after, 1, dtype=torch.float64)
        joined.weight.data = (second @ first)[:, :, None, None]
        biases = [torch.zeros(1) if layer.bias is None else layer.bias.detach() for layer in (inner, outer)]
        joined.bias.data = second @ biases[0].double().expand(between) + biases[1].double()
        joined.to(outer.weight.dtype)
        _replace(module, node, _insert_layer(module, node, f"{node.target}.joined", joined, *value.args))


EAGER = (
    convolve_before_enlarging,
    average_first,
    join_convolutions,
    join_pixelwise,
    add_without_enlarging,
    concatenate_without_enlarging,
)


# ---- oneDNN's kernels --------------------------------------------------------------------------------------------


class Kernel(nn.Module):
    """A layer that is one function of its inputs, with its weights inside: as oneDNN would otherwise arrange them at
    every call.

    Attributes:
        call: the function.
    """

    def __init__(self, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(*inputs)


class Fused(Kernel):
    """A convolution with its activation and, perhaps, a residual sum ahead of it, in one call."""

    def __init__(self, layer: Convolution, activation: str) -> None:
        is_transposed = isinstance(layer, nn.ConvTranspose2d)
        super().__init__((_transposed_convolution if is_transposed else _convolution)(layer, activation))


def _convolution(layer: nn.Conv2d, activation: str) -> Callable[..., Tensor]:
    geometry = (list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups)
    weight, bias = torch.ops.mkldnn._reorder_convolution_weight(layer.weight.detach(), *geometry), _bias(layer)
    alone = torch.ops.mkldnn._convolution_pointwise.default
    summed = torch.ops.mkldnn._convolution_pointwise.binary
    after = None if activation == "none" else activation

    def convolution(x: Tensor, summand: Tensor | None = None) -> Tensor:
        if summand is None:
            return alone(x, weight, bias, *geometry, activation, [], "")
        return summed(x, summand, weight, bias, *geometry, "add", 1.0, after, [], None)

    return convolution


def _transposed_convolution(layer: nn.ConvTranspose2d, activation: str) -> Callable[..., Tensor]:
    sizes = map(list, (layer.padding, layer.output_padding, layer.stride, layer.dilation))
    geometry = (*sizes, layer.groups)
    weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(layer.weight.detach(), *geometry)
    bias = _bias(layer)
    operation = torch.ops.mkldnn._convolution_transpose_pointwise.default

    def transposed_convolution(x: Tensor) -> Tensor:
        return operation(x, weight, bias, *geometry, activation, [], "")

    return transposed_convolution


def _arranged(weight: Tensor) -> Tensor:
    """The weights of a linear layer, (out, in), as oneDNN likes to read them."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())


def _bias(layer: Convolution | nn.Linear) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach()


class Rows(Kernel):
    """A linear layer with its activation, as oneDNN's inner product; the last axis has the channels."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        weight, product = _arranged(weight), torch.ops.mkldnn._linear_pointwise.default

        def rows(x: Tensor) -> Tensor:
            return product(x, weight, bias, activation, [], "")

        super().__init__(rows)


class Pixelwise(Kernel):
    """A 1×1 convolution with its activation: a linear layer over pixels, whose channels lie side by side."""

    def __init__(self, layer: nn.Conv2d, activation: str) -> None:
        weight, bias = _arranged(layer.weight.flatten(1)), _bias(layer)
        product = torch.ops.mkldnn._linear_pointwise.default

        def pixelwise(x: Tensor) -> Tensor:
            return product(x.permute(0, 2, 3, 1), weight, bias, activation, [], "").permute(0, 3, 1, 2)

        super().__init__(pixelwise)


class PixelwiseSum(Kernel):
    """A 1×1 convolution and a residual sum, then perhaps relu."""

    def __init__(self, layer: nn.Conv2d, activation: str) -> None:
        weight, bias = _arranged(layer.weight.flatten(1)), _bias(layer)
        summed, finish = torch.ops.mkldnn._linear_pointwise.binary, IN_PLACE[activation]

        def pixelwise_sum(x: Tensor, summand: Tensor) -> Tensor:
            result = summed(x.permute(0, 2, 3, 1), summand.permute(0, 2, 3, 1), weight, bias, "add")
            return finish(result).permute(0, 3, 1, 2)

        super().__init__(pixelwise_sum)


class Small(Kernel):
    """A 1×1 convolution on one pixel per picture; calling oneDNN for so little costs more than it saves.

    Attributes:
        rows: what it does to a matrix, (N, C) → (N, C'), and to multiples of one.
    """

    def __init__(self, layer: nn.Conv2d, activation: str) -> None:
        weight, bias = layer.weight.detach().flatten(1).t().contiguous(), _bias(layer)
        bias = weight.new_zeros(weight.shape[1]) if bias is None else bias
        finish = IN_PLACE[activation]

        def rows(x: Tensor, factor: float = 1.0) -> Tensor:
            return finish(torch.addmm(bias, x, weight, alpha=factor))

        def small(x: Tensor) -> Tensor:
            y = rows(x.flatten(1))
            return y.view(*y.shape, 1, 1)

        super().__init__(small)
        self.rows = rows


class Gate(Kernel):
    """The average over all pixels, and small layers after it, without leaving the form of a matrix in between.

    Shape: (N, C, H, W) → (N, C', 1, 1).
    """

    def __init__(self, layers: list[Small]) -> None:
        first, *others = [layer.rows for layer in layers]

        def gate(x: Tensor) -> Tensor:
            y = first(x.sum((2, 3)), 1 / (x.shape[2] * x.shape[3]))
            for rows in others:
                y = rows(y)
            return y.view(*y.shape, 1, 1)

        super().__init__(gate)


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu_,
    "sigmoid": torch.sigmoid_,
    "swish": lambda x: F.silu(x, inplace=True),
    "hardswish": lambda x: F.hardswish(x, inplace=True),
    "hardsigmoid": lambda x: F.hardsigmoid(x, inplace=True),
}


class Enlarging(nn.Module):
    """Transposed convolutions whose kernel is their stride, one after another: each makes a block of every pixel.

    Each is a linear layer over the blocks of the one before it; only at the end are the blocks laid out as a picture.

    Shape: (N, C, H, W) → (N, C', k·H, k·W) with the product k of all strides.
    """

    def __init__(self, layers: list[nn.ConvTranspose2d], activations: list[str]) -> None:
        super().__init__()
        self.strides = [int(layer.stride[0]) for layer in layers]
        self.channels = layers[-1].out_channels
        self.rows = nn.Sequential()
        blocks = 1
        for layer, activation, stride in zip(layers, activations, self.strides, strict=True):
            weight = layer.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)  # [block row, block column, out] × in
            bias = None if layer.bias is None else layer.bias.detach().repeat(blocks * stride**2)
            # One product with a matrix for all blocks beats as many thin ones.
            self.rows.append(Rows(torch.block_diag(*[weight] * blocks), bias, activation))
            blocks *= stride**2

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = self.rows(x.permute(0, 2, 3, 1))
        y = y.view(n, h, w, *(stride for stride in self.strides for _ in "hw"), self.channels)
        last, rows, columns = y.ndim - 1, range(3, y.ndim - 1, 2), range(4, y.ndim - 1, 2)
        factor = prod(self.strides)
        return y.permute(0, last, 1, *rows, 2, *columns).reshape(n, self.channels, h * factor, w * factor)


def _activation(module: fx.GraphModule, node: fx.Node | None) -> str | None:
    """oneDNN's name of the activation that a node is."""
    if node is None or len(node.all_input_nodes) != 1:
        return None
    layer = _layer(module, node)
    if layer is not None:
        return ACTIVATIONS.get(type(layer))
    return ACTIVATIONS.get(node.target) if node.op == "call_function" else None


def _with_activation(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, str]:
    """The node up to which a layer and its activation go, and the activation's name."""
    following = _only_user(node)
    name = _activation(module, following)
    return (following, name) if following is not None and name is not None else (node, "none")


def _is_block(layer: nn.ConvTranspose2d) -> bool:
    return (
        layer.kernel_size == layer.stride == (layer.stride[0],) * 2
        and layer.groups == 1
        and {*layer.padding, *layer.output_padding} == {0}
        and layer.dilation == (1, 1)
    )


def fuse_enlarging(module: fx.GraphModule) -> None:
    """Chains of transposed convolutions whose kernel is their stride."""
    blocks = {node: layer for node, layer in _layers(module, nn.ConvTranspose2d) if _is_block(layer)}
    while blocks:
        first = node = next(iter(blocks))
        layers, activations = [], []
        while node in blocks:
            layers.append(blocks.pop(node))
            last, activation = _with_activation(module, node)
            activations.append(activation)
            node = _only_user(last)
        enlarging = Enlarging(layers, activations)
        _replace(module, last, _insert_layer(module, last, str(first.target), enlarging, *first.args))


def fuse_convolutions(module: fx.GraphModule) -> None:
    """Convolutions with the sum and the activation that follow them."""
    small = small_values(module)
    for node, layer in list(_layers(module, nn.Conv2d, nn.ConvTranspose2d)):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            continue
        last, activation = _with_activation(module, node)
        plain = isinstance(layer, nn.Conv2d) and (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
        pixelwise = plain and set(layer.padding) == {0}
        inputs = [node.args[0]]
        summed = _residual(node, small) if last is node and isinstance(layer, nn.Conv2d) else None
        if summed is not None:
            inputs.append(summed[1])
            last, activation = _with_activation(module, summed[0])
            if activation not in ("none", "relu"):
                last, activation = summed[0], "none"
        if not pixelwise:
            fused: nn.Module = Fused(layer, activation)
        else:
            kind = PixelwiseSum if summed else Small if node.args[0] in small else Pixelwise
            fused = kind(layer, activation)
        new = _insert_layer(module, last, str(node.target), fused, *inputs)
        if node.args[0] in small:
            small.add(new)
        _replace(module, last, new)


def _residual(node: fx.Node, small: set[fx.Node]) -> tuple[fx.Node, fx.Node] | None:
    """The sum that alone reads a convolution's output, and its other summand, where both are maps of one size."""
    total = _only_user(node)
    if total is None or not _calls(total, ADDITIONS) or len(total.args) != 2:
        return None
    other = next((each for each in total.args if each is not node), None)
    is_computed = isinstance(other, fx.Node) and other.op in ("call_module", "call_function")
    return (total, other) if is_computed and small.isdisjoint((node, other)) else None


def fuse_enlarged_convolutions(module: fx.GraphModule) -> None:
    """The convolutions inside `EnlargedConvolution`."""
    for _, layer in _layers(module, EnlargedConvolution):
        layer.conv = Fused(layer.conv, "none")


def fuse_gates(module: fx.GraphModule) -> None:
    """Averages with the small layers that follow them."""
    for node, pool in list(_layers(module, nn.AdaptiveAvgPool2d)):
        layers, last = [], node
        while isinstance(layer := _layer(module, _only_user(last)), Small):
            layers.append(layer)
            last = _only_user(last)
        if layers and _is_average(pool):
            _replace(module, last, _insert_layer(module, last, f"{node.target}.gate", Gate(layers), *node.args))


def fuse_linear(module: fx.GraphModule) -> None:
    """Linear layers with the activation that follows them."""
    for node, layer in list(_layers(module, nn.Linear)):
        last, activation = _with_activation(module, node)
        rows = Rows(layer.weight, _bias(layer), activation)
        _replace(module, last, _insert_layer(module, last, str(node.target), rows, *node.args))


def gate_in_place(module: fx.GraphModule) -> None:
    """Products with a gate in the memory of what is gated, where nothing reads that afterwards."""
    small = small_values(module)
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in list(module.graph.nodes):
        if _gate(node, small) is None:
            continue
        x = node.args[0]
        others = [user for user in x.users if user is not node]
        only_averaged = all(isinstance(_layer(module, user), (nn.AdaptiveAvgPool2d, Gate)) for user in others)
        if _is_fresh(module, x) and only_averaged and all(order[user] < order[node] for user in others):
            node.target = operator.imul


KERNELS = (
    fuse_enlarging,
    fuse_convolutions,
    fuse_enlarged_convolutions,
    fuse_gates,
    fuse_linear,
    gate_in_place,
)


def call_directly(module: fx.GraphModule) -> fx.GraphModule:
    """The same graph with the functions of its kernels in place of the modules: for a small network, a tenth of the
    time goes into finding the way from one module to the next."""
    graph = copy.deepcopy(module.graph)
    direct = fx.GraphModule(module, graph)
    for node in list(graph.nodes):
        layer = _layer(direct, node)
        if isinstance(layer, Kernel):
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_function(layer.call, node.args))
            graph.erase_node(node)
    direct.delete_all_unused_submodules()
    direct.recompile()
    return direct
