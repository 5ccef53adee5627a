"""A pickle machine that can build plain data and nothing else.

Python's own unpickler is a poor guard: it allocates whatever a length asks for, hashes whatever is used as a key,
and hands a hostile state to NumPy. This one interprets the opcodes of protocols 2 to 5 itself, over the file's own
bytes:

* every length is checked against what remains of the file before anything is made of it;
* byte strings stay views of the file, so that arrays need no copy;
* the names that a pickle may call are the keys of a table that the format gives, their values are functions of ours;
  no module is ever imported, no attribute looked up;
* state is set only on stand-ins that were made for it, and keys are only strings and small integers;
* what those functions copy is bounded by the size of the file, however often an object is referred to;
* so is the number of opcodes, each of which may make an object, by far more than checkpoints have.
"""

from __future__ import annotations

import pickle as op  # for the names of its opcodes alone
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError

# Longer integers, names and keys than any real file has are refused before they are made.
_MAX_INTEGER_BYTES = 16
_MAX_NAME = 256
_MAX_KEY = 2**31
# About thirty are a tensor. The released checkpoint with most tensors, 2,126, has 60,000.
MOST_OPCODES = 1_000_000
# Longer text is an array's bytes as protocol 2 writes them.
_MAX_TEXT = 2**16
# Constructors may copy this much more than the file's own size: the small fixed arguments are often shared.
_COPY_ALLOWANCE = 2**16


class Refused(Exception):  # noqa: N818 - it is an answer, raised by constructors, and never leaves this package
    """What a constructor raises when its arguments are not what the genuine writer gives it."""


class Buildable(ABC):
    """A stand-in that takes its state from the pickle after it was made (the BUILD opcode)."""

    @abstractmethod
    def set_state(self, state: tuple) -> None:
        """Take the state, or raise Refused."""


Constructor = Callable[..., object]


@dataclass(frozen=True)
class Global:
    """A name that a pickle refers to: to call it, or, for a class, to hand it to a constructor.

    Attributes:
        name: module and name joined by a dot.
        construct: what a call of it does here; None where it is never called.
    """

    name: str
    construct: Constructor | None


@dataclass(frozen=True)
class LongText:
    """Text that is decoded when it is needed: decoded and memoised, it would be in memory as often as its array is.

    Attributes:
        data: the text in UTF-8.
    """

    data: memoryview

    def __len__(self) -> int:
        return len(self.data)


def text_of(value: object) -> str:
    """A string that Python 3 wrote as text and Python 2 perhaps as bytes.

    Raises:
        Refused: it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, memoryview) and len(value) <= _MAX_NAME:
        return bytes(value).decode("latin-1")
    raise Refused(f"a string was expected, not {kind_of(value)}")


def bytes_of(value: object) -> memoryview:
    """The bytes of a byte string, or of Python 2's, which arrives as Latin-1 text.

    Raises:
        Refused: it is no byte string.
    """
    if isinstance(value, memoryview):
        return value
    if isinstance(value, LongText):
        value = _utf8(value.data)
    if isinstance(value, str):
        try:
            return memoryview(value.encode("latin-1"))
        except UnicodeEncodeError:
            raise Refused("text stands where bytes were expected") from None
    raise Refused(f"bytes were expected, not {kind_of(value)}")


def kind_of(value: object) -> str:
    """What to call a value in a message; its content may be huge or hostile and is never shown."""
    return f"the name {value.name}" if isinstance(value, Global) else f"a {type(value).__name__.lstrip('_')}"


def _encode(text: object, encoding: object = "latin1") -> memoryview:
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    if text_of(encoding) not in ("latin1", "latin-1") or not isinstance(text, str | LongText):
        raise Refused("only bytes written as Latin-1 text are read")
    return bytes_of(text)


def _byte_string(value: object = memoryview(b""), encoding: object = "latin-1") -> memoryview:
    """`bytes()` and `bytearray(...)`."""
    return _encode(value, encoding) if isinstance(value, str | LongText) else bytes_of(value)


def _ordered_dict(pairs: object = ()) -> dict:
    """`OrderedDict()`, or with Python 2's list of pairs."""
    result: dict = {}
    for pair in _sequence(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Refused("an OrderedDict is made of pairs")
        result[_key(pair[0])] = pair[1]
    return result


def _dict(values: list) -> dict:
    """Keys and values in turn, as they lie on the stack."""
    if len(values) % 2:
        raise Refused("a key has no value")
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _set(values: object = ()) -> set:
    return {_key(value) for value in _sequence(values)}


def _tuple(values: object = ()) -> tuple:
    return tuple(_sequence(values))


def _sequence(value: object) -> list | tuple:
    if not isinstance(value, list | tuple):
        raise Refused(f"a list or tuple was expected, not {kind_of(value)}")
    return value


def _key(value: object) -> str | int | None:
    """A dictionary's key or a set's member.

    Hashing nested tuples can take forever or overflow the stack, and large numbers can be made to collide.
    """
    if value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < _MAX_KEY):
        return value
    raise Refused(f"keys are strings or small integers here, not {kind_of(value)}")


_BUILTINS: Mapping[str, Constructor] = {
    "bytes": _byte_string,
    "bytearray": _byte_string,
    "set": _set,
    "frozenset": _set,
    "tuple": _tuple,
}
# Python 2 calls the module `__builtin__`, and protocol 2 keeps that name.
PLAIN: Mapping[str, Constructor] = {
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered_dict,
    **{
        f"{module}.{name}": construct for module in ("builtins", "__builtin__") for name, construct in _BUILTINS.items()
    },
}


def read_pickle(
    blob: Blob, allowed: Mapping[str, Constructor | None] = PLAIN, explain: Callable[[str], str | None] = lambda _: None
) -> object:
    """The plain data that a pickle holds.

    Args:
        blob: the file.
        allowed: the names that it may refer to, and what a call of each does.
        explain: says what a file is that refers to a given name, where that can be told.

    Returns:
        Dicts, lists, tuples, sets, strings (`LongText` where they are long), numbers, memoryviews (byte strings), and
        what the constructors return.

    Raises:
        FormatError: the pickle is damaged, or asks for anything else; nothing of it was executed.
    """
    return _Machine(blob, allowed, explain).run()


_MISSING = object()
_OLD = "it is written in pickle protocol 0 or 1; 2 to 5 are read. Load it and save it again with paddle.save"
_OBJECTS = "it makes objects of classes; only arrays, containers, strings and numbers are read. Nothing was run"
_OUTSIDE = "it refers to objects outside the file; nothing was run"
_CYCLES = "it has values that contain themselves, which model files have no use for; nothing was run"


class _Machine:
    """One run over one file. `stack` is the part above the last mark; `marked` holds the parts below it."""

    def __init__(
        self, blob: Blob, allowed: Mapping[str, Constructor | None], explain: Callable[[str], str | None]
    ) -> None:
        self.name, self.data = blob.name, blob.data
        self.allowed, self.explain = allowed, explain
        self.at = self.opcode_at = 0
        self.stack: list = []
        self.marked: list[list] = []
        self.memo: dict[int, object] = {}
        self.globals: dict[str, Global] = {}
        self.may_copy = len(self.data) + _COPY_ALLOWANCE

    def run(self) -> object:
        if bytes(self.data[:1]) != op.PROTO:
            self.fail("is not a pickle of protocol 2 to 5, as Paddle's checkpoints are")
        left = MOST_OPCODES
        try:
            while (opcode := self.next_opcode()) != _STOP:
                left -= 1
                if left < 0:
                    self.fail(
                        f"refused: it has more than {MOST_OPCODES:,} opcodes, far more than a checkpoint's pickle"
                    )
                action = _ACTIONS.get(opcode)
                if action is None:
                    self.fail(f"the pickle is damaged: there is no opcode {bytes([opcode])!r}")
                action(self)
            result = self.pop()
        except Refused as refusal:
            self.fail(f"is damaged or not genuine: {refusal}")
        if self.at != len(self.data):
            self.fail(f"{len(self.data) - self.at} bytes follow the end of the pickle; the file is damaged")
        return result

    def fail(self, problem: str) -> NoReturn:
        raise FormatError(self.name, problem, self.opcode_at)

    # ---- reading the file

    def next_opcode(self) -> int:
        self.opcode_at = self.at
        self.require(1)
        self.at += 1
        return self.data[self.opcode_at]

    def take(self, count: int) -> memoryview:
        """The next bytes, as a view."""
        self.require(count)
        self.at += count
        return self.data[self.at - count : self.at]

    def require(self, count: int) -> None:
        if not 0 <= count <= len(self.data) - self.at:
            self.fail(
                f"the pickle ends in the middle: {count} more bytes are announced, "
                f"{len(self.data) - self.at} are there; the file is cut short or damaged, get it again"
            )

    def number(self, layout: str) -> Any:
        count = struct.calcsize(layout)
        self.require(count)
        self.at += count
        return struct.unpack_from(layout, self.data, self.at - count)[0]

    def line(self) -> str:
        """Text up to the next line end, as the GLOBAL opcode has it."""
        head = bytes(self.data[self.at : self.at + _MAX_NAME])
        end = head.find(b"\n")
        if end < 0:
            raise Refused("a name is not ended")
        self.at += end + 1
        return _utf8(memoryview(head)[:end])

    # ---- the stack

    def pop(self) -> object:
        if not self.stack:
            self.fail("the pickle is damaged: it takes a value where there is none")
        return self.stack.pop()

    def top(self) -> object:
        self.stack.append(value := self.pop())
        return value

    def container(self, kind: type) -> Any:
        """The value on top, which is to be filled: a list, dict or set."""
        if type(value := self.top()) is not kind:
            self.fail(f"the pickle is damaged: a {kind.__name__} should stand here")
        return value

    def pop_to_mark(self) -> list:
        if not self.marked:
            self.fail("the pickle is damaged: a mark is missing")
        values, self.stack = self.stack, self.marked.pop()
        return values

    # ---- opcodes

    def protocol(self) -> None:
        number = self.number("<B")
        if not 2 <= number <= 5:
            self.fail(f"is a pickle of protocol {number}; 2 to 5 are read")

    def frame(self) -> None:
        self.require(self.number("<Q"))

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.top()

    def remember(self, layout: str) -> None:
        self.memo[self.number(layout)] = self.top()

    def recall(self, layout: str) -> None:
        index = self.number(layout)
        value = self.memo.get(index, _MISSING)
        if value is _MISSING:
            self.fail(f"the pickle is damaged: it refers to value {index}, which it never stored")
        self.stack.append(value)

    def short_tuple(self, count: int) -> None:
        self.stack.append(tuple(reversed([self.pop() for _ in range(count)])))

    def from_mark(self, make: Callable[[list], object]) -> None:
        values = self.pop_to_mark()
        self.stack.append(make(values))

    def append(self) -> None:
        value = self.pop()
        self.container(list).append(value)

    def append_all(self) -> None:
        values = self.pop_to_mark()
        self.container(list).extend(values)

    def add_all(self) -> None:
        values = self.pop_to_mark()
        self.container(set).update(_set(values))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.container(dict)[_key(key)] = value

    def set_items(self) -> None:
        values = self.pop_to_mark()
        self.container(dict).update(_dict(values))

    def find_global(self) -> None:
        self.push_global(self.line(), self.line())

    def find_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("a name is not text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self.allowed or "." in name:
            self.fail(
                self.explain(full)
                or f"refused: it asks for {full[:_MAX_NAME]!r}, which model files have no use for; nothing was run"
            )
        self.stack.append(self.globals.setdefault(full, Global(full, self.allowed[full])))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function.construct is None or type(arguments) is not tuple:
            raise Refused(f"it calls {kind_of(function)}; nothing was run")
        self.charge(arguments)
        try:
            self.stack.append(function.construct(*arguments))
        except TypeError:
            raise Refused(f"{function.name} is called with {len(arguments)} arguments") from None

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, Buildable) or type(state) is not tuple:
            raise Refused(f"it sets the state of {kind_of(target)}; nothing was run")
        self.charge(state)
        target.set_state(state)

    def charge(self, values: tuple) -> None:
        """Account for what a constructor may copy of its arguments."""
        self.may_copy -= sum(len(each) for each in values if isinstance(each, str | LongText | list | tuple))
        if self.may_copy < 0:
            raise Refused("its values unfold to more than the file holds")


_Action = Callable[[_Machine], None]


def _constant(value: object) -> _Action:
    return lambda machine: machine.stack.append(value)


def _empty(kind: type) -> _Action:
    return lambda machine: machine.stack.append(kind())


def _number(layout: str) -> _Action:
    return lambda machine: machine.stack.append(machine.number(layout))


def _counted(layout: str, make: Callable[[memoryview], object]) -> _Action:
    """A length, and so many bytes."""
    return lambda machine: machine.stack.append(make(machine.take(machine.number(layout))))


def _remember(layout: str) -> _Action:
    return lambda machine: machine.remember(layout)


def _recall(layout: str) -> _Action:
    return lambda machine: machine.recall(layout)


def _short_tuple(count: int) -> _Action:
    return lambda machine: machine.short_tuple(count)


def _from_mark(make: Callable[[list], object]) -> _Action:
    return lambda machine: machine.from_mark(make)


def _refuse(reason: str) -> _Action:
    return lambda machine: machine.fail(f"refused: {reason}")


def _utf8(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise Refused("a string is not UTF-8") from None


def _text(data: memoryview) -> str | LongText:
    return LongText(data) if len(data) > _MAX_TEXT else _utf8(data)


def _latin1(data: memoryview) -> str:
    return str(data, "latin-1")


def _view(data: memoryview) -> memoryview:
    return data


def _integer(data: memoryview) -> int:
    if len(data) > _MAX_INTEGER_BYTES:
        raise Refused(f"an integer of {len(data)} bytes has no place in a model")
    return int.from_bytes(data, "little", signed=True)


_STOP = op.STOP[0]
_NAMED_ACTIONS: Mapping[bytes, _Action] = {
    op.PROTO: _Machine.protocol,
    op.FRAME: _Machine.frame,
    op.MARK: _Machine.mark,
    op.NONE: _constant(None),
    op.NEWTRUE: _constant(True),
    op.NEWFALSE: _constant(False),
    op.BININT: _number("<i"),
    op.BININT1: _number("<B"),
    op.BININT2: _number("<H"),
    op.BINFLOAT: _number(">d"),
    op.LONG1: _counted("<B", _integer),
    op.LONG4: _counted("<i", _integer),
    op.SHORT_BINUNICODE: _counted("<B", _utf8),
    op.BINUNICODE: _counted("<I", _text),
    op.BINUNICODE8: _counted("<Q", _text),
    op.SHORT_BINSTRING: _counted("<B", _latin1),
    op.BINSTRING: _counted("<i", _latin1),
    op.SHORT_BINBYTES: _counted("<B", _view),
    op.BINBYTES: _counted("<I", _view),
    op.BINBYTES8: _counted("<Q", _view),
    op.BYTEARRAY8: _counted("<Q", _view),
    op.EMPTY_LIST: _empty(list),
    op.EMPTY_TUPLE: _empty(tuple),
    op.EMPTY_DICT: _empty(dict),
    op.EMPTY_SET: _empty(set),
    op.TUPLE1: _short_tuple(1),
    op.TUPLE2: _short_tuple(2),
    op.TUPLE3: _short_tuple(3),
    op.TUPLE: _from_mark(tuple),
    op.LIST: _from_mark(list),
    op.DICT: _from_mark(_dict),
    op.FROZENSET: _from_mark(_set),
    op.APPEND: _Machine.append,
    op.APPENDS: _Machine.append_all,
    op.ADDITEMS: _Machine.add_all,
    op.SETITEM: _Machine.set_item,
    op.SETITEMS: _Machine.set_items,
    op.MEMOIZE: _Machine.memoize,
    op.BINPUT: _remember("<B"),
    op.LONG_BINPUT: _remember("<I"),
    op.BINGET: _recall("<B"),
    op.LONG_BINGET: _recall("<I"),
    op.GLOBAL: _Machine.find_global,
    op.STACK_GLOBAL: _Machine.find_stack_global,
    op.REDUCE: _Machine.reduce,
    op.BUILD: _Machine.build,
    **dict.fromkeys((op.INT, op.LONG, op.FLOAT, op.STRING, op.UNICODE, op.GET, op.PUT), _refuse(_OLD)),
    **dict.fromkeys((op.INST, op.OBJ, op.NEWOBJ, op.NEWOBJ_EX), _refuse(_OBJECTS)),
    **dict.fromkeys((op.PERSID, op.BINPERSID, op.EXT1, op.EXT2, op.EXT4), _refuse(_OUTSIDE)),
    **dict.fromkeys((op.NEXT_BUFFER, op.READONLY_BUFFER), _refuse(_OUTSIDE)),
    **dict.fromkeys((op.POP, op.POP_MARK, op.DUP), _refuse(_CYCLES)),
}
_ACTIONS = {opcode[0]: action for opcode, action in _NAMED_ACTIONS.items()}
