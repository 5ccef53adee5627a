"""Other people's conversions, where they differ from ours by rule."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paddle2torch.architectures import load_model
from paddle2torch.architectures.circulating import own_shapes, own_tensors
from paddle2torch.architectures.registry import get
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.mapping.rules import to_paddle
from paddle2torch.converter.parity.verify import load_weights
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import write_checkpoint
from support.networks import drawn

RECOGNISER = "rec_pplcnet_v3_svtr_ctc"
KERNEL = "head.ctc_encoder.encoder.conv4.conv.weight"


def tall(kernel: Tensor) -> Tensor:
    """With further rows, which a map of height 1 never meets."""
    above, below = torch.randn_like(kernel), torch.randn_like(kernel)
    return torch.cat([above, kernel, below], 2)


@pytest.fixture(scope="module")
def recogniser() -> torch.nn.Module:
    return drawn(RECOGNISER, {"classes": 11, "folded": True})


def test_of_a_square_kernel_the_middle_row_is_taken(recogniser: torch.nn.Module, tmp_path: Path) -> None:
    state = dict(recogniser.state_dict())
    state[KERNEL] = tall(state[KERNEL])
    torch.save(state, tmp_path / "circulating.pth")
    model = load_model(tmp_path / "circulating.pth")
    assert torch.equal(model.state_dict()[KERNEL], recogniser.state_dict()[KERNEL])
    # What PyTorch computes with the square kernel, padded by a row above and below, is the same.
    x = torch.randn(1, 960, 1, 20)
    square = torch.nn.functional.conv2d(x, state[KERNEL], padding=1)
    assert torch.allclose(square, model.get_submodule(KERNEL.removesuffix(".weight"))(x), atol=1e-5)


@pytest.mark.parametrize("shape", [(60, 960, 2, 3), (60, 960, 5, 3), (60, 960, 2, 2), (60, 960)])
def test_a_kernel_of_another_form_is_not_touched(shape: tuple[int, ...]) -> None:
    entry = get(RECOGNISER)
    assert own_shapes({KERNEL: shape}, entry) == {KERNEL: shape}
    tensor = torch.zeros(shape)
    assert own_tensors({KERNEL: tensor}, entry)[KERNEL] is tensor


def test_other_kernels_stay_square() -> None:
    entry, name = get(RECOGNISER), "backbone.conv1.conv.weight"
    assert own_shapes({name: (16, 3, 3, 3)}, entry) == {name: (16, 3, 3, 3)}


def test_leftovers_of_a_classifier_are_left_out(tmp_path: Path) -> None:
    model = drawn("det_pphgnet_v2_lkpan", {})
    torch.save({**model.state_dict(), "backbone.last_conv.weight": torch.zeros(2, 2, 1, 1)}, tmp_path / "server.pth")
    assert load_model(tmp_path / "server.pth").state_dict().keys() == model.state_dict().keys()


def test_what_training_alone_uses_may_lack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = drawn("det_pplcnet_v4_replkfpn", {"width": 32, "out_channels": 64, "kernel_size": 5})
    state = {key: tensor for key, tensor in given.state_dict().items() if not key.startswith("head.aux_")}
    torch.save(state, tmp_path / "tiny.pth")
    with caplog.at_level(logging.WARNING):
        first, second = (load_model(tmp_path / "tiny.pth").state_dict() for _ in range(2))
    assert "lacks 78 tensors that training alone uses; they come from a fixed seed" in caplog.text
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    assert all(torch.equal(first[key], tensor) for key, tensor in state.items())
    del state["head.binarize.conv3.bias"]
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match=r"1 missing\): head\.binarize\.conv3\.bias"):
        load_model(tmp_path / "broken.pth")


def test_verification_takes_them_too(recogniser: torch.nn.Module, tmp_path: Path) -> None:
    state = dict(recogniser.state_dict())
    parameters = {"classes": 11, "folded": True}
    path = write_checkpoint(tmp_path / "mine.pdparams", to_paddle(state, get(RECOGNISER), parameters))
    conversion = convert(load_source(str(path), load_zoo(), Fetcher()))
    torch.save({**state, KERNEL: tall(state[KERNEL])}, tmp_path / "circulating.pth")
    model = load_weights(conversion, tmp_path / "circulating.pth")
    assert all(torch.equal(tensor, conversion.state[key]) for key, tensor in model.state_dict().items())
