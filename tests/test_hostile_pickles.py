"""Pickles made to do harm: every one is refused, quickly and in little memory, before anything of it runs."""

from __future__ import annotations

import contextlib
import pickle
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.formats.pdparams import read_pdparams
from paddle2torch.converter.support.errors import FormatError
from support.format_samples import blob

SECONDS = 3.0
BYTES_PER_BYTE, BYTES_AT_ALL = 100, 2**20

ran: list[object] = []
"""What code of a pickle leaves behind if it runs."""


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable, *arguments: object, state: object = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.parts


class Stateful:
    """An object that runs code when its state is set."""

    def __setstate__(self, state: object) -> None:
        ran.append(state)

    def __getstate__(self) -> dict:
        return {"state": 1}


class Stated(Stateful):
    """The same, made by a call, so that its pickle ends in BUILD on the result."""

    def __reduce__(self) -> tuple:
        return Stated, (), {"state": 1}


# ---- opcodes, by hand

START, STOP = b"\x80\x02", b"."
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
FLOAT = b"cnumpy\ndtype\nU\x02f4\x89\x88\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"


def raw(*pieces: bytes) -> bytes:
    return START + b"".join(pieces) + STOP


def named(value: bytes) -> bytes:
    """A checkpoint with one entry, whose value these opcodes push."""
    return raw(b"}X\x01\0\0\0w", value, b"s")


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def array(
    shape: bytes = b"K\x01\x85", dtype: bytes = FLOAT, fortran: bytes = b"\x89", data: bytes = b"U\x04abcd"
) -> bytes:
    return ARRAY + b"(K\x01" + shape + dtype + fortran + data + b"tb"


def dtype_state(state: bytes) -> bytes:
    return b"cnumpy\ndtype\nU\x02f4\x89\x88\x87R(" + state + b"tb"


def called(function: str, arguments: bytes, count: int = 1) -> bytes:
    module, _, name = function.rpartition(".")
    return f"c{module}\n{name}\n".encode() + arguments + {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}[count] + b"R"


SYSTEM = (text("touch hostile"), 1)
DEEP = 60_000
SHARED = bytes(100_000)


def repeated(code: bytes, order: bytes) -> bytes:
    """A hundred arrays of the same bytes."""
    dtype = FLOAT.replace(b"f4", code).replace(b"U\x01<", b"U\x01" + order)
    shape = integer(len(SHARED) // int(code[1:])) + b"\x85"
    entries = b"".join(text(f"k{n}") + array(shape, b"h\1", data=b"h\0") for n in range(100))
    return b"\x80\x04B" + struct.pack("<I", len(SHARED)) + SHARED + b"q\0" + dtype + b"q\1}(" + entries + b"u."


LAUGHS = b"".join(
    b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 99 + b"eq" + bytes([level + 1]) for level in range(9)
)
BLOCK = text("x" * 100_000) + b"q\0"
PARTS = [f"big@@.{n}" for n in range(100)]

# What the message must say; a dot where any refusal will do.
HOSTILE: dict[str, tuple[bytes, str]] = {
    # Functions that do harm.
    "os.system": (named(called("os.system", *SYSTEM)), "asks for 'os.system'"),
    "posix.system": (named(called("posix.system", *SYSTEM)), "asks for 'posix.system'"),
    "nt.system": (named(called("nt.system", *SYSTEM)), "asks for 'nt.system'"),
    "os.system, protocol 4": (
        b"\x80\x04" + text("os") + text("system") + b"\x93" + SYSTEM[0] + b"\x85R.", "asks for 'os.system'"),
    "os.system, not called": (named(b"cos\nsystem\n"), "asks for 'os.system'"),
    "subprocess": (named(called("subprocess.Popen", *SYSTEM)), "asks for 'subprocess.Popen'"),
    "exec": (named(called("builtins.exec", text("ran.append(1)"))), "asks for 'builtins.exec'"),
    "eval of code": (pickle.dumps({"w": Call(eval, "ran.append(1)")}), "eval|arguments"),
    "eval of code with variables": (pickle.dumps({"w": Call(eval, "ran.append(1)", {"ran": 1})}), "calls eval with"),
    "eval of data that is no array": (pickle.dumps({"w": Call(eval, "data", {"data": 1})}), "calls eval with"),
    "eval of data with builtins": (
        pickle.dumps({"w": Call(eval, "data", {"data": 1, "__builtins__": {}})}), "calls eval with"),
    "eval of code with an array": (pickle.dumps({"w": Call(eval, "ran.append(1)", {"data": np.zeros(2)})}), "calls eval with"),
    "eval of data with more": (pickle.dumps({"w": Call(eval, "data", {"data": np.zeros(2), "more": 1})}), "calls eval with"),
    "getattr": (named(called("builtins.getattr", text("a") + text("b"), 2)), "asks for 'builtins.getattr'"),
    "import": (named(called("builtins.__import__", text("os"))), "asks for 'builtins.__import__'"),
    "importlib": (named(called("importlib.import_module", text("this"))), "asks for 'importlib.import_module'"),
    "open": (named(called("io.open", text("hostile") + text("w"), 2)), "asks for 'io.open'"),
    "numpy.load": (named(called("numpy.load", text("hostile.npy"))), "asks for 'numpy.load'"),
    "numpy.fromfile": (named(called("numpy.core.multiarray.fromfile", text("x"))), "multiarray.fromfile'"),
    "numpy.memmap": (named(called("numpy.memmap", text("hostile"))), "asks for 'numpy.memmap'"),
    "partial": (named(called("functools.partial", b"cos\nsystem\n")), "asks for 'functools.partial'"),
    "operator.attrgetter": (named(called("operator.attrgetter", text("system"))), "asks for 'operator.attrgetter'"),
    "pickle in a pickle": (named(called("_pickle.loads", b"U\x04abcd")), "asks for '_pickle.loads'"),
    "copyreg": (named(called("copyreg._reconstructor", b"NNN", 3)), "asks for 'copyreg._reconstructor'"),
    "extension registry": (named(called("copyreg.add_extension", b"NNN", 3)), "asks for 'copyreg.add_extension'"),
    "a class of ours": (pickle.dumps({"w": Stateful()}, 2), "asks for"),
    # Names that should slip through the table.
    "a dotted name": (
        b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93.", "asks for 'numpy.ndarray.__class__'"),
    "a name cut elsewhere": (
        b"\x80\x04" + text("numpy") + text("core.multiarray._reconstruct") + b"\x93.", "asks for 'numpy.core"),
    "a module that is no text": (b"\x80\x04K\x01" + text("system") + b"\x93.", "a name is not text"),
    "a name without end": (raw(b"c" + b"a" * 10_000), "a name is not ended"),
    "terminal codes in a name": (raw(b"cos\n\x1b[2Jsystem\n"), r"asks for 'os.\\x1b\[2Jsystem'"),
    # Calls of what is no function.
    "a call of a string": (named(text("print") + b")R"), "it calls a str"),
    "a call of an array": (named(array() + b")R"), "it calls a PickledArray"),
    "a call of what a call gave": (named(called("_codecs.encode", text("os")) + b")R"), "it calls a memoryview"),
    "a call of a class": (named(b"cnumpy\nndarray\n)R"), "it calls the name numpy.ndarray"),
    "arguments that are no tuple": (named(b"cnumpy\ndtype\n]R"), "it calls the name numpy.dtype"),
    "too many arguments": (named(called("numpy.dtype", b"NNN", 3)[:-2] + b"(NNNNNtR"), "."),
    # State on what takes none.
    "__setstate__": (pickle.dumps({"w": Stated()}, 2), "asks for"),
    "state of a dict": (named(b"}}b"), "sets the state of a dict"),
    "state of a list": (named(b"]}b"), "sets the state of a list"),
    "state of a class": (named(b"cnumpy\ndtype\n}b"), "sets the state of the name numpy.dtype"),
    "attributes of an array": (named(ARRAY + b"}X\x05\0\0\0arrayNsb"), "sets the state of a PickledArray"),
    "attributes of an array in slots": (named(ARRAY + b"N}X\x05\0\0\0arrayNs\x86b"), "an array's state is not NumPy's"),
    # Opcodes that model files have no use for.
    "INST": (raw(b"(" + text("touch hostile") + b"ios\nsystem\n"), "makes objects of classes"),
    "OBJ": (raw(b"(cos\nsystem\n" + text("touch hostile") + b"o"), "."),
    "OBJ on an allowed name": (raw(b"(cnumpy\ndtype\n" + text("f4") + b"o"), "makes objects of classes"),
    "NEWOBJ": (raw(b"cnumpy\nndarray\n)\x81"), "makes objects of classes"),
    "NEWOBJ_EX": (raw(b"cnumpy\nndarray\n)}\x92"), "makes objects of classes"),
    "EXT1": (raw(b"\x82\x01"), "outside the file"),
    "EXT2": (raw(b"\x83\x01\x01"), "outside the file"),
    "EXT4": (raw(b"\x84\x01\x01\x01\x01"), "outside the file"),
    "PERSID": (raw(b"Pstorage\n"), "outside the file"),
    "BINPERSID": (raw(b"(X\x07\0\0\0storagetQ"), "outside the file"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "outside the file"),
    "INT with a million digits": (raw(b"I" + b"9" * 1_000_000 + b"\n"), "protocol 0 or 1"),
    "LONG with a million digits": (raw(b"L" + b"9" * 1_000_000 + b"L\n"), "protocol 0 or 1"),
    "STRING with escapes": (raw(b"S'\\x00'\n"), "protocol 0 or 1"),
    "DUP": (raw(b"]2"), "contain themselves"),
    "an opcode that does not exist": (raw(b"\xfe"), "there is no opcode"),
    # Arrays that are none.
    "object array": (pickle.dumps({"w": np.array([Stateful()], object)}, 2), "element type 'O8' is no tensor|asks for"),
    "object array by hand": (named(array(dtype=FLOAT.replace(b"f4", b"O8"))), "element type 'O8' is no tensor"),
    "object array in protocol 5": (pickle.dumps({"w": np.array([{}], object)}, 5), "element type 'O8' is no tensor"),
    "object scalar": (
        named(called("numpy.core.multiarray.scalar", FLOAT.replace(b"f4", b"O8") + b"U\x04abcd", 2)), "type 'O8'"),
    "fields with objects": (named(array(dtype=FLOAT.replace(b"U\x02f4", text("f4,O")))), "element type 'f4,O'"),
    "fields in the state": (pickle.dumps({"w": np.zeros(1, [("a", "f4"), ("b", "O")])}, 2), "is no tensor"),
    "a subarray": (
        named(array(dtype=dtype_state(b"K\x03U\x01<]NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0"))), "has fields"),
    "object flags": (
        named(array(dtype=dtype_state(b"K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3f"))), "or flags"),
    "metadata": (
        named(array(dtype=dtype_state(b"K\x04U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0}"))), "metadata"),
    "a foreign byte order": (
        named(array(dtype=dtype_state(b"K\x03U\x01sNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0"))), "no byte order 's'"),
    "strings of a gigabyte": (named(array(dtype=FLOAT.replace(b"U\x02f4", text("S1000000000")))), "'S1000000000'"),
    "a dtype that is no dtype": (named(array(dtype=text("f4"))), "element type is a str"),
    "another class of array": (named(ARRAY.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n")), "not started as NumPy"),
    "an array made huge": (named(ARRAY.replace(b"K\0\x85", integer(2**40) + b"\x85")), "not started as NumPy"),
    "a huge shape": (named(array(integer(2**40) + b"\x85")), "cannot have 4 bytes"),
    "a shape that overflows": (named(array(integer(2**62) * 2 + b"\x86")), "impossibly large"),
    "a huge shape without elements": (named(array(b"K\0" + integer(2**62) * 2 + b"\x87")), "impossibly large"),
    "a negative shape": (named(array(integer(-1) + b"\x85")), "impossibly large"),
    "forty dimensions": (named(array(b"(" + b"K\x01" * 40 + b"t")), "impossibly large"),
    "a shape of strings": (named(array(text("1") + b"\x85")), "not a tuple of sizes"),
    "a shape that is no tuple": (named(array(b"K\x01")), "not a tuple of sizes"),
    "data that are a list": (named(array(data=b"]")), "bytes were expected, not a list"),
    "data that are no Latin-1": (named(array(data=text("Ω"))), "text stands where bytes"),
    "an array without state": (named(ARRAY), "an array without content"),
    "a buffer reshaped freely": (
        named(b"cnumpy.core.numeric\n_frombuffer\n(U\x04abcd" + FLOAT + integer(-1) + b"\x85X\x01\0\0\0CtR"), "large"),
    "a buffer in an odd order": (
        named(b"cnumpy.core.numeric\n_frombuffer\n(U\x04abcd" + FLOAT + b"K\x01\x85X\x01\0\0\0AtR"), "neither C nor F"),
    "a buffer with odd axes": (
        named(b"cnumpy.core.numeric\n_frombuffer\n(U\x04abcd" + FLOAT + b"K\x01\x85X\x01\0\0\0KK\x07\x85tR"), "axes"),
    # Lengths that are lies.
    "bytes of an exabyte": (b"\x80\x04\x8e" + struct.pack("<Q", 2**60), "ends in the middle"),
    "bytearray of an exabyte": (b"\x80\x05\x96" + struct.pack("<Q", 2**60), "ends in the middle"),
    "text of an exabyte": (b"\x80\x04\x8d" + struct.pack("<Q", 2**60), "ends in the middle"),
    "text of 4 GiB": (raw(b"X\xff\xff\xff\xff"), "ends in the middle"),
    "a string of -1 bytes": (raw(b"T\xff\xff\xff\xff"), "ends in the middle"),
    "a frame of an exabyte": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.", "ends in the middle"),
    "an integer of 2 GiB": (raw(b"\x8b\xff\xff\xff\x7f"), "ends in the middle"),
    "an integer of a megabyte": (raw(b"\x8b" + struct.pack("<i", 10**6) + b"\xff" * 10**6), "integer of 1000000 bytes"),
    "an integer of -1 bytes": (raw(b"\x8b\xff\xff\xff\xff"), "ends in the middle"),
    "bytes by number": (named(called("builtins.bytes", integer(2**40))), "bytes were expected, not a int"),
    "bytearray by number": (named(called("builtins.bytearray", integer(2**40))), "bytes were expected, not a int"),
    "a memo of 4 billion": (raw(b"}r\xff\xff\xff\xff"), "holds no weights"),
    # Little that unfolds to much.
    "billion laughs": (raw(b"]q\0", LAUGHS), "holds no weights"),
    "billion laughs as a key": (raw(b"}", b")" + b"q\0h\0\x86" * 60, b"Ns"), "keys are strings"),
    "a deep key": (raw(b"}", b")" + b"\x85" * DEEP, b"Ns"), "keys are strings"),
    "deep lists": (raw(b"]" * DEEP + b"a" * (DEEP - 1)), "holds no weights"),
    "deep tuples": (raw(b")" + b"\x85" * DEEP), "holds no weights"),
    "deep dicts": (raw(b"}" + b"U\x05model}" * DEEP + b"s" * DEEP), "holds no weights"),
    "deep marks": (raw(b"(" * DEEP), "takes a value where there is none"),
    "a list of itself": (raw(b"]q\0h\0a"), "holds no weights"),
    "a wrapper of itself": (raw(b"}q\0U\x05modelh\0s"), "holds no weights"),
    "a wrapper a thousandfold": (
        raw(b"}(" + b"".join(text(f"k{n}") + b"N" for n in range(5_000)) + b"uq\0}("
            + b"".join(text(f"k{n}") + b"h\0" for n in range(5_000)) + b"u"), "holds no weights"),
    "keys that collide": (
        raw(b"}(" + b"".join(b"\x8a\x10" + (n * (2**61 - 1)).to_bytes(16, "little") + b"N" for n in range(5_000))
            + b"u"), "keys are strings or small"),
    "a key without a value": (raw(b"(U\x01ad"), "a key has no value"),
    "a key that is a list": (raw(b"}]Ns"), "keys are strings"),
    "a set of lists": (named(b"\x8f(]\x90"), "keys are strings"),
    "bytes copied again and again": (
        raw(BLOCK + b"c_codecs\nencode\nq\1]" + b"h\1h\0\x85Ra" * 10_000), "more than the file"),
    "lists copied again and again": (
        raw(b"](" + b"N" * 100_000 + b"eq\0cbuiltins\ntuple\nq\1]" + b"h\1h\0\x85Ra" * 10_000), "more than the file"),
    "state copied again and again": (
        raw(BLOCK + FLOAT + b"q\1]" + (ARRAY + b"(K\1" + integer(25_000) + b"\x85h\1\x89h\0tba") * 100), "more than the file"),
    "bfloat16 widened again and again": (repeated(b"u2", b"<"), "arrays unfold to more"),
    "big-endian numbers turned again and again": (repeated(b"f4", b">"), "arrays unfold to more"),
    "one array in many parts": (
        pickle.dumps(dict.fromkeys(PARTS, np.zeros(10_000)) | {"UnpackBigParamInfor@@": {
            "big": {"OriginShape": (1_000_000,), "slices": PARTS}}}), "arrays unfold to more"),
    "a million empty lists": (raw(b"]" * 1_100_000), "more than 1,000,000 opcodes"),
    "an endless name": (raw(b"}", text("w" * 2000), array(), b"s"), "a name is 'w{60}', which is not printable text of up to"),
    "another encoding": (named(called("_codecs.encode", text("abcd") + text("zip"), 2)), "only bytes written"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def untouched(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """No hostile pickle may leave a file, run code of this module, or import anything."""
    monkeypatch.chdir(tmp_path)
    ran.clear()
    modules = set(sys.modules)
    yield
    assert list(tmp_path.iterdir()) == []
    assert ran == []
    assert not {"this", "nt"} & (set(sys.modules) - modules)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_checkpoints_are_refused_in_time(case: str) -> None:
    data, message = HOSTILE[case]
    started = time.process_time()
    with pytest.raises(FormatError, match=message) as caught:
        read_pdparams(blob(data, "model.pdparams"))
    assert time.process_time() - started < SECONDS
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_checkpoints_take_little_memory(case: str) -> None:
    data, _ = HOSTILE[case]
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_pdparams(blob(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BYTES_PER_BYTE * len(data) + BYTES_AT_ALL


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_infos_are_refused_or_say_nothing(case: str) -> None:
    with contextlib.suppress(FormatError):
        assert read_info(blob(HOSTILE[case][0])) == {}
