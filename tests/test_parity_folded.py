"""Checkpoints with branches in released programs without: folded as far as the program is, and compared there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from paddle2torch.cli import main
from paddle2torch.converter.conversion.convert import Conversion, convert
from paddle2torch.converter.conversion.fold import fold
from paddle2torch.converter.parity.inputs import Case, default_cases
from paddle2torch.converter.parity.reference import PaddleWorker
from paddle2torch.converter.parity.report import format_table, to_json
from paddle2torch.converter.parity.verify import load_weights, verify
from paddle2torch.converter.sources import Source, load_source
from paddle2torch.converter.support.errors import MappingError
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher

PADDLEX = "paddlex/official_{}_model/"
# A generation each: the checkpoint, and the inference model whose weights were folded from it.
PAIRS = {
    "PP-OCRv4": ("PP-OCRv4/chinese/ch_PP-OCRv4_rec_train.tar", "PP-OCRv4/chinese/ch_PP-OCRv4_rec_infer.tar"),
    "PP-OCRv5": (
        f"{PADDLEX.format('pretrained')}PP-OCRv5_mobile_det_pretrained.pdparams",
        f"{PADDLEX.format('inference')}paddle3.0.0/PP-OCRv5_mobile_det_infer.tar",
    ),
    "PP-OCRv6": (
        f"{PADDLEX.format('pretrained')}PP-OCRv6_tiny_det_pretrained.pdparams",
        f"{PADDLEX.format('inference')}paddle3.0.0/PP-OCRv6_tiny_det_infer.tar",
    ),
}
DETECTOR = "PP-OCRv5"  # whose released program keeps the norms of its head


def opened(path: Path) -> Source:
    if not path.is_file():
        pytest.skip(f"the mirror has no {path.name}")
    return load_source(str(path), load_zoo(), Fetcher())


def short_cases(conversion: Conversion) -> list[Case]:
    """One batch with something in it."""
    return default_cases(find_task(conversion.network.task), conversion.network.preprocessing)[:1]


@pytest.fixture(scope="module")
def worker() -> PaddleWorker:
    with PaddleWorker() as worker:
        yield worker


@pytest.fixture
def pair(mirror: Path) -> tuple[Conversion, Source]:
    """The detector's checkpoint, converted, and its inference model."""
    checkpoint, inference = PAIRS[DETECTOR]
    return convert(opened(mirror / checkpoint)), opened(mirror / inference)


@pytest.mark.parametrize("generation", PAIRS)
def test_a_checkpoint_passes_in_the_released_program(generation: str, mirror: Path, worker: PaddleWorker) -> None:
    checkpoint, inference = PAIRS[generation]
    conversion, reference = convert(opened(mirror / checkpoint)), opened(mirror / inference)
    result = verify(conversion, reference=reference, cases=short_cases(conversion), worker=worker)
    assert result.passed, format_table(result)
    assert result.folding is not None
    assert result.folding.error < 1e-12
    assert f"{result.folding.layers} layers of training were folded as the program has them" in format_table(result)
    assert to_json(result)["folding"]["layers"] == result.folding.layers
    # And the folded tensors are those that were released with the program, but for single precision's rounding.
    released = convert(reference)
    folded = fold(conversion, released.state).conversion
    for key, name in released.origins.items():
        assert torch.allclose(folded.state[key], released.state[key], rtol=0, atol=1e-6 * float(released.state[key].abs().max())), name  # fmt: skip


def test_a_branch_that_is_not_what_it_was_is_found(
    pair: tuple[Conversion, Source], worker: PaddleWorker, tmp_path: Path
) -> None:
    conversion, reference = pair
    state = dict(conversion.state)
    changed = "backbone.blocks4.1.dw_conv.conv_kxk.2.bn.weight"
    state[changed] = state[changed] * 1.01
    torch.save(state, tmp_path / "changed.pth")
    result = verify(
        conversion, reference=reference, weights=tmp_path / "changed.pth", cases=short_cases(conversion), worker=worker
    )
    assert not result.passed
    assert "first divergence at backbone.blocks4.1.dw_conv.reparam_conv" in result.failures[0]


@pytest.mark.parametrize("layout", ["as it was trained", "as the program is", "folded throughout"])
def test_converted_files_pass_in_every_layout(pair: tuple[Conversion, Source], tmp_path: Path, layout: str) -> None:
    conversion, reference = pair
    compared = fold(conversion, _layout(conversion, reference))
    written = {"as it was trained": conversion, "as the program is": compared.conversion}.get(layout)
    written = written or fold(conversion).conversion
    path = artifacts.write(written, tmp_path)[0]
    model = load_weights(conversion, path, compared)
    expected = compared.conversion.state
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in expected.items())


def test_other_weights_folded_throughout_are_refused(pair: tuple[Conversion, Source], tmp_path: Path) -> None:
    conversion, reference = pair
    state = dict(fold(conversion).conversion.state)
    state["head.binarize.conv1.bias"] = state["head.binarize.conv1.bias"] + 1e-3
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(MappingError, match=r"is not what folding \S+ gives: head\.binarize\.conv1\.bias differ"):
        load_weights(conversion, tmp_path / "other.pth", fold(conversion, _layout(conversion, reference)))


def test_a_checkpoint_goes_back_into_the_released_program(pair: tuple[Conversion, Source], tmp_path: Path) -> None:
    conversion, reference = pair
    weights = artifacts.write(conversion, tmp_path)[0]
    arguments = ["convert", str(weights), "--to", "paddle", "--reference", str(reference.path)]
    done = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "back")])
    assert done.exit_code == 0, done.output
    (parameters,) = (tmp_path / "back").glob("*/inference.pdiparams")
    again = convert(load_source(str(parameters.parent), load_zoo(), Fetcher()))
    folded = fold(conversion, again.state).conversion
    assert all(torch.equal(folded.state[key], again.state[key]) for key in again.origins)


def _layout(conversion: Conversion, reference: Source) -> set[str]:
    """The tensors as the reference has them, and what training alone uses beside."""
    released = convert(reference).state.keys()
    return {*released, *(key for key in conversion.state if key.startswith("head.thresh."))}
