"""Files are exchanged with converted weights in circulation, both ways, by name and shape (tests/circulating/).

The lists are facts about other people's files: the key and shape of every tensor, in the file's order. So other people's
networks, such as those of RapidOCR's PyTorch engine, load our files strictly if and only if these lists do.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paddle2torch.architectures import load_model
from paddle2torch.architectures.matching import COUNTER
from paddle2torch.architectures.registry import get
from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from support.checkpoints import random_tensors, write_checkpoint
from test_architectures import CIRCULATING, circulating

SMALLEST = "cls_mobile_v2.0"


class Client(nn.Module):
    """Somebody's network, as far as `load_state_dict` sees it: nothing but names and shapes."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        for key, shape in shapes.items():
            *path, leaf = key.split(".")
            owner: nn.Module = self
            for name in path:
                if name not in owner._modules:
                    owner.add_module(name, nn.Module())
                owner = owner.get_submodule(name)
            owner.register_buffer(leaf, torch.zeros(shape, dtype=torch.long if leaf == COUNTER else torch.float))


def foreign(family: str) -> dict[str, Tensor]:
    """A file's content as others have it, with values that tell tensors apart."""
    torch.manual_seed(0)
    return {
        key: torch.tensor(7) if key.endswith(COUNTER) else torch.rand(shape) + 0.5
        for key, shape in circulating(family).items()
    }


def test_every_list_is_checked() -> None:
    folder = Path(__file__).parent / "circulating"
    assert sorted(CIRCULATING) == sorted(path.stem for path in folder.glob("*.json"))


@pytest.mark.parametrize(("family", "architecture"), CIRCULATING.items())
def test_our_file_loads_strictly_into_what_others_have(family: str, architecture: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best_accuracy.pdparams", random_tensors(architecture))
    conversion = convert(load_source(str(checkpoint), load_zoo(), Fetcher(offline=True)))
    path, *_ = artifacts.write(conversion, tmp_path)
    client = Client(circulating(family))
    client.load_state_dict(torch.load(path, weights_only=True), strict=True)
    assert all(torch.equal(value, conversion.state[key]) for key, value in client.state_dict().items())


@pytest.mark.parametrize(("family", "architecture"), CIRCULATING.items())
def test_their_file_loads_into_our_module(family: str, architecture: str, tmp_path: Path) -> None:
    theirs = foreign(family)
    torch.save(theirs, tmp_path / "theirs.pth")
    model = load_model(tmp_path / "theirs.pth")
    state = model.state_dict()
    assert list(state) == list(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in state.items())
    assert not model.training
    height = get(architecture).preprocessing.size.height or 64
    with torch.no_grad():
        assert len(model(torch.zeros(2, 3, height, 64))) == 2


@pytest.mark.parametrize("family", CIRCULATING)
def test_their_file_may_lack_the_counters(family: str, tmp_path: Path) -> None:
    """Files written from Paddle's tensors alone have none."""
    theirs = {key: value for key, value in foreign(family).items() if not key.endswith(COUNTER)}
    torch.save(theirs, tmp_path / "theirs.pth")
    state = load_model(tmp_path / "theirs.pth").state_dict()
    assert all(torch.equal(state[key], value) for key, value in theirs.items())
    assert {int(value) for key, value in state.items() if key not in theirs} <= {0}


def test_their_file_may_be_a_training_checkpoint(tmp_path: Path) -> None:
    theirs = foreign(SMALLEST)
    torch.save({"state_dict": theirs, "epoch": 3}, tmp_path / "theirs.pth")
    state = load_model(tmp_path / "theirs.pth").state_dict()
    assert all(torch.equal(state[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("change", ["a key more", "a key less", "another shape"])
def test_client_would_notice_a_difference(change: str) -> None:
    """The check above is strict."""
    state = foreign(SMALLEST)
    if change == "a key more":
        state["head.extra"] = torch.zeros(1)
    elif change == "a key less":
        del state["head.fc.bias"]
    else:
        state["head.fc.bias"] = torch.zeros(3)
    with pytest.raises(RuntimeError, match=r"head\.(extra|fc\.bias)"):
        Client(circulating(SMALLEST)).load_state_dict(state, strict=True)


def test_the_check_with_rapidocr_says_what_to_install() -> None:
    code = "import runpy, sys; sys.modules['rapidocr'] = None; runpy.run_module('scripts.checks.rapidocr')"
    repository = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"this check needs RapidOCR \(.*\): pip install \. rapidocr\n", result.stderr)
