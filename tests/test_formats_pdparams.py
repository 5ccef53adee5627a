"""`.pdparams`: every form that Paddle and training scripts have written, and what people bring instead."""

from __future__ import annotations

import io
import json
import logging
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from paddle2torch.converter.formats.pdparams import read_pdparams, write_pdparams
from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import FormatError
from support.format_samples import blob, linear_program, record
from support.mirror import smallest

W = np.arange(6, dtype="<f4").reshape(2, 3)
B = np.array([1.5, -2.0], "<f4")
STATE = {"fc.weight": W, "fc.bias": B}
PROTOCOLS = [2, 3, 4, 5]


def assert_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(read) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


def as_numpy_1(data: bytes) -> bytes:
    """A pickle with NumPy 1's module names; of protocol 4 and 5, whose frame has a length, too."""
    data = data.replace(b"cnumpy._core.", b"cnumpy.core.")
    for module in (b"multiarray", b"numeric"):
        new, old = b"numpy.core." + module, b"numpy._core." + module
        data = data.replace(bytes([0x8C, len(old)]) + old, bytes([0x8C, len(new)]) + new)
    if data[2:3] == pickle.FRAME:
        data = data[:3] + struct.pack("<Q", len(data) - 11) + data[11:]
    return data


# ---- NumPy's part of the pickle


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rename", [lambda data: data, as_numpy_1], ids=["as written", "as NumPy 1"])
def test_protocols_and_module_names(protocol: int, rename) -> None:
    data = rename(pickle.dumps(STATE, protocol))
    if rename is as_numpy_1:
        assert b"_core" not in data
    assert_same(read_pdparams(blob(data)), STATE)


CODES = ["?", "i1", "u1", "<i2", "<i4", "<i8", "<u4", "<u8", "<f2", "<f4", "<f8"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", CODES)
def test_element_types(code: str, protocol: int) -> None:
    state = {"v": np.array([[0, 1, 1]], code)}
    assert_same(read_pdparams(blob(pickle.dumps(state, protocol))), state)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", [">f4", ">i8", ">f2"])
def test_big_endian_arrays_become_native(code: str, protocol: int) -> None:
    state = {"v": np.array([1, 2, 300], code)}
    assert_same(read_pdparams(blob(pickle.dumps(state, protocol))), {"v": state["v"].astype(code[1:])})


LAYOUTS = {
    "Fortran order": np.asfortranarray(W),
    "axes moved": np.arange(24, dtype="<f4").reshape(2, 3, 4).transpose(1, 0, 2),
    "not contiguous": np.arange(12, dtype="<f4").reshape(2, 6)[:, ::2],
    "no elements": np.zeros((0, 3), "<f4"),
    "no dimensions": np.array(2.5, "<f4"),
    "NumPy scalar": np.float32(2.5),
    "NumPy bool": np.bool_(True),
    "one element": np.array([7], "<i8"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, protocol: int) -> None:
    expected = {"a": W, "v": np.asarray(LAYOUTS[layout])}
    assert_same(read_pdparams(blob(pickle.dumps({"a": W, "v": LAYOUTS[layout]}, protocol))), expected)


def test_a_lone_scalar_is_a_state_too() -> None:
    assert_same(read_pdparams(blob(pickle.dumps({"scale": np.float32(2.5)}))), {"scale": np.array(2.5, "<f4")})


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_views_of_the_file(protocol: int) -> None:
    data = bytearray(pickle.dumps({"w": np.full(1000, 7, "<f4")}, protocol))
    read = read_pdparams(Blob("model.pdparams", memoryview(data).toreadonly()))["w"]
    at = data.index(struct.pack("<ff", 7, 7))
    data[at : at + 4] = struct.pack("<f", 8)
    assert read[0] == 8
    assert not read.flags.writeable


PYTHON_2 = (
    b"\x80\x02}q\x00(U\x02fcq\x01"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
    b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"\x89U\x08" + B.tobytes() + b"tbU\x1bStructuredToParameterName@@}U\x02fcU\x0alinear.w_0su."
)


def test_python_2_wrote_bytes_as_strings() -> None:
    assert_same(read_pdparams(blob(PYTHON_2)), {"fc": B})


# ---- Paddle's part


def bfloat16(array: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 numbers, as Paddle gives them to NumPy; exact for the small numbers here."""
    return (array.view("<u4") >> 16).astype("<u2")


BIG = np.arange(10, dtype="<f4").reshape(2, 5)
PARTS = {
    "big@@.0": BIG.reshape(-1)[:6],
    "fc.bias": B,
    "big@@.1": BIG.reshape(-1)[6:],
    "UnpackBigParamInfor@@": {"big": {"OriginShape": (2, 5), "slices": ["big@@.0", "big@@.1"]}},
}
PAIRS = {name: (f"linear_0.{name}", array) for name, array in STATE.items()}
MOMENTS = {"linear_0.w_0_moment1_0": W, "linear_0.w_0_beta1_pow_acc_0": B[:1]}

FORMS = {
    "flat": (STATE, STATE),
    "ordered": (OrderedDict(STATE), STATE),
    "name table": ({**STATE, "StructuredToParameterName@@": {"fc.weight": "linear_0.w_0"}}, STATE),
    "pairs": (PAIRS, STATE),
    "list of pairs": (list(PAIRS.values()), {f"linear_0.{name}": array for name, array in STATE.items()}),
    "float16": ({"w": W.astype("<f2")}, {"w": W.astype("<f2")}),
    "bfloat16": ({"w": bfloat16(W)}, {"w": W}),
    "parts": (PARTS, {"fc.bias": B, "big": BIG}),
    "notes beside": ({**STATE, "epoch": 3, "lr": 0.1, "note": "best", "history": [1, 2], "tags": {"a"}}, STATE),
    "state_dict": ({"state_dict": STATE, "epoch": np.int64(3), "loss": np.float64(0.5)}, STATE),
    "model and optimizer": ({"optimizer": MOMENTS, "model": STATE}, STATE),
    "own wrapper": ({"recogniser": STATE, "epoch": np.int64(3), "optimizer": MOMENTS}, STATE),
    "wrapper in wrapper": ({"model": {"state_dict": STATE}}, STATE),
    "EMA alone": ({"ema_state_dict": STATE, "decay": 0.999}, STATE),
    "wrapper of pairs": ({"state_dict": PAIRS}, STATE),
    "wrapper beside progress": ({"state_dict": STATE, "best_model_dict": {"acc": np.float64(1)}, "epoch": 1}, STATE),
    "LSTM aliases": (
        {"lstm.weight_ih_l0": W, "lstm.0.cell_fw.weight_ih": W},
        {"lstm.weight_ih_l0": W, "lstm.0.cell_fw.weight_ih": W},
    ),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, protocol: int) -> None:
    written, expected = FORMS[form]
    assert_same(read_pdparams(blob(pickle.dumps(written, protocol))), expected)


def test_one_array_of_two_names_is_made_once() -> None:
    shared = bfloat16(W)
    read = read_pdparams(blob(pickle.dumps({"lstm.weight_ih_l0": shared, "lstm.0.cell_fw.weight_ih": shared})))
    assert read["lstm.weight_ih_l0"] is read["lstm.0.cell_fw.weight_ih"]


def test_static_tensors_are_written_as_a_call_of_eval() -> None:
    class Static:
        def __reduce__(self):
            return eval, ("data", {"data": W})

    for protocol in PROTOCOLS:
        assert_same(read_pdparams(blob(pickle.dumps({"w": Static()}, protocol))), {"w": W})


def test_weights_are_taken_before_their_moving_average_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    content = {"ema": {"fc.bias": B}, "model": STATE}
    with caplog.at_level(logging.WARNING):
        assert_same(read_pdparams(blob(pickle.dumps(content))), STATE)
    assert "the weights are taken from 'model'; passed over: 'ema'" in caplog.text


# ---- what is no checkpoint


def zip_of(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return out.getvalue()


def tar_of(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


SAFETENSORS = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
OTHERS = {
    "optimizer": (pickle.dumps({**MOMENTS, "LR_Scheduler": {"last_lr": 0.1}}), "of an optimizer .* give the .pdparams"),
    "moments alone": (pickle.dumps(MOMENTS), "holds the state of an optimizer"),
    "scheduler alone": (pickle.dumps({"LR_Scheduler": {"last_epoch": 500}}, 2), "holds the state of an optimizer"),
    "progress": (pickle.dumps({"best_model_dict": {"acc": np.float64(1)}, "epoch": 5}), "progress of a training"),
    "progress without a best": (pickle.dumps({"epoch": 5, "global_step": 9}), r"\(.states\), no weights; give the"),
    "no arrays": (pickle.dumps({"a": 1}), "holds no weights"),
    "nothing inside": (pickle.dumps({}), "holds no weights"),
    "a number": (pickle.dumps(3), "holds no weights"),
    "an array": (pickle.dumps(W), "holds no weights"),
    "arrays without names": (pickle.dumps([W, B]), "holds no weights"),
    "too many tensors": (
        pickle.dumps({f"w{n}": W for n in range(22_001)}), "refused: 22,001 tensors, where checkpoints have up to 22,000"),
    "numbers as names": (pickle.dumps({0: W}), "a name is a int, which is not printable text"),
    "a name with a line end": (pickle.dumps({"a\nb": W}), r"a name is 'a\\nb'"),
    "several models": (pickle.dumps({"left": STATE, "right": STATE}), r"several tables of arrays \('left', 'right'\)"),
    "a part is missing": (
        pickle.dumps({name: value for name, value in PARTS.items() if name != "big@@.1"}), "which are not all there"),
    "parts of another size": (
        pickle.dumps({**PARTS, "UnpackBigParamInfor@@": {"big": {"OriginShape": (2, 6), "slices": ["big@@.0"]}}}),
        r"parts of 6 elements, which do not fill \(2, 6\)"),
    "parts of an impossible shape": (
        pickle.dumps({"p": np.zeros(0), "UnpackBigParamInfor@@": {"big": {"OriginShape": (0, 2**62, 2**62), "slices": ["p"]}}}),
        "its own shape is damaged"),
    "parts of another type": (pickle.dumps({**PARTS, "big@@.1": np.zeros(4)}), "parts, which are not all there"),
    "no word on parts": (pickle.dumps({**PARTS, "UnpackBigParamInfor@@": {"big": 3}}), "does not say how big was cut"),
    "strings": (pickle.dumps({"v": np.array(["a"])}), "element type 'U1' is no tensor"),
    "complex numbers": (pickle.dumps({"v": np.zeros(2, "c8")}), "element type 'c8' is no tensor"),
    "cut short": (pickle.dumps(STATE, 4)[:-30], "ends in the middle"),
    "cut short, protocol 2": (pickle.dumps(STATE, 2)[:-30], "ends in the middle"),
    "more behind": (pickle.dumps(STATE) + b"more", "4 bytes follow the end"),
    "protocol 0": (pickle.dumps({"a": 1}, 0), "is not a pickle of protocol 2 to 5"),
    "protocol 6": (b"\x80\x06}.", "is not a pickle|is a pickle of protocol 6"),
    "nothing": (b"", "is empty, not a .pdparams checkpoint; get it again"),
    "zeros": (bytes(4096), "nothing but zeros"),
    "torch": (zip_of("archive/data.pkl", "archive/version"), "is a PyTorch checkpoint"),
    "torch, old": (TORCH_LEGACY, "is a PyTorch checkpoint"),
    "torch, inside": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n.", "is a PyTorch checkpoint"),
    "a Paddle object": (b"\x80\x02cpaddle.nn\nLinear\n.", "holds the Python object paddle.nn.Linear, not only weights"),
    "npz": (zip_of("w.npy"), "is a NumPy archive"),
    "zip": (zip_of("best_accuracy.pdparams"), "is a zip archive"),
    "tar": (tar_of("best_accuracy.pdparams"), "is a tar archive"),
    "gzip": (b"\x1f\x8b\x08\x00", "is a gzip file"),
    "safetensors": (struct.pack("<Q", len(SAFETENSORS)) + SAFETENSORS, "is a safetensors file"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a", "is an ONNX model"),
    "a web page": (b"\n<!DOCTYPE html>\n<html><head>", "is a web page, not a .pdparams checkpoint; the download"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "JSON": (b'{"base_code": {}}', "is JSON"),
    "a program": (linear_program(), "is a Paddle program, not .* the .pdmodel file"),
    "parameters": (record((2,), B.tobytes()), "is Paddle inference parameters, not .* the .pdiparams file"),
    "an image": (b"\x89PNG\r\n", "is an image"),
    "a log": (b"epoch: [500/500]", "is not a pickle of protocol 2 to 5"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_told_apart_in_one_line(case: str) -> None:
    data, message = OTHERS[case]
    with pytest.raises(FormatError, match=message) as caught:
        read_pdparams(blob(data, "model.pdparams"))
    assert str(caught.value).startswith("model.pdparams")
    assert "\n" not in str(caught.value)


# ---- writing

WRITTEN = {
    "fc.weight": W,
    "bn.mean": B,
    "scale": np.array(2.5, "<f8"),
    "none": np.zeros((0, 3), "<f2"),
    "mask": np.array([True, False]),
    "steps": np.arange(300, dtype="<i8"),
}


def test_what_is_written_is_read() -> None:
    assert_same(read_pdparams(blob(write_pdparams(WRITTEN))), WRITTEN)


def test_what_is_written_is_a_plain_pickle_for_any_numpy() -> None:
    data = write_pdparams(WRITTEN)
    assert b"numpy._core" not in data
    assert_same(pickle.loads(data), WRITTEN)


def test_other_layouts_are_written_in_c_order() -> None:
    written = write_pdparams({"w": np.asfortranarray(W).astype(">f4")})
    assert_same(read_pdparams(blob(written)), {"w": W})


def test_what_paddle_does_not_have_is_not_written() -> None:
    with pytest.raises(FormatError, match="v has element type complex64; Paddle has"):
        write_pdparams({"v": np.zeros(2, "c8")})


# ---- real files

PADDLE = """
import sys
import numpy as np
import paddle
folder = sys.argv[1]
loaded = paddle.load(folder + "/written.pdparams")
np.savez(folder + "/loaded.npz", **{name: tensor.numpy() for name, tensor in loaded.items()})
layer = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))
state = layer.state_dict()
np.savez(folder + "/expected.npz", **{name: tensor.numpy() for name, tensor in state.items()})
for protocol in (2, 3, 4):
    paddle.save(state, f"{folder}/flat{protocol}.pdparams", protocol=protocol)
    paddle.save({"state_dict": state, "epoch": 3}, f"{folder}/wrapped{protocol}.pdparams", protocol=protocol)
paddle.save({name: tensor.astype("bfloat16") for name, tensor in state.items()}, folder + "/bfloat16.pdparams")
optimizer = paddle.optimizer.Adam(parameters=layer.parameters())
layer(paddle.ones([4, 2])).sum().backward()
optimizer.step()
paddle.save(optimizer.state_dict(), folder + "/adam.pdopt")
"""


@pytest.mark.skipif(find_spec("paddle") is None, reason="Paddle is not installed")
def test_paddle_loads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "written.pdparams").write_bytes(write_pdparams(WRITTEN))
    subprocess.run([sys.executable, "-c", PADDLE, str(tmp_path)], check=True, capture_output=True, timeout=300)
    assert_same(dict(np.load(tmp_path / "loaded.npz")), WRITTEN)
    expected = dict(np.load(tmp_path / "expected.npz"))
    for path in sorted(tmp_path.glob("[fw]*[234].pdparams")):
        assert_same(read_pdparams(Blob.open(path)), expected)
    widened = {name: (array.view("<u4") >> 16 << 16).view("<f4") for name, array in expected.items()}
    for name, array in read_pdparams(Blob.open(tmp_path / "bfloat16.pdparams")).items():
        np.testing.assert_allclose(array, widened[name], rtol=2**-7)
    with pytest.raises(FormatError, match="state of an optimizer"):
        read_pdparams(Blob.open(tmp_path / "adam.pdopt"))


@pytest.mark.usefixtures("mirror")
def test_checkpoints_of_the_mirror() -> None:
    paths = [each.path for each in smallest() if each.kind != "inference"]
    assert len(paths) >= 8
    for path in paths:
        for name, data in checkpoints_in(path):
            expected = pickle.loads(data)
            expected.pop("StructuredToParameterName@@", None)
            assert_same(read_pdparams(Blob(name, data)), expected)


def checkpoints_in(path: Path) -> Iterator[tuple[str, memoryview]]:
    """Name and bytes of each: of a file that is one itself, or of those in a tarball."""
    whole = Blob.open(path)
    if path.suffix == ".pdparams":
        yield path.name, whole.data
        return
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            if member.name.endswith(".pdparams"):
                yield member.name, whole.data[member.offset_data : member.offset_data + member.size]
