"""Weights into streams: byte for byte what the libraries write, without copies, and errors as they are."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import torch as safetensors

from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.writing.streaming import ELEMENTS, save_pth, save_safetensors
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher

# Names and texts that JSON writes in more than one way.
ODD = 'é/"\\ 日本\n\t\x01\x7f\u2028<>&'
SHAPES = {"b": (3,), "a": (), "é": (0, 4), "B": (2, 3, 4), "x.1": (1,), "x.10": (5,), ODD: (2,)}
STATE = {
    f"{name}{kind}": (torch.arange(24).reshape(2, 3, 4).flatten()[: torch.Size(shape).numel()] % 2)
    .reshape(shape)
    .to(getattr(torch, kind))
    for name, shape in SHAPES.items()
    for kind in ("bool", "float16", "int64", *ELEMENTS)
}


def written(save: Callable[..., None], *arguments: object) -> bytes:
    stream = io.BytesIO()
    save(*arguments, stream.write)
    return stream.getvalue()


@pytest.mark.parametrize("metadata", [{}, {"paddle2torch": ODD}, {ODD: "", }], ids=["none", "text", "name"])  # fmt: skip
def test_safetensors_are_those_of_the_library(metadata: dict[str, str]) -> None:
    assert written(save_safetensors, STATE, metadata) == safetensors.save(STATE, metadata or None)
    assert written(save_safetensors, {}, metadata) == safetensors.save({}, metadata or None)


def test_a_single_type_is_ordered_by_name() -> None:
    state = {name: torch.zeros(2) for name in ("b.weight", "a.weight", "a", "é", "Z", "a.10", "a.9")}
    assert written(save_safetensors, state, {}) == safetensors.save(state)


def test_tensors_that_do_not_lie_in_order_are_written_in_order() -> None:
    state = {"t": torch.arange(6.0).reshape(2, 3).T, "e": torch.ones(1).expand(3, 2), "o": torch.zeros(()).expand(1)}
    expected = safetensors.save(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    )
    assert written(save_safetensors, state, {}) == expected


def test_a_type_that_the_format_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^phase is of type complex64; written are int64, "):
        written(save_safetensors, {"phase": torch.zeros(2, dtype=torch.complex64)}, {})


def test_pth_is_that_of_torch() -> None:
    expected = io.BytesIO()
    torch.save(STATE, expected)
    assert written(save_pth, STATE) == expected.getvalue()


@pytest.mark.parametrize("save", [save_pth, lambda state, write: save_safetensors(state, {}, write)])
def test_tensors_are_handed_on_and_not_copied(save: Callable[..., None]) -> None:
    tensor, places = torch.zeros(100_000), []

    def write(data: object) -> None:
        if len(data) == tensor.nbytes:
            places.append(np.frombuffer(data, np.uint8).ctypes.data)

    save({"weight": tensor}, write)
    assert places == [tensor.data_ptr()]


@pytest.mark.parametrize("save", [save_pth, lambda state, write: save_safetensors(state, {}, write)])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", range(4))
def test_the_error_of_a_write_comes_out_and_nothing_is_written_after_it(
    save: Callable[..., None], error: BaseException, place: int
) -> None:
    calls = []

    def write(data: object) -> None:
        calls.append(data)
        if len(calls) > place:
            raise error

    with pytest.raises(type(error)) as caught:
        save({"weight": torch.zeros(1000), "bias": torch.zeros(10)}, write)
    assert caught.value is error
    assert len(calls) == place + 1


def test_what_cannot_be_pickled_is_told_as_ever() -> None:
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        save_pth({"weight": lambda: None}, lambda data: None)


def test_the_digest_of_verification_is_that_of_the_file(tmp_path: Path) -> None:
    conversion = convert(load_source("embedded_rec", load_zoo(), Fetcher(offline=True)))
    digest = hashlib.sha256()
    artifacts.stream_safetensors(conversion.state, artifacts.metadata(conversion), digest.update)
    path = artifacts.write(conversion, tmp_path)[1]
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
