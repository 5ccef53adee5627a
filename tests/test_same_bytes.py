"""The tensors of a conversion stay the same to the bit, whatever becomes of the code that converts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from paddle2torch.converter.conversion.choice import Choice
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher

# (model, kind, branch) → sha256 over its state dict, recorded in November 2026 with the code as it was before the modules
# were put in rooms. Names, data types, shapes and values all count; see `digest`.
RECORDED = {
    ("embedded_rec", "inference", ""): "d1d39bd2fc2ec7ff05d3996b18ba66c131c5692c9c1fd4ee8102bd5029e7f753",
    ("embedded_rec", "trained", ""): "d1d39bd2fc2ec7ff05d3996b18ba66c131c5692c9c1fd4ee8102bd5029e7f753",
    ("ch_PP-OCRv3_rec", "trained", "Student"): "dc7705d30a44bee5abb22c7c1afe6a05936728f0f5f7971858bbeb57a74834e1",
    ("ch_ppocr_mobile_v2.0_cls", "inference", ""): "a604716426727f171885d0bf02b47ea65b2c73b99778049fe1f2e698c5768299",
    ("ch_PP-OCRv2_det", "trained", "teacher_model"): "6f36817ba0d5da10eb748f893f7a32ac57f4a73441bab070d2b0dccc91e09b49",
    ("french_mobile_v2.0_rec", "inference", ""): "43bf30768a7c4aed82c715bf5e4dc0e16c1f548710f5a6674a51ca64aaaf0ccf",
}


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """One hash of all tensors, in the module's order."""
    parts = []
    for key, tensor in state.items():
        about = str((tensor.dtype, tuple(tensor.shape))).encode()
        parts.append(key + hashlib.sha256(about + tensor.contiguous().numpy().tobytes()).hexdigest())
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def state_of(name: str, kind: str, branch: str, fetcher: Fetcher) -> Mapping[str, torch.Tensor]:
    choice = Choice(kind=kind, branch=branch or None)
    return choice.convert(choice.load(name, load_zoo(), fetcher)).state


@pytest.mark.parametrize("model", [model for model in RECORDED if model[0] == "embedded_rec"], ids=":".join)
def test_the_embedded_models_tensors_are_as_ever(model: tuple[str, str, str], tmp_path: Path) -> None:
    assert digest(state_of(*model, Fetcher(cache_dir=tmp_path, offline=True))) == RECORDED[model]


@pytest.mark.parametrize("model", [model for model in RECORDED if model[0] != "embedded_rec"], ids=":".join)
def test_tensors_of_the_mirror_are_as_ever(model: tuple[str, str, str], mirror: Path, tmp_path: Path) -> None:
    assert digest(state_of(*model, Fetcher(cache_dir=tmp_path, mirror=mirror))) == RECORDED[model]


def test_every_bit_counts(tmp_path: Path) -> None:
    model = next(iter(RECORDED))
    state = dict(state_of(*model, Fetcher(cache_dir=tmp_path, offline=True)))
    key = next(iter(state))
    state[key] = state[key].clone()
    state[key].view(torch.int32).view(-1)[0] ^= 1
    assert digest(state) != RECORDED[model]
