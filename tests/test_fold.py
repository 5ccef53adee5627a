"""Conversions in a folded layout: what is folded, from what, that it computes the same, and that Paddle agrees."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from paddle2torch.architectures import folding as folds
from paddle2torch.architectures import load_model
from paddle2torch.architectures.families import pplcnet_v3
from paddle2torch.architectures.matching import expected_tensors
from paddle2torch.architectures.registry import get
from paddle2torch.cli import main
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.conversion.fold import TOLERANCE, Folded, fold, fold_weights
from paddle2torch.converter.mapping.rules import to_paddle
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import random_tensors, write_checkpoint
from support.networks import drawn

DETECTOR = "det_pplcnet_v3_rsefpn"
# Their activation is left out, but not its tensors.
HALVING = [f"backbone.blocks{stage}.0.dw_conv" for stage in range(3, 7)]
PLAIN = "rec_mobilenet_v3_bilstm_ctc"


def converted(path: Path) -> Conversion:
    return convert(load_source(str(path), load_zoo(), Fetcher()))


@pytest.fixture(scope="module")
def conversion(tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    """Of a detector's checkpoint, with branches."""
    tensors = to_paddle(drawn(DETECTOR, {}).state_dict(), get(DETECTOR), {})
    return converted(write_checkpoint(tmp_path_factory.mktemp("fold") / "mine.pdparams", tensors))


@pytest.fixture(scope="module")
def folded(conversion: Conversion) -> Folded:
    return fold(conversion)


def test_the_folded_network_has_its_own_layout(conversion: Conversion, folded: Folded) -> None:
    result = folded.conversion
    assert result.network.parameters == {**conversion.network.parameters, "folded": True, "folded_head": True}
    expected = expected_tensors(get(DETECTOR), result.network.parameters)
    assert {key: tuple(tensor.shape) for key, tensor in result.state.items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }
    assert len(result.state) < len(conversion.state) / 3
    assert 0 < folded.error < TOLERANCE
    assert folded.note.startswith(f"folded {folded.layers} layers; in double precision")


def test_both_layouts_answer_alike(conversion: Conversion, folded: Folded) -> None:
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        branches, one = (each.build()(x) for each in (conversion, folded.conversion))
    assert float((branches - one).abs().max()) < 1e-4 * float(branches.abs().max())


def test_every_tensor_of_the_checkpoint_is_an_origin(conversion: Conversion, folded: Folded) -> None:
    mapped = folded.conversion.mapped
    unused = conversion.mapped.used - mapped.used
    assert (
        unused
        == mapped.ignored.keys()
        == {f"{layer}.act.lab.{leaf}" for layer in HALVING for leaf in ("scale", "bias")}
    )
    assert not mapped.folded.keys() & mapped.origins.keys()
    assert {*mapped.folded, *mapped.origins} == {key for key in mapped.state if not key.endswith("num_batches_tracked")}
    layer = "backbone.blocks2.0.dw_conv"
    names = mapped.folded[f"{layer}.reparam_conv.weight"]
    assert all(name.startswith(f"{layer}.") and not name.startswith(f"{layer}.lab") for name in names)
    # Four full branches and a small one, each a convolution and a norm of four tensors; and the norm of the input.
    assert len(names) == 5 * 5 + 4
    assert mapped.origins[f"{layer}.lab.scale"] == f"{layer}.lab.scale"


def test_a_layout_keeps_what_it_has(conversion: Conversion) -> None:
    layout = expected_tensors(get(DETECTOR), {**conversion.network.parameters, "folded": True})
    result = fold(conversion, layout).conversion
    assert result.state.keys() == layout.keys()
    assert not result.network.parameters["folded_head"]
    assert "head.binarize.conv_bn1.weight" in result.origins
    assert torch.equal(result.state["head.binarize.conv1.weight"], conversion.state["head.binarize.conv1.weight"])


def test_a_layout_that_folding_does_not_lead_to_is_refused(conversion: Conversion) -> None:
    layout = dict(expected_tensors(get(DETECTOR), {**conversion.network.parameters, "folded": True}))
    del layout["backbone.blocks3.0.dw_conv.lab.scale"], layout["head.binarize.conv_bn1.weight"]
    with pytest.raises(MappingError, match="cannot be folded to that layout, because of"):
        fold_weights(conversion.build(), get(DETECTOR), conversion.network.parameters, layout)


def test_a_wrong_fold_is_refused_where_it_happens(conversion: Conversion, monkeypatch: pytest.MonkeyPatch) -> None:
    right = pplcnet_v3.pad_kernel

    def shifted(weight: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        padded = right(weight, size)
        return padded.roll(1, dims=3) if padded.shape != weight.shape else padded

    monkeypatch.setattr(pplcnet_v3, "pad_kernel", shifted)
    with pytest.raises(MappingError, match=r"than with its branches, from backbone\.blocks2\.0\.dw_conv\.lab on"):
        fold(conversion)


def test_layers_that_only_training_runs_are_compared_too(
    conversion: Conversion, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = folds.fold

    def wrong(model: torch.nn.Module, layout: Container[str] | None = None) -> folds.Replaced:
        replaced = right(model, layout)
        model.get_submodule("head.thresh.conv2").bias.data.add_(1e-3)
        return replaced

    monkeypatch.setattr(folds, "fold", wrong)
    with pytest.raises(MappingError, match=r"than with its branches, from head\.thresh\.relu2 on"):
        fold(conversion)


def test_a_network_without_branches_stays_as_it_is(tmp_path: Path) -> None:
    plain = converted(write_checkpoint(tmp_path / "plain.pdparams", random_tensors(PLAIN, classes=11)))
    result = fold(plain)
    assert result.conversion is plain
    assert result.note == "no layer of this network can be folded; it is as it was"


def test_the_command_writes_a_file_that_loads_and_goes_back(conversion: Conversion, tmp_path: Path) -> None:
    source = conversion.source.path
    done = CliRunner().invoke(main, ["convert", str(source), "--fold", "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "folded 32 layers; in double precision" in done.output
    metadata = json.loads((tmp_path / "mine.json").read_text())
    assert metadata["parameters"]["folded"] is True
    assert len(metadata["folded"]["backbone.blocks2.0.dw_conv.reparam_conv.bias"]) == 29
    for suffix in ("pth", "safetensors"):
        model = load_model(tmp_path / f"mine.{suffix}")
        assert model.state_dict().keys() == fold(conversion).conversion.state.keys()
    back = CliRunner().invoke(
        main, ["convert", str(tmp_path / "mine.pth"), "--to", "paddle", "--output", str(tmp_path)]
    )
    assert back.exit_code == 0, back.output
    again = converted(tmp_path / "mine.pdparams")
    assert again.network.parameters["folded"] is True
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in again.state.items())


def test_there_is_nothing_to_fold_on_the_way_back(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["convert", "x.pth", "--to", "paddle", "--fold"])
    assert done.exit_code == 2
    assert "--fold goes with --to torch" in done.output
