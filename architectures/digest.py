"""The digests of a set of tensors: with their names, by which damage to a file is told that a format does not notice,
and of their values alone."""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def digest_of(state: Mapping[str, Tensor]) -> str:
    """The sha256 of tensors: the same for the same names, types, shapes and values, in whatever order and file.

    In the order of the names, each tensor is a line of JSON, `["NAME", "float32", [64, 3, 3, 3]]`, and then its bytes
    in C order, little-endian.

    Args:
        state: name → tensor in memory.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        line = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        digest.update(f"{line}\n".encode())
        if tensor.nbytes:
            # Without NumPy, which PyTorch can do without.
            digest.update((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
    return digest.hexdigest()


def digest_of_values(tensors: Iterable[Tensor]) -> str:
    """The sha256 of tensors whatever their names are: the same for the same types, shapes and values in any order.

    It is that of the lines of their own digests (`digest_of` of each, under an empty name), sorted.

    Args:
        tensors: in memory; each may go before the next comes.
    """
    lines = sorted(digest_of({"": tensor}) for tensor in tensors)
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
