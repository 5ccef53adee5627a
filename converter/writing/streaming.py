"""Weights into a stream, each tensor straight from its memory: the `.pth` of `torch.save`, and `.safetensors`.

`torch.save` writes over a full disk as well as it can and then raises errors of its own. safetensors' functions make
the whole file in memory, several times over, or a file of their own that takes the place of ours; so that format, which
is a header and then the tensors, is written here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Write = Callable[[Any], object]

# Data types as the format calls them, in the order in which it has the tensors.
ELEMENTS = {
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "int32": "I32",
    "bfloat16": "BF16",
    "float16": "F16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_ALIGNMENT = 8


def save_pth(state: Mapping[str, Tensor], write: Write) -> None:
    """The bytes that `torch.save` writes for a state dict.

    Args:
        state: name → tensor.
        write: takes them in pieces, each only until it returns.

    Raises:
        OSError: from `write`.
    """
    import torch

    sink = _Sink(write)
    torch.save(dict(state), sink)
    if sink.error is not None:
        raise sink.error


class _Sink:
    """A file for PyTorch, whose writer cannot be interrupted: after an error it goes on, and nothing is written."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self.error: BaseException | None = None

    def write(self, data: memoryview) -> int:
        """Write a piece, or pretend to."""
        if self.error is None:
            try:
                self._write(data)
            except BaseException as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """What PyTorch asks for at the end; the stream's owner sees to it."""


def save_safetensors(state: Mapping[str, Tensor], metadata: Mapping[str, str], write: Write) -> None:
    """The bytes that `safetensors.torch.save` returns for CPU tensors.

    Args:
        state: name → tensor, of a type of `ELEMENTS`.
        metadata: text by name, for the header. The library writes several in an order that differs from run to run.
        write: takes the bytes in pieces, each only until it returns.

    Raises:
        ValueError: a tensor is of another type.
        OSError: from `write`.
    """
    places = {kind: place for place, kind in enumerate(ELEMENTS)}
    kinds = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in state.items()}
    for name, kind in kinds.items():
        if kind not in places:
            raise ValueError(f"{name} is of type {kind}; written are {', '.join(ELEMENTS)}")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    names, end = sorted(state, key=lambda name: (places[kinds[name]], name.encode())), 0
    for name in names:
        begin, end = end, end + state[name].nbytes
        header[name] = {
            "dtype": ELEMENTS[kinds[name]],
            "shape": list(state[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    write(struct.pack("<Q", len(text)))
    write(text)
    for name in names:
        write(_memory(state[name]))


def _memory(tensor: Tensor) -> memoryview:
    """A tensor's bytes; copied only where its elements do not lie one after another."""
    import torch

    # A single element may have any stride, which a view as bytes minds.
    elements = tensor.detach().contiguous().as_strided((tensor.numel(),), (1,))
    return elements.view(torch.uint8).numpy().data
