"""The mapping engine: names both ways, transposes by module type, strictness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paddle2torch.architectures import create_model, list_models, matching
from paddle2torch.architectures.matching import Fit
from paddle2torch.architectures.registry import get
from paddle2torch.converter.mapping import recognition
from paddle2torch.converter.mapping.rules import module_name, structured_name, to_paddle, to_torch
from paddle2torch.converter.support.errors import MappingError
from support.checkpoints import random_tensors

NAMES = [
    ("det_mobilenet_v3_dbfpn", "backbone.stage0.0.expand_conv.conv.weight", "backbone.stages.0.0.expand_conv.conv.weight"),
    ("det_mobilenet_v3_rsefpn", "backbone.stage3.3.bn._mean", "backbone.stages.3.3.bn.running_mean"),
    ("det_resnet18_vd_dbfpn", "backbone.bb_1_0.short._conv.weight", "backbone.stages.1.bb_1_0.short._conv.weight"),
    ("rec_resnet34_vd_bilstm_ctc", "backbone.bb_2_5.conv1._conv.weight", "backbone.block_list.bb_2_5.conv1._conv.weight"),
    ("rec_resnet34_vd_bilstm_ctc", "backbone.bb_0_0.conv0._batch_norm._variance", "backbone.block_list.bb_0_0.conv0._batch_norm.running_var"),
    ("rec_mobilenet_v3_bilstm_ctc", "neck.encoder.lstm.0.cell_fw.weight_ih", "neck.encoder.lstm.weight_ih_l0"),
    ("rec_mobilenet_v3_bilstm_ctc", "neck.encoder.lstm.1.cell_bw.bias_hh", "neck.encoder.lstm.bias_hh_l1_reverse"),
    ("rec_mobilenet_v1_enhance_svtr_ctc", "head.ctc_encoder.encoder.norm.weight", "neck.encoder.norm.weight"),
    ("rec_mobilenet_v1_enhance_svtr_ctc", "head.ctc_head.fc.bias", "head.fc.bias"),
]  # fmt: skip


def model_tensors(name: str, **parameters: int) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """A random network's state dict, and the same as Paddle would store it."""
    torch.manual_seed(7)
    model = create_model(name, **parameters)
    for buffer in (b for b in model.buffers() if b.is_floating_point()):
        buffer.uniform_(0.5, 1.5)
    return model.state_dict(), to_paddle(model.state_dict(), get(name), parameters)


@pytest.mark.parametrize(("name", "paddle", "torch_key"), NAMES)
def test_names_map_both_ways(name: str, paddle: str, torch_key: str) -> None:
    renames = get(name).renames
    assert module_name(paddle, renames) == torch_key
    assert structured_name(torch_key, renames) == paddle


def test_a_repeated_placeholder_must_stand_for_the_same_text() -> None:
    renames = get("det_resnet18_vd_dbfpn").renames
    assert structured_name("backbone.stages.1.bb_2_0.x", renames) == "backbone.stages.1.bb_2_0.x"


@pytest.mark.parametrize("name", list_models())
def test_round_trip_is_bit_exact_for_every_tensor(name: str) -> None:
    state, tensors = model_tensors(name)
    mapped = to_torch(tensors, get(name), {})
    assert list(mapped.state) == list(state)
    assert all(torch.equal(mapped.state[key], value) for key, value in state.items())
    assert sorted(mapped.origins.values()) == sorted(tensors)
    assert mapped.initialised == ()


def test_square_linear_weights_are_transposed() -> None:
    """The shape cannot tell, so only the module's type can."""
    name, key = "rec_mobilenet_v1_enhance_svtr_ctc", "neck.encoder.svtr_block.0.mixer.proj.weight"
    state, tensors = model_tensors(name, classes=11)
    stored = tensors["head.ctc_encoder.encoder.svtr_block.0.mixer.proj.weight"]
    assert stored.shape == (120, 120)
    np.testing.assert_array_equal(stored.T, state[key].numpy())
    assert not np.array_equal(stored, state[key].numpy())


def test_lstm_weights_are_not_transposed() -> None:
    state, tensors = model_tensors("rec_mobilenet_v3_bilstm_ctc", classes=11)
    np.testing.assert_array_equal(
        tensors["neck.encoder.lstm.0.cell_fw.weight_hh"], state["neck.encoder.lstm.weight_hh_l0"].numpy()
    )


def test_results_own_their_memory() -> None:
    _, tensors = model_tensors("cls_mobilenet_v3")
    mapped = to_torch(tensors, get("cls_mobilenet_v3"), {})
    before = mapped.state["head.fc.bias"].clone()
    tensors["head.fc.bias"][:] = 99
    assert torch.equal(mapped.state["head.fc.bias"], before)


def test_half_precision_is_widened_exactly_and_told() -> None:
    _, tensors = model_tensors("cls_mobilenet_v3")
    tensors["head.fc.weight"] = tensors["head.fc.weight"].astype(np.float16)
    mapped = to_torch(tensors, get("cls_mobilenet_v3"), {})
    assert mapped.widened == {"head.fc.weight": "float16"}
    np.testing.assert_array_equal(
        mapped.state["head.fc.weight"].numpy().T, tensors["head.fc.weight"].astype(np.float32)
    )


def test_absent_threshold_branch_comes_from_a_fixed_seed() -> None:
    name = "det_mobilenet_v3_dbfpn"
    _, tensors = model_tensors(name)
    inference = {key: value for key, value in tensors.items() if not key.startswith("head.thresh.")}
    torch.manual_seed(1)
    first = to_torch(inference, get(name), {})
    torch.manual_seed(2)
    second = to_torch(inference, get(name), {})
    assert all(key.startswith("head.thresh.") for key in first.initialised)
    assert len(first.initialised) == 15
    assert all(torch.equal(first.state[key], second.state[key]) for key in first.state)
    assert not set(first.initialised) & set(first.origins)
    assert first.state["head.thresh.conv1.weight"].std() > 0.01


def test_seeding_leaves_the_callers_random_state_alone() -> None:
    name = "det_mobilenet_v3_dbfpn"
    _, tensors = model_tensors(name)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    to_torch({key: value for key, value in tensors.items() if "thresh" not in key}, get(name), {})
    assert torch.equal(torch.rand(3), expected)


def test_sar_head_is_ignored_with_its_reason() -> None:
    _, tensors = model_tensors("rec_mobilenet_v1_enhance_svtr_ctc", classes=11)
    tensors["head.sar_head.decoder.prediction.weight"] = np.zeros((3, 4), np.float32)
    mapped = to_torch(tensors, get("rec_mobilenet_v1_enhance_svtr_ctc"), {"classes": 11})
    assert list(mapped.ignored) == ["head.sar_head.decoder.prediction.weight"]
    assert "never run in evaluation" in mapped.ignored["head.sar_head.decoder.prediction.weight"]


def test_lstm_aliases_become_one_when_equal_and_an_error_when_not() -> None:
    name = "rec_mobilenet_v3_bilstm_ctc"
    state, tensors = model_tensors(name, classes=11)
    alias = "neck.encoder.lstm.weight_ih_l0"
    tensors[alias] = tensors["neck.encoder.lstm.0.cell_fw.weight_ih"].copy()
    mapped = to_torch(tensors, get(name), {"classes": 11})
    assert torch.equal(mapped.state[alias], state[alias])
    tensors[alias][0, 0] += 1
    with pytest.raises(MappingError, match=r"two spellings of one parameter that differ: .*cell_fw\.weight_ih ≠ "):
        to_torch(tensors, get(name), {"classes": 11})


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("backbone.blocks.3.mid_se.conv1.bias"), r"1 missing.*\n.*missing: backbone\.blocks\.3\.mid_se\.conv1\.bias"),
    (lambda t: t.update({"backbone.extra": np.zeros(3, np.float32)}), r"1 left over.*\n.*left over: backbone\.extra"),
    (lambda t: t.update({"head.fc.bias": np.zeros(3, np.float32)}), r"head\.fc\.bias \[3\] → head\.fc\.bias \[2\]"),
    (lambda t: t.update({"head.fc.bias": np.zeros(2, np.int64)}), r"not floating-point: head\.fc\.bias \(int64\)"),
])  # fmt: skip
def test_anything_amiss_is_told_by_name(change, message: str) -> None:
    _, tensors = model_tensors("cls_mobilenet_v3")
    change(tensors)
    with pytest.raises(MappingError, match=message):
        to_torch(tensors, get("cls_mobilenet_v3"), {})


def test_to_paddle_refuses_an_incomplete_state() -> None:
    state, _ = model_tensors("cls_mobilenet_v3")
    state.pop("head.fc.bias")
    with pytest.raises(MappingError, match=r"1 missing.*head\.fc\.bias"):
        to_paddle(state, get("cls_mobilenet_v3"), {})


# The same tensors, told apart by strides alone.
ALIKE = ("cls_pp_lcnet_page", "cls_pp_lcnet_textline")


@pytest.mark.parametrize("name", list_models())
def test_few_networks_are_compared_to_identify_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], matching.fit
    monkeypatch.setattr(matching, "fit", lambda *given: compared.append(given) or compare(*given))
    shapes = {key: array.shape for key, array in random_tensors(name).items()}
    if name in ALIKE:
        with pytest.raises(MappingError, match=" and ".join(ALIKE) + " fit alike; say which with --architecture"):
            recognition.identify(shapes, "a file")
    else:
        assert recognition.identify(shapes, "a file").architecture.name == name
    assert len(compared) <= len(list_models()) / 4


def test_what_the_weights_do_not_tell_something_else_may() -> None:
    shapes = {key: array.shape for key, array in random_tensors("cls_pp_lcnet_page", classes=2).items()}
    for name in ALIKE:
        found = recognition.identify(shapes, "a file", tells=lambda fit, name=name: fit.architecture.name == name)
        assert found.architecture.name == name
    with pytest.raises(MappingError, match="fit alike"):
        recognition.identify(shapes, "a file", tells=lambda _: False)


def test_values_that_no_weight_tells_are_tried_the_usual_one_first() -> None:
    name = "det_pphgnet_small_lkpan"
    shapes = {key: array.shape for key, array in random_tensors(name).items()}
    tried: list[bool] = []

    def returns_one(fit: Fit) -> bool:
        tried.append(fit.parameters["both_maps"])
        return not fit.parameters["both_maps"]

    assert "both_maps" not in recognition.identify(shapes, "a file").parameters
    for architecture in (None, get(name)):
        assert recognition.identify(shapes, "a file", architecture, tells=returns_one).parameters["both_maps"] is False
    given = recognition.identify(shapes, "a file", None, {"both_maps": True}, tells=returns_one)
    assert given.parameters["both_maps"] is True
    assert tried == [True, False] * 2
