"""Networks rewritten for serving on a CPU: the same results up to rounding, in much less time.

Two kinds of rewrites are applied, each a small function over the graph of a network:

*Algebra* (`algebra`), in any precision: batch norms go into the convolution, transposed convolution or linear layer
before them; x + x·g becomes x·(1 + g); the slope of a hard sigmoid goes into the convolution before it; what is
upsampled only to be added, concatenated or convolved is not upsampled first; convolutions with nothing between them
become one.

*Kernels* (`kernels`), in float32 and bfloat16, where PyTorch has oneDNN: convolution, activation and residual sum in
one call; 1×1 convolutions as matrix products over channels-last pixels; the detector head's two transposed convolutions
as two matrix products and one rearrangement at the end.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from .algebra import FOLDING, REORDERING
from .kernels import call_directly, use_kernels
from .tracing import Network, Output, trace

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@torch.no_grad()
def optimize(
    model: nn.Module, *, compile: bool = False, dtype: torch.dtype | None = None, keep_memory: bool = False
) -> OptimizedModel:
    """The network rewritten for serving on a CPU; the given one is left as it is.

    Args:
        model: any network of the registry, a `torch.fx.GraphModule`, or another module that `torch.fx` can trace.
        compile: hand the rewritten network to `torch.compile` (inductor, weights frozen) instead of calling oneDNN
            directly. The first call of each kind of shape then takes a while, and needs a C++ compiler. Sets
            PYTHONSAFEPATH for the processes that this one starts.
        dtype: precision to compute in, the network's own by default. `torch.bfloat16` is for processors with
            instructions for it; its results agree to about two digits.
        keep_memory: have the C library keep freed memory for the next call instead of returning it to the system, as
            the arenas of other engines do. It holds for the whole process, and does nothing where there is no glibc.

    Returns:
        A module without parameters to train. It takes what the network takes, in float32 or its own precision and of
        any size, and returns contiguous tensors of the input's precision.

    Raises:
        ValueError: the network is not on the CPU, is optimized already, or cannot be traced; or the precision is none
            of the three, or this processor lacks it.
    """
    if isinstance(model, OptimizedModel):
        raise ValueError("the network is optimized already; give the one that it was made of")
    dtype = dtype or _own_dtype(model)
    _check(model, dtype)
    network = Network(trace(model))
    for rewrite in FOLDING if compile else FOLDING + REORDERING:
        rewrite(network)
    convert_conv2d_weight_memory_format(network.module.to(dtype).requires_grad_(False), torch.channels_last)
    if not compile and dtype != torch.float64 and torch.backends.mkldnn.is_available():
        use_kernels(network)
    if keep_memory:
        keep_freed_memory()
    return OptimizedModel(network.finish(), model, dtype, compile)


class OptimizedModel(nn.Module):
    """What `optimize` returns; it stays in evaluation mode, in its precision, on the CPU. It can be pickled and copied.

    Attributes:
        network: the rewritten graph.
        dtype: what it computes in.
        original: the network that it was made of, without its values (on the meta device).
        task, metadata: those of the original, where it has them.
    """

    original: nn.Module
    _run: Callable[[Tensor], Output]

    def __init__(self, network: fx.GraphModule, original: nn.Module, dtype: torch.dtype, compiled: bool) -> None:
        super().__init__()
        self.network, self.dtype, self.compiled = network, dtype, compiled
        self.task, self.metadata = getattr(original, "task", None), getattr(original, "metadata", {})
        # As object has it: it is no part of this module.
        object.__setattr__(self, "original", copy.deepcopy(original).to("meta").eval())
        self.eval()
        self._prepare()

    def _prepare(self) -> None:
        if self.compiled:
            # Inductor starts Python with -c, which would look for modules in the working folder first.
            os.environ["PYTHONSAFEPATH"] = "1"
            # Inductor's own folding of batch norms goes wrong on some networks; in this one they are folded.
            run = torch.compile(self.network, options={"freezing": True})
        else:
            run = call_directly(self.network)
        object.__setattr__(self, "_run", run)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_run"}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self._prepare()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Output:
        inputs = x.to(self.dtype).contiguous(
            memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format
        )
        try:
            result = self._run(inputs)
        except (AssertionError, RuntimeError):
            self._explain(x)
            raise
        return _as_given(result, x.dtype)

    def _explain(self, x: Tensor) -> None:
        """Raise what the original has to say about an input that it refuses."""
        if not isinstance(self.original, fx.GraphModule):
            self.original(x.to("meta", _own_dtype(self.original)))

    def train(self, mode: bool = True) -> OptimizedModel:
        """Stays in evaluation mode."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OptimizedModel:
        """What `to`, `float`, `cuda` and their like call: nothing to do, or a ValueError."""
        found = fn(torch.empty(0, dtype=self.dtype))
        if (found.dtype, found.device.type) != (self.dtype, "cpu"):
            raise ValueError(
                f"an optimized network stays in {self.dtype} on the CPU, and cannot be moved to {found.dtype} on "
                f"{found.device}; use the network that it was made of, or optimize that with another dtype"
            )
        return self


def _as_given(result: Output, dtype: torch.dtype) -> Output:
    """The results contiguous, and those of floats of that precision."""
    if isinstance(result, Tensor):
        return (result.to(dtype) if result.is_floating_point() else result).contiguous()
    if isinstance(result, dict):
        return {name: _as_given(part, dtype) for name, part in result.items()}
    make = getattr(result, "_make", type(result))  # what named tuples have
    return make([_as_given(part, dtype) for part in result])


def _own_dtype(model: nn.Module) -> torch.dtype:
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _check(model: nn.Module, dtype: torch.dtype) -> None:
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.device.type != "cpu":
            raise ValueError(f"the network is on {tensor.device}, and this is for the CPU: give model.cpu()")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: give one of {', '.join(map(str, DTYPES))}")
    if dtype == torch.bfloat16 and not has_bfloat16():
        raise ValueError(
            "dtype=torch.bfloat16: this processor has no instructions for it (AVX512_BF16 or AMX), so that it would be "
            "slower, not faster; give dtype=torch.float32"
        )


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16, and PyTorch's oneDNN uses that."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.10
    instructions = ("avx512_bf16", "amx_bf16", "bf16")
    return torch.backends.mkldnn.is_available() and any(capabilities.get(each) for each in instructions)


def keep_freed_memory() -> None:
    """Tell glibc to keep the memory of freed tensors, for all of this process.

    A detector's maps are tens of megabytes; by default each call asks the system for them anew, which zeroes them.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)  # large blocks would be unmapped when they are freed
