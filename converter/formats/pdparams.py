"""`.pdparams`: a checkpoint, which is a pickle of arrays by structured name, in all the forms that Paddle has written.

* a flat dict of arrays, with `StructuredToParameterName@@`, a table from structured to program names (Paddle 2.0 on);
* `(program name, array)` pairs in place of arrays, for tensors that were inside another container (Paddle 2.1 on);
* `eval('data', {'data': array})` in place of an array, for tensors of the static graph inside another container;
* arrays over the 4 GiB of pickle protocols 2 and 3 cut into flat parts, listed in `UnpackBigParamInfor@@`;
* bfloat16 as uint16;
* any of these inside what a training script put around it: `{'state_dict': …, 'epoch': …}`.
"""

from __future__ import annotations

import logging
import pickle as op  # for the names of its opcodes alone
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod

import numpy as np

from paddle2torch.converter.formats.foreign import PICKLE, refuse_foreign
from paddle2torch.converter.formats.names import checked_name
from paddle2torch.converter.formats.numpy_pickles import ARRAYS, PickledArray
from paddle2torch.converter.formats.restricted import Constructor, Refused, read_pickle, text_of
from paddle2torch.converter.formats.tensors import ELEMENT_TYPES, is_possible, little_endian, widen_bfloat16
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.boundary import guarded
from paddle2torch.converter.support.errors import FormatError

_log = logging.getLogger(__name__)

_PARTS_TABLE = "UnpackBigParamInfor@@"

# The names under which training scripts store weights, the first one present is taken.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "module",
    "params",
    "parameters",
    "weights",
    "ema_state_dict",
    "state_dict_ema",
    "ema_model",
    "model_ema",
    "ema",
)
_MAX_WRAPPERS = 4
# The released checkpoint with most has 2,126; many names of one array take little in a file.
MOST_TENSORS = 22_000

_ACCUMULATOR = re.compile(
    r"_(moment[12]?|moment2_max|beta[12]_pow_acc|velocity|inf_norm|mean_square|mean_grad|momentum|_avg_squared_\w+)_\d+$"
)
_OPTIMIZER_KEYS = frozenset({"LR_Scheduler", "master_weights"})
_PROGRESS = "best_model_dict"
_PROGRESS_KEYS = frozenset({"epoch", "global_step", "start_epoch"})
_GIVE_CHECKPOINT = "give the .pdparams file beside it"


@guarded("a .pdparams checkpoint")
def read_pdparams(blob: Blob) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint.

    Returns:
        Structured name → array, names and order as they stand in the file: with the prefixes of distillation and of
        wrappers, and every LSTM parameter under both of its names. The arrays are read-only views of one copy of the
        file in memory where its pickle protocol allows (3 and later); bfloat16 is widened to float32.

    Raises:
        FormatError: the file is damaged, holds anything but data, or holds no weights.
        SourceError: the file was changed since it was found.
    """
    refuse_foreign(blob, PICKLE, "a .pdparams checkpoint")
    entries = _unwrap(blob, read_pickle(blob, _ALLOWED, _explain))
    arrays = _Arrays(blob)
    state = {
        checked_name(blob.name, name): arrays.usable(name, pickled)
        for name, value in entries.items()
        if (pickled := _array_of(value))
    }
    if len(state) > MOST_TENSORS:
        raise FormatError(blob.name, f"refused: {len(state):,} tensors, where checkpoints have up to {MOST_TENSORS:,}")
    parts = entries.get(_PARTS_TABLE)
    for name, facts in parts.items() if isinstance(parts, dict) else ():
        state[checked_name(blob.name, name)] = arrays.join(name, facts, state)
    return state


def write_pdparams(state: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a checkpoint that every Paddle 2 and 3 loads, whatever NumPy is installed here and there.

    Args:
        state: structured name → array of a type that Paddle has.

    Raises:
        FormatError: an array's element type cannot be stored.
    """
    pieces: list[bytes | memoryview] = [op.PROTO, b"\x04", op.EMPTY_DICT]
    for name, array in state.items():
        pieces += [*_pickled_text(name), *_pickled_array(name, array), op.SETITEM]
    return b"".join([*pieces, op.STOP])


def _pickled_array(name: str, array: np.ndarray) -> Iterator[bytes | memoryview]:
    """The opcodes that NumPy 1 writes for an array; NumPy 2 reads them as well."""
    if array.dtype.name not in ELEMENT_TYPES:
        raise FormatError(".pdparams", f"{name} has element type {array.dtype}; Paddle has {', '.join(ELEMENT_TYPES)}")
    content = little_endian(array)
    yield from (b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"K\0\x85", b"C\x01b", b"\x87R")
    yield from (op.MARK, b"K\x01", op.MARK, *(_pickled_size(size) for size in array.shape), op.TUPLE)
    yield from (b"cnumpy\ndtype\n", *_pickled_text(content.dtype.str[1:]), b"\x89\x88\x87R")
    yield from (b"(K\x03", *_pickled_text(content.dtype.str[0]), b"NNN", b"J\xff\xff\xff\xff" * 2, b"K\0tb")
    yield from (b"\x89", op.BINBYTES8, struct.pack("<Q", content.nbytes), content.reshape(-1).data, b"tb")


def _pickled_text(text: str) -> tuple[bytes, ...]:
    encoded = text.encode()
    return op.BINUNICODE, struct.pack("<I", len(encoded)), encoded


def _pickled_size(size: int) -> bytes:
    return op.LONG1 + b"\x08" + struct.pack("<q", size)


def _explain(name: str) -> str | None:
    """What a file is that refers to a name which no checkpoint of Paddle has."""
    if name.startswith("torch."):
        return "is a PyTorch checkpoint, not a .pdparams checkpoint; it needs no conversion from Paddle"
    if name.startswith("paddle."):
        return f"holds the Python object {name}, not only weights; save model.state_dict() with paddle.save"
    return None


def _static_tensor(expression: object, variables: object) -> PickledArray:
    """`eval('data', {'data': array})`, Paddle's way to write a static tensor; nothing is evaluated."""
    if text_of(expression) == "data" and isinstance(variables, dict) and list(variables) == ["data"]:
        tensor = variables["data"]
        if isinstance(tensor, PickledArray):
            return tensor
    raise Refused("it calls eval with something else than a tensor; nothing was run")


_ALLOWED: Mapping[str, Constructor | None] = {
    **ARRAYS,
    "builtins.eval": _static_tensor,
    "__builtin__.eval": _static_tensor,
}


# ---- finding the weights


def _array_of(value: object) -> PickledArray | None:
    """The array of an entry: itself, or the second of a `(program name, array)` pair."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    return value if isinstance(value, PickledArray) else None


def _is_weight(value: object) -> bool:
    """Whether an entry is an array; scalars are also what trainings note down beside the weights."""
    pickled = _array_of(value)
    return pickled is not None and (pickled.array is None or pickled.array.ndim > 0)


def _table(value: object, is_entry: Callable[[object], bool] = _is_weight) -> dict | None:
    """A dict that has arrays, as it is; a list of pairs, as `paddle.save(layer.parameters(), …)` writes, as a dict."""
    if isinstance(value, dict):
        return value if any(map(is_entry, value.values())) else None
    if isinstance(value, list) and value and all(isinstance(each, tuple) and is_entry(each) for each in value):
        return {pair[0]: pair for pair in value}
    return None


def _tables_in(content: dict) -> dict[object, dict]:
    """The entries that are tables of arrays; each container is looked through once, however often it occurs."""
    containers = {id(value): value for value in content.values() if isinstance(value, dict | list)}
    tables = {identity: _table(value) for identity, value in containers.items()}
    found = {name: tables.get(id(value)) for name, value in content.items()}
    return {name: table for name, table in found.items() if table is not None}


def _unwrap(blob: Blob, content: object) -> dict:
    """The table that has the weights, out of what was put around it."""
    inner = content
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(inner, dict):
            break
        tables = _tables_in(inner)
        if known := [name for name in _WRAPPERS if name in tables]:
            return _chosen(blob, tables, known[0])
        _refuse_companions(blob, inner)
        if _table(inner):
            return inner
        if weights := {name: table for name, table in tables.items() if not _is_optimizer(table)}:
            return _only(blob, weights)
        inner = next((inner[name] for name in _WRAPPERS if isinstance(inner.get(name), dict)), None)
    table = _table(content, lambda value: _array_of(value) is not None)
    if table is None:
        raise FormatError(blob.name, "holds no weights: a .pdparams checkpoint is a table of arrays by name")
    return table


def _only(blob: Blob, tables: Mapping[object, dict]) -> dict:
    if len(tables) > 1:
        names = _listed(tables)
        raise FormatError(blob.name, f"holds several tables of arrays ({names}); save the one to convert by itself")
    return next(iter(tables.values()))


def _chosen(blob: Blob, tables: Mapping[object, dict], name: str) -> dict:
    if len(tables) > 1:
        others = _listed(other for other in tables if other != name)
        _log.warning("%s: the weights are taken from %r; passed over: %s", blob.name, name, others)
    return tables[name]


def _listed(names: Iterable[object]) -> str:
    """A few names from the file, fit for a message."""
    shown = [repr(name)[:60] for name in names]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


# ---- what lies beside checkpoints


def _is_optimizer(table: Mapping) -> bool:
    arrays = [name for name, value in table.items() if _array_of(value)]
    return bool(_OPTIMIZER_KEYS.intersection(table)) or (
        bool(arrays) and all(isinstance(name, str) and _ACCUMULATOR.search(name) for name in arrays)
    )


def _refuse_companions(blob: Blob, content: Mapping) -> None:
    if _is_optimizer(content):
        raise FormatError(blob.name, f"holds the state of an optimizer (.pdopt), no weights; {_GIVE_CHECKPOINT}")
    if content and (_PROGRESS in content or _PROGRESS_KEYS.issuperset(content)):
        raise FormatError(blob.name, f"holds the progress of a training (.states), no weights; {_GIVE_CHECKPOINT}")


# ---- arrays


class _Arrays:
    """Turns pickled arrays into usable ones, each once, however many names it has.

    Distinct arrays can share one piece of the file, so what is copied of them is bounded by the file's size.
    """

    def __init__(self, blob: Blob) -> None:
        self.file = blob.name
        # Widening doubles an array, joining the parts of one copies it again.
        self.may_copy = 4 * blob.size
        self.made: dict[int, np.ndarray] = {}

    def spend(self, count: int) -> None:
        self.may_copy -= count
        if self.may_copy < 0:
            raise FormatError(self.file, "refused: its arrays unfold to more than the file holds")

    def usable(self, name: str, pickled: PickledArray) -> np.ndarray:
        """The array in the machine's byte order, and bfloat16 (stored as uint16) as float32."""
        if pickled.array is None:
            raise FormatError(self.file, f"{name} is an array without content; the file is damaged")
        if id(pickled) not in self.made:
            self.made[id(pickled)] = self._convert(pickled.array)
        return self.made[id(pickled)]

    def _convert(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.name == "uint16":
            self.spend(2 * array.nbytes)
            return widen_bfloat16(array)
        if array.dtype.isnative:
            return array
        self.spend(array.nbytes)
        return array.astype(array.dtype.newbyteorder("="))

    def join(self, name: str, facts: object, state: dict[str, np.ndarray]) -> np.ndarray:
        """An array that was cut because of pickle's limit, its parts taken out of the state."""
        shape = facts.get("OriginShape") if isinstance(facts, dict) else None
        names = facts.get("slices") if isinstance(facts, dict) else None
        if not isinstance(names, list | tuple) or not isinstance(shape, list | tuple):
            raise FormatError(self.file, f"{_PARTS_TABLE} does not say how {name} was cut; the file is damaged")
        found = (state.pop(part, None) for part in names if isinstance(part, str))
        parts = [part for part in found if part is not None]
        if not parts or len(parts) != len(names) or any(part.dtype != parts[0].dtype for part in parts):
            raise FormatError(self.file, f"{name} was saved in {len(names)} parts, which are not all there")
        if not all(type(size) is int for size in shape) or not is_possible(shape):
            raise FormatError(self.file, f"{name} was saved in parts, and its own shape is damaged")
        self.spend(sum(part.nbytes for part in parts))
        whole = np.concatenate([part.reshape(-1) for part in parts])
        if prod(shape) != whole.size:
            raise FormatError(
                self.file, f"{name} was saved in parts of {whole.size} elements, which do not fill {shape}"
            )
        return whole.reshape(shape)
