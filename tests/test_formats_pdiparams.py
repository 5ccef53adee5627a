"""`.pdiparams`: records against a program's parameters, all element types, damage."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from paddle2torch.converter.formats.info import read_info
from paddle2torch.converter.formats.pdiparams import read_pdiparams, write_pdiparams
from paddle2torch.converter.formats.pdmodel import Variable, read_pdmodel
from paddle2torch.converter.formats.pir import read_pir
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from support.format_samples import BFLOAT16, blob, record, tensor_description
from support.mirror import smallest

W = np.arange(6, dtype="<f4").reshape(2, 3)
B = np.array([-1.5, 6e-45], "<f4")
FILE = record((2,), B.tobytes()) + record((2, 3), W.tobytes())
PARAMETERS = (Variable("b", "float32", (2,), True), Variable("w", "float32", (2, 3), True))


def test_arrays_own_their_memory() -> None:
    data = bytearray(FILE)
    arrays = read_pdiparams(Blob("weights", memoryview(data).toreadonly()), PARAMETERS)
    data[:] = bytes(len(data))
    assert list(arrays) == ["b", "w"]
    np.testing.assert_array_equal(arrays["b"], B)
    np.testing.assert_array_equal(arrays["w"], W)
    assert all(array.flags.owndata and not array.flags.writeable for array in arrays.values())
    assert not arrays["w"].flags.writeable


def test_writing_gives_the_same_bytes() -> None:
    assert write_pdiparams({"w": np.asfortranarray(W), "b": B.astype(">f4")}) == FILE


# NumPy's type, Paddle's number and name.
ELEMENT_TYPES = [
    ("?", 0, "bool"),
    ("<i2", 1, "int16"),
    ("<i4", 2, "int32"),
    ("<i8", 3, "int64"),
    ("<f2", 4, "float16"),
    ("<f4", 5, "float32"),
    ("<f8", 6, "float64"),
    ("u1", 20, "uint8"),
    ("i1", 21, "int8"),
]


@pytest.mark.parametrize(("code", "number", "name"), ELEMENT_TYPES)
def test_every_element_type(code: str, number: int, name: str) -> None:
    expected = np.array([[1, 0, 1]], code)
    data = record((1, 3), expected.tobytes(), number)
    read = read_pdiparams(blob(data), [Variable("v", name, (1, 3), True)])["v"]
    np.testing.assert_array_equal(read, expected, strict=True)
    assert write_pdiparams({"v": expected}) == data


def test_bfloat16_is_widened_exactly() -> None:
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x7F80], "<u2")
    read = read_pdiparams(blob(record((4,), bits.tobytes(), BFLOAT16)), [Variable("v", "bfloat16", (4,), True)])["v"]
    expected = [1.0, -3.140625, np.float32(9.183549615799121e-41), np.inf]
    np.testing.assert_array_equal(read, np.array(expected, "f4"), strict=True)


def test_lod_levels_are_passed_over() -> None:
    data = record((2,), B.tobytes(), levels=[b"12345678", b""])
    np.testing.assert_array_equal(read_pdiparams(blob(data), PARAMETERS[:1])["b"], B)


def test_a_program_without_parameters_has_an_empty_file() -> None:
    assert read_pdiparams(blob(b""), []) == {}
    assert write_pdiparams({}) == b""


def test_shapes_without_elements_and_without_sizes() -> None:
    data = record((0, 3), b"") + record((), B[:1].tobytes())
    read = read_pdiparams(blob(data), [Variable("a", None, None, True), Variable("b", "float32", (), True)])
    assert (read["a"].shape, read["b"].shape) == ((0, 3), ())


def header(length: int, version: int = 0) -> bytes:
    return struct.pack("<IQIi", version, 0, 0, length)


HUGE = tensor_description((2**31, 2**31))
REFUSED = {
    "nothing": (b"", "is empty"),
    "cut in the data": (FILE[:-1], r"w should take 24 bytes, 23 are left; the file is cut short"),
    "cut in a header": (FILE[: len(FILE) - 40], "the file is cut short"),
    "more tensors": (FILE + FILE, r"82 bytes are left after the program's 2 parameters; .* another .pdmodel"),
    "another shape": (
        record((3,), bytes(12)) + FILE, r"b has shape \[3\] here, \[2\] in the program; .* not belong together"),
    "another type": (record((2,), bytes(4), 4), "b has element type float16 here, float32 in the program"),
    "an unknown type": (record((2,), bytes(8), 99), "b has element type 99, which is not read"),
    "an unread type": (record((2,), bytes(16), 23), "b has element type complex64, which is not read"),
    "huge sizes": (header(len(HUGE)) + HUGE, "b has the impossible shape"),
    "a negative size": (record((-2,), b""), r"b has the impossible shape \[-2\]"),
    "a nameless version": (header(4, version=3) + b"\0" * 20, "the record of b has version 3"),
    "a long description": (header(2**31 - 1), "the description of b cannot have 2147483647 bytes"),
    "a negative description": (header(-1), "the description of b cannot have -1 bytes"),
    "a broken description": (header(4) + b"\xff" * 40, "the description of b cannot be read"),
    "a description without type": (header(2) + b"\x10\x02" + bytes(8), "the description of b cannot be read"),
    "a large LoD": (struct.pack("<IQ", 0, 1), "b should take 8 bytes, 0 are left"),
    "endless LoD": (struct.pack("<IQ", 0, 2**63) + bytes(10**6), "b has 9223372036854775808 LoD levels; the file is damaged"),
    "a checkpoint": (b"\x80\x04}.", "is a pickle, not a .pdiparams file"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_damage_and_mix_ups_are_told(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(FormatError, match=message) as caught:
        read_pdiparams(blob(data, "x.pdiparams"), PARAMETERS)
    assert "\n" not in str(caught.value)


def test_huge_sizes_with_an_empty_one_are_refused() -> None:
    data = record((0, 2**62, 2**62), b"")
    with pytest.raises(FormatError, match="impossible shape"):
        read_pdiparams(blob(data), [Variable("v", None, None, True)])


def test_what_paddle_does_not_have_is_not_written() -> None:
    with pytest.raises(FormatError, match="v has element type complex64; Paddle stores"):
        write_pdiparams({"v": np.zeros(2, "c8")})


@pytest.mark.usefixtures("mirror")
def test_tarballs_of_the_mirror() -> None:
    archives = [each.path for each in smallest() if each.kind == "inference"]
    assert len(archives) >= 8
    for archive in archives:
        with tarfile.open(archive) as tar:
            files = {Path(each.name).name: tar.extractfile(each).read() for each in tar.getmembers()}
        of_paddle_3 = "inference.json" in files
        program = (
            read_pir(blob(files["inference.json"])) if of_paddle_3 else read_pdmodel(blob(files["inference.pdmodel"]))
        )
        arrays = read_pdiparams(blob(files["inference.pdiparams"]), program.parameters)
        assert write_pdiparams(arrays) == files["inference.pdiparams"]
        assert of_paddle_3 or set(arrays) <= set(read_info(blob(files["inference.pdiparams.info"])))
