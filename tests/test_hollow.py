"""Networks without numbers: the names, shapes and types of the real ones, and nothing behind them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from architectures import create_model, list_models
from architectures.hollow import Hollow, create_hollow, hollow_model


@pytest.mark.parametrize("name", list_models())
def test_a_hollow_network_has_the_tensors_of_the_real_one_and_no_memory(name: str) -> None:
    hollow, real = create_hollow(name, {}), create_model(name)
    found, wanted = hollow.state_dict(), real.state_dict()
    assert list(found) == list(wanted)
    assert all(found[key].shape == wanted[key].shape and found[key].dtype == wanted[key].dtype for key in wanted)
    assert {key for key, _ in hollow.named_parameters()} == {key for key, _ in real.named_parameters()}
    assert all(tensor.untyped_storage().nbytes() <= 8 for tensor in (*hollow.parameters(), *hollow.buffers()))
    made = create_hollow(name, {}).to_empty(device="cpu").state_dict()
    assert all(made[key].stride() == wanted[key].stride() for key in wanted)
    hollow.load_state_dict(wanted, strict=True, assign=True)
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in hollow.state_dict().items())


@pytest.mark.parametrize("build", [
    lambda: nn.Conv2d(3, 4, 3), lambda: nn.ConvTranspose2d(3, 4, 2), lambda: nn.Linear(3, 4), lambda: nn.BatchNorm2d(3),
    lambda: nn.LayerNorm(3), lambda: nn.LSTM(3, 4, 2, bidirectional=True), lambda: nn.PReLU(3), lambda: nn.Embedding(3, 4),
])  # fmt: skip
def test_layers_are_made_without_drawing_a_number(build: object) -> None:
    state = torch.get_rng_state()
    with Hollow():
        layer = build()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(tensor.untyped_storage().nbytes() <= 8 for tensor in (*layer.parameters(), *layer.buffers()))
    assert not any(bool(tensor.any()) for tensor in layer.parameters())


def test_later_networks_have_their_numbers() -> None:
    with Hollow():
        pass
    assert bool(nn.Linear(3, 4).weight.any())


def test_those_who_ask_share_one_network_in_evaluation_mode() -> None:
    first = hollow_model("rec_mobilenet_v3_bilstm_ctc", {"classes": 7, "hidden_size": 8})
    assert first is hollow_model("rec_mobilenet_v3_bilstm_ctc", {"hidden_size": 8, "classes": 7})
    assert first is not hollow_model("rec_mobilenet_v3_bilstm_ctc", {"classes": 8, "hidden_size": 8})
    assert not first.training
