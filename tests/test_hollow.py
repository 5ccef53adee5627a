"""Networks without numbers: the names, shapes and types of the real ones, and nothing behind them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from paddle2torch.architectures import create_model, list_models
from paddle2torch.architectures.hollow import MOST_PARTS, Hollow, _kept_part, create_hollow, hollow_model
from paddle2torch.architectures.registry import get


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


@pytest.mark.parametrize("name", list_models())
def test_a_hollow_network_with_its_tensors_computes_what_the_real_one_does(name: str) -> None:
    """No number that a network needs is outside its state dict, where nothing would fill it."""
    real, hollow = create_model(name).eval(), create_hollow(name, {}).eval()
    hollow.load_state_dict(real.state_dict(), strict=True, assign=True)
    x = torch.randn(1, 3, get(name).preprocessing["size"].get("height", 64), 64)
    with torch.no_grad():
        assert torch.equal(hollow(x), real(x))


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


def test_networks_to_look_at_share_their_parts_in_evaluation_mode() -> None:
    name = "rec_mobilenet_v3_bilstm_ctc"
    first, same, other = (hollow_model(name, {"classes": classes}) for classes in (7, 7, 8))
    assert first.backbone is same.backbone is other.backbone
    assert first.head is same.head
    assert (first.head.fc.out_features, other.head.fc.out_features) == (7, 8)
    assert not any(module.training for module in first.modules())
    assert hollow_model(name, {"scale": 1.0}).backbone is not first.backbone
    assert create_hollow(name, {}).backbone is not create_hollow(name, {}).backbone
    with pytest.raises(ValueError, match="has no parameter depth"):
        hollow_model(name, {"depth": 3})


def test_only_some_parts_are_kept() -> None:
    for classes in range(3, 3 + 2 * MOST_PARTS):
        assert hollow_model("cls_mobilenet_v3", {"classes": classes}).head.fc.out_features == classes
    assert _kept_part.cache_info().currsize == MOST_PARTS
