"""What the pickle of a PyTorch file would have its reader do, told before PyTorch reads it.

`torch.load(weights_only=True)` runs nothing that others have written. But a kilobyte can make what it does run take for
ever, or all memory there is: a key of tuples in tuples, each twice in the next, is hashed element by element; a name
that stands for a function of Python's is called with whatever stands beside it.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

MOST_OPCODES = 5_000_000  # about forty are a tensor
MOST_RECALLED = 1_000_000  # elements of all tuples that are referred to once more, each counted every time

# What the pickle of a state dict refers to.
_HARMLESS = re.compile(r"(torch|torch\._utils|torch\.storage|torch\.serialization|collections)\.\w+")
# What weights_only takes for harmless, and makes as much of as it is told to when it is called.
_COSTLY = re.compile(r"torch(\.\w+)?\.\w*(Tensor|Storage)|_codecs\.encode|(builtins|__builtin__)\.bytearray")
_REBUILD = re.compile(r"torch\._utils\._rebuild_\w+")
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
"""Calls the first of its arguments."""
_ENCODINGS = ("latin1", "latin-1")


class OverwhelmingError(ValueError):
    """The pickle is made to overwhelm whoever reads it; the text says how, as the end of a sentence."""


@dataclass(frozen=True)
class _Name:
    """What a pickle refers to: MODULE.NAME."""

    text: str


@dataclass(frozen=True)
class _Tuple:
    items: tuple[Any, ...]
    weight: int
    """How many elements it has, those of tuples in it included, as often as they occur."""


def look_through(stream: IO[bytes]) -> list[str]:
    """What a pickle refers to besides tensors: MODULE.NAME, as far as the pickle can be read.

    Args:
        stream: at the pickle's first byte; afterwards behind its last one, where it can be read to its end.

    Raises:
        OverwhelmingError: to read it as PyTorch does would take for ever, or more memory than the file accounts for.
    """
    foreign: dict[str, None] = {}
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(islice(pickletools.genops(stream), MOST_OPCODES + 1)):
            if count == MOST_OPCODES:
                raise OverwhelmingError(f"its pickle has more than {MOST_OPCODES:,} opcodes")
            for name in machine.step(opcode, argument):
                if not _HARMLESS.fullmatch(name):
                    foreign[name] = None
    except OverwhelmingError:
        raise
    except Exception:  # it is cut, or no pickle at all; what was found until there counts, and PyTorch reads no further
        return list(foreign)
    return list(foreign)


class _Machine:
    """Goes through opcodes without making anything of them: a value is what matters of it here, or None."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[Any, Any] = {}
        self._recalled = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> Iterator[str]:
        """Take an opcode; yields the name that it refers to, if it does."""
        stack, name = self._stack, opcode.name
        if name == "MARK":
            self._marks.append(len(stack))
            return
        taken = self._taken(opcode)
        value: Any = argument if isinstance(argument, str | int) else None
        if name in ("GLOBAL", "STACK_GLOBAL"):
            value = _Name(".".join(argument.split(" ") if name == "GLOBAL" else map(str, taken)))
            yield value.text
        elif name.startswith("TUPLE"):
            value = _Tuple(tuple(taken), 1 + sum(map(_weight, taken)))
        elif name in ("REDUCE", "NEWOBJ"):
            value = None
            _check_call(*taken)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            value = self._recall(argument)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            (value,) = taken
            self._memo[len(self._memo)] = value
        stack += [value] * len(opcode.stack_after)

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """What the opcode takes off the stack."""
        before = opcode.stack_before
        marked = pickletools.markobject in before
        fixed = before.index(pickletools.markobject) if marked else len(before)
        start = (self._marks.pop() if marked else len(self._stack)) - fixed
        if start < 0:
            raise ValueError("it takes what is not there")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _recall(self, argument: Any) -> Any:
        value = self._memo[int(argument)]
        self._recalled += _weight(value)
        if self._recalled > MOST_RECALLED:
            raise OverwhelmingError("its pickle has tuples in tuples that unfold to more than any file holds")
        return value


def _weight(value: Any) -> int:
    return value.weight if isinstance(value, _Tuple) else 1


def _check_call(function: Any, arguments: Any) -> None:
    """Refuse a call that no state dict has."""
    name = function.text if isinstance(function, _Name) else ""
    items = arguments.items if isinstance(arguments, _Tuple) else ()
    if name == _FROM_TYPE:
        harmless = bool(items) and isinstance(items[0], _Name) and _REBUILD.fullmatch(items[0].text) is not None
    elif name.endswith(".encode"):
        harmless = len(items) == 2 and items[1] in _ENCODINGS
    elif name.endswith(".bytearray"):
        harmless = not any(isinstance(item, int) for item in items)
    else:
        harmless = _COSTLY.fullmatch(name) is None
    if not harmless:
        raise OverwhelmingError(f"its pickle calls {name}, as that of no state dict does")
