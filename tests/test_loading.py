"""Files of weights: what training leaves is taken, what is damaged or something else is told, and nothing is shared."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import random
import re
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from paddle2torch.architectures import create_model, load_model
from paddle2torch.architectures.digest import digest_of
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import random_tensors, write_checkpoint

ARCHITECTURE = "rec_mobilenet_v3_bilstm_ctc"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three files of a small recogniser, called mine."""
    folder = tmp_path_factory.mktemp("converted")
    path = write_checkpoint(folder / "mine.pdparams", random_tensors(ARCHITECTURE, classes=11))
    artifacts.write(convert(load_source(str(path), load_zoo(), Fetcher(offline=True))), folder)
    return folder


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(converted, tmp_path / "copy"))


@pytest.fixture(scope="module")
def state(converted: Path) -> State:
    return torch.load(converted / "mine.pth", weights_only=True)


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def prefixed(prefix: str) -> Callable[[State], object]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def averaged(state: State) -> object:
    """As torch.optim.swa_utils.AveragedModel has it."""
    return {"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in state.items()}}


def lightning(state: State) -> object:
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "state_dict": {**{f"model.{key}": value for key, value in state.items()}, "criterion.weight": torch.ones(3)},
    }


def compiled_backbone(state: State) -> object:
    return {re.sub(r"^backbone\.", "backbone._orig_mod.", key): value for key, value in state.items()}


WRAPPED: dict[str, Callable[[State], object]] = {
    "as it is": lambda state: state,
    "an OrderedDict": OrderedDict,
    "parameters": lambda state: {key: nn.Parameter(v, v.is_floating_point()) for key, v in state.items()},
    "DataParallel": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "both": prefixed("_orig_mod.module."),
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "another wrapper": prefixed("net."),
    "wrappers in wrappers": prefixed("net.module.recogniser."),
    "a compiled part": compiled_backbone,
    "a running average": averaged,
    "Lightning": lightning,
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 7},
    "state_dict": lambda state: {"state_dict": state, "best": 0.9},
    "model_state_dict of DataParallel": lambda state: {"model_state_dict": prefixed("module.")(state)},
    "an average alone": lambda state: {"ema": {"module": state}},
    "a tuple": lambda state: (3, state),
}


@pytest.mark.parametrize("way", WRAPPED)
@pytest.mark.parametrize("described", [True, False], ids=["with .json", "without"])
def test_what_training_leaves_is_taken(
    way: str, described: bool, state: State, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(WRAPPED[way](state), folder / "mine.pth")
    if not described:
        (folder / "mine.json").unlink()
    model = load_model(folder / "mine.pth")
    assert same(model.state_dict(), state)
    assert bool(model.metadata) == described
    assert caplog.records == []  # it is the same tensors as in the .json
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_wrapped_names_in_safetensors_too(state: State, tmp_path: Path) -> None:
    save_file(prefixed("module.")(state), tmp_path / "theirs.safetensors")
    assert same(load_model(tmp_path / "theirs.safetensors").state_dict(), state)


@pytest.mark.parametrize(
    "together",
    [
        lambda state, average: {"model": state, "model_ema": average},
        lambda state, average: {"state_dict": state, "state_dict_ema": average},
        lambda state, average: {**prefixed("model.")(state), **prefixed("ema_model.module.")(average)},
    ],
)
def test_of_weights_and_their_average_the_average_is_taken_and_told(
    together: Callable[[State, State], object], state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    average = {key: value + 1 for key, value in state.items()}
    torch.save(together(state, average), tmp_path / "both.pth")
    assert same(load_model(tmp_path / "both.pth").state_dict(), average)
    assert re.search(r"both\.pth: holds several sets of weights; took the average over training \(.*ema", caplog.text)


def test_two_sets_that_fit_are_not_chosen_between(state: State, tmp_path: Path) -> None:
    torch.save({"student": state, "teacher": copy.deepcopy(state)}, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"both\.pth: holds 2 sets of weights that fit \(student, teacher\); save one"):
        load_model(tmp_path / "both.pth")


def test_the_nearest_network_is_one_of_the_same_task(state: State, tmp_path: Path) -> None:
    short = {key: value for key, value in state.items() if key != "neck.encoder.lstm.weight_ih_l0"}
    torch.save(prefixed("net.")(short), tmp_path / "short.pth")
    with pytest.raises(
        ValueError, match=rf"nearest is {ARCHITECTURE} \(1 missing\): neck\.encoder\.lstm\.weight_ih_l0$"
    ):
        load_model(tmp_path / "short.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"none of its 1 tensors \(features\.0\.weight\) has the name and shape"):
        load_model(tmp_path / "other.pth")


# ---- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_who_writes_to_the_file_changes_nothing(suffix: str, folder: Path, state: State) -> None:
    path = folder / f"mine{suffix}"
    model = load_model(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
        file.truncate(size // 3)
    assert same(model.state_dict(), state)


def test_a_model_can_be_saved_to_the_file_that_it_came_from(
    folder: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(folder / "mine.pth")
    torch.save(model.state_dict(), folder / "mine.pth")
    assert same(load_model(folder / "mine.pth").state_dict(), state)
    assert caplog.records == []
    with torch.no_grad():
        model.head.fc.bias.add_(1)
    torch.save(model.state_dict(), folder / "mine.pth")
    assert same(load_model(folder / "mine.pth").state_dict(), model.state_dict())
    assert "nothing is wrong if it was trained further" in caplog.text


def test_tensors_that_share_memory_in_a_file_do_not_in_the_module(state: State, tmp_path: Path) -> None:
    shared = torch.zeros(11, 96)
    tied = {**state, "head.fc.weight": shared, "head.fc.bias": shared.view(-1)[:11]}
    torch.save(tied, tmp_path / "tied.pth")
    model = load_model(tmp_path / "tied.pth")
    with torch.no_grad():
        model.head.fc.weight.fill_(5)
    assert not model.head.fc.bias.any()


# ---- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_any_floating_point_type_gives_float32(dtype: torch.dtype, suffix: str, state: State, tmp_path: Path) -> None:
    other = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    path = tmp_path / f"half{suffix}"
    (torch.save if suffix == ".pth" else save_file)(other, path)
    model = load_model(path)
    assert same(model.state_dict(), {key: value.to(state[key].dtype) for key, value in other.items()})
    assert model(torch.zeros(1, 3, 32, 64)).dtype == torch.float32
    assert {value.dtype for value in load_model(path, dtype=dtype).state_dict().values()} == {dtype, torch.int64}


def test_a_type_that_cannot_hold_the_values_is_refused(state: State, tmp_path: Path) -> None:
    large = {**state, "head.fc.bias": torch.full((11,), 1e300, dtype=torch.float64)}
    torch.save(large, tmp_path / "large.pth")
    with pytest.raises(ValueError, match=r"head\.fc\.bias has values too large for torch\.float32"):
        load_model(tmp_path / "large.pth")
    assert load_model(tmp_path / "large.pth", dtype=torch.float64).head.fc.bias[0] == 1e300
    with pytest.raises(ValueError, match="a type of floating-point numbers is wanted"):
        load_model(tmp_path / "large.pth", dtype=torch.int8)
    with pytest.raises(ValueError, match=r"is wanted, such as torch\.float16, not 'float16'"):
        load_model(tmp_path / "large.pth", dtype="float16")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("head.fc.bias", float("nan"), "holds NaN (head.fc.bias), so that"),
        ("head.fc.bias", float("-inf"), "holds infinity (head.fc.bias), so that"),
        ("backbone.conv1.bn.running_var", -0.5, "holds negative variances (backbone.conv1.bn.running_var), so that"),
        ("backbone.conv1.bn.running_var", -1e-9, None),
        ("head.fc.bias", -0.5, None),
    ],
)
def test_values_that_lead_to_nan_are_told(
    key: str, value: float, told: str | None, state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {name: tensor.clone() for name, tensor in state.items()}
    wrong[key][1] = value
    torch.save(wrong, tmp_path / "wrong.pth")
    load_model(tmp_path / "wrong.pth")
    assert caplog.messages == ([f"{tmp_path / 'wrong.pth'}: {told} the network answers NaN"] if told else [])


def test_a_device_can_be_named(folder: Path) -> None:
    assert {value.device.type for value in load_model(folder / "mine.pth", device="meta").state_dict().values()} == {
        "meta"
    }


ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sparse": (lambda t: t.to_sparse(), "sparse"),
    "compressed": (lambda t: t.to_sparse_csr(), "sparse"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantised"),
    "complex": (lambda t: t.to(torch.complex64), "complex64"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "float8"),
    "without values": (lambda t: t.to("meta"), "without values"),
    "expanded": (lambda t: t[:1, :1].clone().expand(t.shape), "has fewer values"),
    "boolean": (lambda t: t > 0, "torch.bool"),
    "integers": (lambda t: t.to(torch.int8), "torch.int8"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_is_not_simply_its_values_is_named(kind: str, state: State, tmp_path: Path) -> None:
    change, word = ODD[kind]
    torch.save({**state, "head.fc.weight": change(state["head.fc.weight"])}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=rf"odd\.pth: head\.fc\.weight is .*{word}"):
        load_model(tmp_path / "odd.pth")


# ---- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_flipped_bit_is_told_or_changes_nothing(suffix: str, folder: Path, state: State) -> None:
    path = folder / f"mine{suffix}"
    whole, generator, told = path.read_bytes(), random.Random(3), 0
    for _ in range(60):
        place = generator.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert same(load_model(path).state_dict(), state)
        except ValueError:
            told += 1
    assert told > 50


def test_the_check_can_be_switched_off(folder: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        path = folder / f"mine{suffix}"
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"mine\{suffix}: is damaged"):
            load_model(path)
        load_model(path, check=False)


def test_files_without_checksums_are_taken(state: State, tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "fast.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load_model(tmp_path / "fast.pth").state_dict(), state)


def test_a_published_file_is_what_its_name_says(folder: Path, state: State) -> None:
    (folder / "config.json").write_text((folder / "mine.json").read_text())
    wrong = shutil.copy(folder / "mine.pth", folder / "mine-01234567.pth")
    with pytest.raises(ValueError, match=r"its sha256 begins with \w{8}, not with 01234567 as in its name"):
        load_model(wrong)
    # Elsewhere eight digits may be a date.
    assert load_model(shutil.copy(folder / "mine.pth", folder.parent / "mine-20240131.pth"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["twice", "compressed"])
def test_an_archive_that_torch_did_not_write_is_refused(compression: int, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "odd.pth"
    with zipfile.ZipFile(folder / "mine.pth") as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
        if compression == zipfile.ZIP_STORED:
            with pytest.warns(UserWarning, match="Duplicate"):
                new.writestr(member, b"other")
    with pytest.raises(ValueError, match=r"odd\.pth: (has two members called|its members are compressed)"):
        load_model(target)


def test_the_digest_is_of_names_types_shapes_and_values() -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(())}
    assert digest_of(dict(reversed(state.items()))) == digest_of(state)
    assert digest_of({**state, "a": state["a"].t().contiguous().t()}) == digest_of(state)
    others = [
        {"a": state["a"]},
        {"c": state["a"], "b": state["b"]},
        {**state, "a": state["a"].reshape(3, 2)},
        {**state, "a": state["a"].double()},
        {**state, "a": state["a"] + 1},
        {**state, "b": torch.tensor(-0.0)},
    ]
    assert len({digest_of(other) for other in (state, *others)}) == 7


def test_every_converted_file_has_the_digest_of_its_tensors(folder: Path) -> None:
    state = load_file(folder / "mine.safetensors")
    record = json.loads((folder / "mine.json").read_text())
    assert record["digest"] == digest_of(state)
    # What is written after training has that of the new tensors.
    state["head.fc.bias"] += 1
    paths = artifacts.write_files(state, record, folder)
    assert all(same(load_model(path).state_dict(), state) for path in paths[:2])
    assert json.loads(paths[2].read_text())["digest"] == digest_of(state) != record["digest"]


# ---- something else ----------------------------------------------------------------------------------------------


class Settings:
    pass


def paddle(path: Path) -> Path:
    return write_checkpoint(path, random_tensors(ARCHITECTURE, classes=11))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: paddle(f / "a.pdparams"), "a file of Paddle's, .* convert it first: paddle2torch convert .*a.pdparams"),
        (lambda f: paddle(f / "a.pth"), "a pickle of NumPy arrays, as Paddle's checkpoints are"),
        (lambda f: torch.save(create_model(ARCHITECTURE), f / "a.pth"), r"refers to .*\.OCRModel.* save `model.state_dict"),
        (lambda f: torch.save({"args": Settings()}, f / "a.pth"), r"refers to .*Settings"),
        (lambda f: torch.save({"acc": np.float64(1)}, f / "a.pth"), r"refers to numpy\."),
        (lambda f: torch.jit.save(torch.jit.script(nn.ReLU()), f / "a.pth"), "a TorchScript program"),
        (lambda f: (f / "a.pth").write_bytes(pickle.dumps({"a": Settings()})), r"refers to .*Settings"),
        (lambda f: (f / "a.pth").write_bytes(b""), "is empty"),
        (lambda f: (f / "a.pth").write_text("hello"), r"not a file that torch\.load"),
        (lambda f: torch.save({"epoch": 3}, f / "a.pth"), "not a state dict"),
        (lambda f: torch.save({1: torch.zeros(2)}, f / "a.pth"), "not a state dict"),
        (lambda f: (f / "a.safetensors").write_text("hello"), "not a safetensors file"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_weights_is_told_and_nothing_runs(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{message}") as error:
        load_model(path)
    assert (
        error.value.__suppress_context__
        or error.value.__cause__ is None
        or "weights_only" not in str(error.value.__cause__)
    )
    assert "weights_only` set to `False" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["embedded_rec", "no_such_model", "x" * 2000])
def test_a_name_of_the_zoo_is_converted_first(text: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{text}: there is no such file; .* paddle2torch convert {text}$"):
        load_model(text)


def test_a_folder_of_paddles_is_converted_first(tmp_path: Path) -> None:
    (tmp_path / "inference.pdmodel").touch()
    with pytest.raises(FileNotFoundError, match=f"it is no published model; .* paddle2torch convert {tmp_path}$"):
        load_model(tmp_path)


# ---- what files say of themselves --------------------------------------------------------------------------------


def described(folder: Path, **facts: Any) -> Path:
    """The `.pth` with a `.json` in which something stands otherwise."""
    record = json.loads((folder / "mine.json").read_text())
    (folder / "mine.json").write_text(json.dumps({**record, **facts}))
    return folder / "mine.pth"


LSTM = {
    "format": "paddle2torch-graph", "version": 1, "inputs": {"x": [-1, 3, 32, 320]}, "outputs": ["y"],
    "parameters": {"w": {"name": None, "shape": [4], "dtype": "float32"}},
    "nodes": [{"type": "lstm", "inputs": {"x": ["x"], "weights": ["w"] * 4}, "outputs": ["y"],
               "attributes": {"hidden_size": 1, "num_layers": 10**9, "bidirectional": False}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"architecture": "no_such"}, "name no network: there is no architecture 'no_such'"),
        ({"task": "cls", "postprocessing": None}, f"{ARCHITECTURE} is for the task rec, not cls"),
        ({"parameters": {"depth": 3}}, "has no parameter depth"),
        ({"parameters": {"classes": 12}, "labels": None}, "its parameter classes is 12, and the tensors are of 11"),
        ({"parameters": {"hidden_size": 10**9}}, "its parameter hidden_size is 1000000000, and the tensors are of 48"),
        ({"parameters": {"hidden_size": None}}, "its parameter hidden_size is None"),
        ({"parameters": {"scale": 1000, "classes": 11}}, "its parameter scale is 1000, and no tensor has more than"),
        ({"parameters": {"scale": 1.0, "classes": 11}}, r"its tensors are not those of .*scale = 1\.0.*of another shape \(backbone"),
        ({"parameters": {"scale": True}}, "its parameter scale is True"),
        ({"architecture": "graph", "graph": LSTM}, "lstm has 4 weights, and 4000000000 belong to its layers"),
        ({"name": "../../x"}, "'name' has '/' in it"),
        ({"labels": ["blank", "a"]}, "'labels' are 2, and there are 11 classes"),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_are_a_value_error(facts: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_model(described(folder, **facts))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_a_json_that_is_none_is_a_value_error(text: bytes, folder: Path) -> None:
    (folder / "mine.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"mine\.json: its metadata are no JSON"):
        load_model(folder / "mine.pth")


def test_a_json_of_others_is_passed_over(folder: Path, state: State) -> None:
    (folder / "mine.json").write_text('{"model_type": "bert"}')
    model = load_model(folder / "mine.pth")
    assert (model.metadata, same(model.state_dict(), state)) == ({}, True)


def test_whatever_a_reader_raises_is_a_value_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero\nsecond line")

    monkeypatch.setattr("paddle2torch.architectures.matching.match", fail)
    with pytest.raises(ValueError, match=r"mine\.pth: cannot be read as weights \(by zero\); convert the model again"):
        load_model(folder / "mine.pth")


def test_a_copy_of_a_loaded_model_computes_the_same(folder: Path) -> None:
    model = load_model(folder / "mine.pth")
    images = torch.rand(1, 3, 32, 64)
    assert torch.equal(copy.deepcopy(model)(images), model(images))


def test_nothing_is_logged_where_nothing_is_wrong(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        load_model(folder / "mine.pth")
        load_model(folder / "mine.safetensors")
    assert caplog.records == []
