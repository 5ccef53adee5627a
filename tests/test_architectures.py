"""The networks: keys and shapes, inputs they take, what they return, and that the usual tools work on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from paddle2torch.architectures import create_model, list_models, load_model, matching
from paddle2torch.architectures.matching import exact_fits, expected_tensors, rank
from paddle2torch.architectures.registry import architectures, get
from support.golden import outputs_of
from support.networks import in_training, shapes

CIRCULATING = {
    "cls_mobile_v2.0": "cls_mobilenet_v3",
    "det_PP-OCRv3": "det_mobilenet_v3_rsefpn",
    "det_mobile_v2.0": "det_mobilenet_v3_dbfpn",
    "det_server_v2.0": "det_resnet18_vd_dbfpn",
    "rec_PP-OCRv2": "rec_mobilenet_v1_enhance_bilstm_ctc",
    "rec_PP-OCRv3": "rec_mobilenet_v1_enhance_svtr_ctc",
    "rec_mobile_v2.0": "rec_mobilenet_v3_bilstm_ctc",
    "rec_server_v2.0": "rec_resnet34_vd_bilstm_ctc",
}
# Alike in every tensor; what tells them apart is the strides.
ALIKE = ["cls_pp_lcnet_page", "cls_pp_lcnet_textline"]
HEIGHTS = {entry.name: entry.preprocessing.size.height or 64 for entry in architectures()}


def circulating(family: str) -> dict[str, tuple[int, ...]]:
    path = Path(__file__).parent / "circulating" / f"{family}.json"
    return {key: tuple(shape) for key, shape in json.loads(path.read_text())}


def small(name: str) -> torch.nn.Module:
    """A network with few classes, always initialised alike."""
    torch.manual_seed(0)
    parameters = {"classes": 11} if get(name).task == "rec" else {}
    return create_model(name, **parameters).eval()


@pytest.mark.parametrize(("family", "name"), CIRCULATING.items())
def test_keys_and_shapes_are_those_of_weights_in_circulation(family: str, name: str) -> None:
    ours = {key: wanted.shape for key, wanted in expected_tensors(get(name), {}).items()}
    theirs = circulating(family)
    assert ours == theirs
    assert list(ours) == list(theirs), "the order differs"


@pytest.mark.parametrize(("family", "name"), CIRCULATING.items())
def test_architecture_is_recognised_from_names_and_shapes(family: str, name: str) -> None:
    best, second, *_ = rank(architectures(), lambda _: circulating(family))
    assert (best.architecture.name, best.match.exact) == (name, True)
    assert not second.match.exact
    assert exact_fits(architectures(), lambda _: circulating(family)) == [best]


@pytest.mark.parametrize("name", list_models())
def test_recognition_makes_few_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have the tensors which tell this one's parameters."""
    compared, compare = [], matching.fit
    monkeypatch.setattr(matching, "fit", lambda *given: compared.append(given) or compare(*given))
    shapes = {key: wanted.shape for key, wanted in expected_tensors(get(name), {}).items()}
    found = [fit.architecture.name for fit in exact_fits(architectures(), lambda _: shapes)]
    assert found == (ALIKE if name in ALIKE else [name])
    assert len(compared) <= len(list_models()) / 4


@pytest.mark.parametrize(("name", "width", "steps"), [
    ("rec_mobilenet_v3_bilstm_ctc", 320, 80),
    ("rec_mobilenet_v3_bilstm_ctc", 213, 53),
    ("rec_resnet34_vd_bilstm_ctc", 213, 53),
    ("rec_mobilenet_v1_enhance_bilstm_ctc", 320, 80),
    ("rec_mobilenet_v1_enhance_bilstm_ctc", 213, 53),
    ("rec_mobilenet_v1_enhance_svtr_ctc", 320, 40),
    ("rec_mobilenet_v1_enhance_svtr_ctc", 213, 27),
])  # fmt: skip
def test_recogniser_returns_probabilities_per_time_step(name: str, width: int, steps: int) -> None:
    with torch.no_grad():
        output = small(name)(torch.randn(2, 3, HEIGHTS[name], width))
    assert output.shape == (2, steps, 11)
    torch.testing.assert_close(output.sum(2), torch.ones(2, steps))


# The maps that a detector returns where that is not one: in evaluation, in training.
MAPS = {
    "det_pphgnet_small_lkpan": (2, 1),
    "det_pplcnet_v4_replkfpn": (1, 4),
    "det_pplcnet_v4_replkpan": (1, 4),
}
# Its shrink map is refined in evaluation, and the binary map is made of the one before; see test_family_pphgnet.py.
REFINED = {"det_pphgnet_small_lkpan", "det_pphgnet_v2_lkpan"}


@pytest.mark.parametrize("name", list_models("det"))
def test_detector_returns_the_shrink_map_and_in_training_all_three(name: str) -> None:
    model, x = small(name), torch.randn(2, 3, 64, 96)
    shrink = outputs_of(model, x)
    with in_training(model):
        maps = outputs_of(model, x)
    assert (len(shrink), len(maps)) == MAPS.get(name, (1, 1))
    assert {each.shape for each in shrink} == {(2, 1, 64, 96)}
    assert {each.shape for each in maps} == {(2, 3, 64, 96)}
    if name not in REFINED:
        torch.testing.assert_close(maps[0][:, :1], shrink[0])
        for each in maps:
            torch.testing.assert_close(each[:, 2:], torch.sigmoid(50 * (each[:, :1] - each[:, 1:2])))


@pytest.mark.parametrize("name", list_models("det"))
def test_a_detectors_head_alone_in_training_returns_all_three_maps(name: str) -> None:
    """As where backbone and neck are frozen; then there are no auxiliary maps."""
    model = small(name)
    model.head.train()
    maps = outputs_of(model, torch.randn(2, 3, 64, 96))
    assert [each.shape for each in maps] == [(2, 3, 64, 96)]


@pytest.mark.parametrize("name", list_models("det"))
def test_gradients_of_a_detector_reach_every_parameter_that_is_trained(name: str) -> None:
    model = create_model(name)
    output = model(torch.randn(2, 3, 64, 96))
    torch.cat(output if isinstance(output, tuple) else (output,)).square().sum().backward()
    assert [key for key, each in model.named_parameters() if each.requires_grad and each.grad is None] == []


@pytest.mark.parametrize("name", list_models("cls"))
def test_classifier_returns_probabilities(name: str) -> None:
    with torch.no_grad():
        output = small(name)(torch.randn(3, 3, HEIGHTS[name], 192))
    assert output.shape == (3, get(name).parameters["classes"].default)
    torch.testing.assert_close(output.sum(1), torch.ones(3))


@pytest.mark.parametrize("name", [*list_models("rec"), *list_models("cls")])
def test_training_mode_gives_logits_and_gradients_reach_every_parameter(name: str) -> None:
    model, x = small(name), torch.randn(2, 3, HEIGHTS[name], 96)
    with torch.no_grad():
        probabilities = model(x)
        with in_training(model.head):
            logits = model(x)
    torch.testing.assert_close(torch.softmax(logits, -1), probabilities)
    model.train()(x).square().sum().backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("name", list_models())
def test_batch_of_two_equals_two_batches_of_one(name: str) -> None:
    model, x = small(name), torch.randn(2, 3, HEIGHTS[name], 96)
    both, first, second = outputs_of(model, x), outputs_of(model, x[:1]), outputs_of(model, x[1:])
    torch.testing.assert_close(both, tuple(map(torch.cat, zip(first, second, strict=True))))


@pytest.mark.parametrize("name", list_models())
def test_a_folded_network_computes_the_same_and_is_recognised(name: str) -> None:
    model, x = small(name).double(), torch.randn(1, 3, HEIGHTS[name], 96).double()
    for statistics in (buffer for buffer in model.buffers() if buffer.is_floating_point()):
        statistics.uniform_(0.5, 1.5)
    expected = outputs_of(model, x)
    assert model.fold() is model
    torch.testing.assert_close(outputs_of(model, x), expected, rtol=1e-10, atol=1e-12)
    assert name in [fit.architecture.name for fit in exact_fits(architectures(), lambda _: shapes(model))]


@pytest.mark.parametrize("name", list_models())
def test_jit_trace_gives_the_same_at_another_size(name: str) -> None:
    model, height = small(name), HEIGHTS[name]
    example, other = torch.randn(1, 3, height, 96), torch.randn(2, 3, height, 160)
    with torch.no_grad():
        traced = torch.jit.trace(model, example)
        torch.testing.assert_close(traced(other), model(other))


def test_wrong_sizes_are_refused_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match="multiples of 32, not 64 × 100"):
        small("det_mobilenet_v3_dbfpn")(torch.zeros(1, 3, 64, 100))
    with pytest.raises(ValueError, match="left 2 rows where the recogniser needs 1: give images 32 pixels high"):
        small("rec_mobilenet_v3_bilstm_ctc")(torch.zeros(1, 3, 64, 100))


def test_unknown_names_and_parameters_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no architecture 'det_v9'; there are: cls_mobilenet_v3"):
        create_model("det_v9")
    with pytest.raises(ValueError, match="has no parameter depth; it has: scale, .*classes"):
        create_model("cls_mobilenet_v3", depth=3)


# ---- load_model --------------------------------------------------------------------------------------------------


def test_load_model_takes_foreign_files_without_metadata(tmp_path: Path) -> None:
    state = small("rec_mobilenet_v3_bilstm_ctc").state_dict()
    torch.save(state, tmp_path / "theirs.pth")
    without_counters = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    save_file(without_counters, tmp_path / "theirs.safetensors")
    for file in ("theirs.pth", "theirs.safetensors"):
        model = load_model(tmp_path / file)
        assert not model.training
        assert model.metadata == {}
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_load_model_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: there is no such file"):
        load_model(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pth: not a file that torch\.load"):
        load_model(tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.safetensors: not a safetensors file"):
        load_model(tmp_path / "text.safetensors")
    torch.save({"epoch": 3}, tmp_path / "progress.pth")
    with pytest.raises(ValueError, match="not a state dict"):
        load_model(tmp_path / "progress.pth")
    state = small("cls_mobilenet_v3").state_dict()
    del state["head.fc.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"nearest is cls_mobilenet_v3 \(1 missing\)"):
        load_model(tmp_path / "short.pth")


def test_load_model_executes_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"backbone": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not a file that torch.load"):
        load_model(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()
