"""What a conversion leaves on disk: the state dict in two formats, the same at every conversion, errors as they are."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from paddle2torch.architectures.digest import digest_of
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.errors import OutputError
from paddle2torch.converter.support.interrupts import remembered
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher

# Text that JSON writes in more than one way.
ODD = 'é/"\\ 日本\n\t\x01\x7f\u2028<>&'
STATE = {
    f"{name}.{kind}": (torch.arange(24) % 2)[: torch.Size(shape).numel()].reshape(shape).to(getattr(torch, kind))
    for name, shape in {"b": (3,), "a": (), "é": (0, 4), "B": (2, 3, 4), "x.10": (5,), ODD: (2,)}.items()
    for kind in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[key].dtype == expected[key].dtype and torch.equal(found[key], expected[key]) for key in expected
    )


def test_both_files_hold_the_state_dict(tmp_path: Path) -> None:
    record = {"name": "x", "labels": [ODD]}
    pth, safetensors, text = artifacts.write_files(STATE, record, tmp_path / "new")
    assert [path.name for path in (pth, safetensors, text)] == ["x.pth", "x.safetensors", "x.json"]
    state = torch.load(pth, weights_only=True)
    assert list(state) == list(STATE)
    assert same(state, STATE)
    assert same(load_file(safetensors), STATE)
    with safe_open(safetensors, "pt") as file:
        told = [json.loads(each) for each in file.metadata().values()]
    assert told == [json.loads(text.read_text(encoding="utf-8"))] == [{**record, "digest": digest_of(STATE)}]


def test_tensors_that_do_not_lie_in_order_are_written_in_order(tmp_path: Path) -> None:
    image = torch.arange(120.0).reshape(2, 3, 4, 5)
    state = {
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "repeated": torch.ones(1).expand(3, 2),
        "channels last": image.to(memory_format=torch.channels_last),
        "trained": torch.ones(3, requires_grad=True),
    }
    pth, safetensors, _ = artifacts.write_files(state, {"name": "x"}, tmp_path)
    assert same(torch.load(pth, weights_only=True), state)
    assert same(load_file(safetensors), state)


def test_the_same_weights_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, torch; from paddle2torch.converter.writing import artifacts; "
        "state = {f'{i}.weight': torch.full((i, 3), i) for i in range(50)}; "
        "artifacts.write_files(state, {'name': 'x', 'b': 1, 'a': 2}, pathlib.Path(sys.argv[1]))"
    )
    for seed in "123":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], env=environment, check=True)
    for name in ("x.pth", "x.safetensors", "x.json"):
        assert len({(tmp_path / seed / name).read_bytes() for seed in "123"}) == 1


def test_the_digest_of_verification_is_that_of_the_file(tmp_path: Path) -> None:
    conversion = convert(load_source("embedded_rec", load_zoo(), Fetcher(offline=True)))
    content = artifacts.safetensors_bytes(conversion.state, artifacts.metadata(conversion))
    path = artifacts.write(conversion, tmp_path)[1]
    assert hashlib.sha256(content).digest() == hashlib.sha256(path.read_bytes()).digest()


# ---- what goes wrong ---------------------------------------------------------------------------------------------

SAVE: tuple[Callable[[dict[str, torch.Tensor], Path], None], ...] = (
    artifacts._save_pth,
    lambda state, path: artifacts._save_safetensors(state, {}, path),
)


@pytest.mark.parametrize("save", SAVE, ids=["pth", "safetensors"])
@pytest.mark.parametrize("room", [0, 100, 5_000, 100_000])
def test_the_systems_errors_are_told_as_they_are(
    save: Callable[[dict[str, torch.Tensor], Path], None], room: int, tmp_path: Path
) -> None:
    state = {"weight": torch.zeros(50_000), "bias": torch.zeros(10)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save(state, tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("save", SAVE, ids=["pth", "safetensors"])
def test_other_errors_are_not_taken_for_the_systems(
    save: Callable[[dict[str, torch.Tensor], Path], None], tmp_path: Path
) -> None:
    class Odd(dict):
        def items(self) -> Any:
            raise RuntimeError("odd")

        __iter__ = items  # type: ignore[assignment]
        keys = items

    with pytest.raises(RuntimeError, match="odd"):
        save(Odd(), tmp_path / "x")


@pytest.mark.parametrize("place", range(6))
def test_an_interrupt_while_the_weights_are_written_leaves_nothing(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's writer calls Python code, and raises an error of its own in place of the interrupt."""
    writes, open_file = [], Path.open

    def opened(path: Path, *arguments: Any, **more: Any) -> Any:
        stream = open_file(path, *arguments, **more)
        return Interrupted(stream) if path.suffix == ".pth" and arguments == ("wb",) else stream

    class Interrupted:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def write(self, data: Any) -> int:
            writes.append(data)
            if len(writes) == place + 1:
                signal.raise_signal(signal.SIGINT)
            return self._stream.write(data)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(KeyboardInterrupt), remembered():
        artifacts.write_files({"weight": torch.zeros(1000), "bias": torch.zeros(10)}, {"name": "x"}, tmp_path / "new")
    assert len(writes) > place
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    (tmp_path / "x.json").write_bytes(b"an earlier result")
    with pytest.raises(OutputError, match=r"x\.safetensors: cannot be written"):
        artifacts.write_files({"weight": torch.zeros(3)}, {"name": "x"}, tmp_path)
    assert (tmp_path / "x.json").read_bytes() == b"an earlier result"
