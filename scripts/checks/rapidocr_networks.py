#!/usr/bin/env python3
"""Do RapidOCR's own PyTorch networks and ours take each other's weights, and compute the same?

    pip install . rapidocr==3.10.0
    python -m scripts.checks.rapidocr_networks [STEM ...]

RapidOCR lists a network for each file that it knows, by its stem. Each is built, with its own random weights; a file of
these loads here by `load_model`, and what we have loaded goes back into RapidOCR's network, strictly. On the same noise
both networks are compared. Exits with 1 if anything differs, or is refused. Needs no model files and no network.

`for_rapidocr` is the piece to take over by who wants to read with converted weights of PP-OCRv4 to v6 there: RapidOCR's
networks have a square kernel where Paddle's has one row, the layers of the backbone's classifier, and no auxiliary
heads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from paddle2torch.architectures import load_model
from paddle2torch.converter.parity.compare import measure

try:
    from omegaconf import OmegaConf
    from rapidocr.inference_engine.pytorch.networks.architectures.base_model import BaseModel
    from rapidocr.inference_engine.pytorch.networks.main import ModelLoader
except ImportError as error:
    sys.exit(f"this check needs RapidOCR ({error}): pip install . rapidocr")

# Single precision; the order of operations differs.
TOLERANCE = 1e-5
# (N, 3, H, W) by what a stem has in it.
SHAPES = {"_rec": (2, 3, 48, 320), "_cls": (2, 3, 48, 192), "_det": (1, 3, 160, 224)}


def for_rapidocr(state: Mapping[str, Tensor], theirs: nn.Module) -> dict[str, Tensor]:
    """Our tensors as one of RapidOCR's networks wants them: its names, and rows of zeros around flat kernels."""
    found = {}
    for name, wanted in theirs.state_dict().items():
        tensor = state.get(name, torch.zeros_like(wanted))  # the classifier's layers, which are never run
        if tensor.ndim == 4 and tensor.shape[2] == 1 and wanted.shape[2] > 1:
            rows = (wanted.shape[2] - 1) // 2
            tensor = nn.functional.pad(tensor, (0, 0, rows, rows))
        found[name] = tensor
    return found


def final(output: object) -> Tensor:
    """The tensor that the engine goes on with, of whatever a network returns."""
    if isinstance(output, dict):
        output = output["maps"]
    if isinstance(output, tuple):
        output = output[-1]
    assert isinstance(output, Tensor)
    return output


def check(stem: str, configuration: object, folder: Path) -> tuple[str, float]:
    """The class of our backbone, and the largest relative difference between both networks, both ways."""
    torch.manual_seed(0)
    theirs = BaseModel(configuration).eval()
    torch.save(theirs.state_dict(), folder / f"{stem}.pth")
    ours = load_model(folder / f"{stem}.pth")
    noise = torch.randn(next(shape for part, shape in SHAPES.items() if part in stem))
    with torch.inference_mode():
        before = final(theirs(noise))
        theirs.load_state_dict(for_rapidocr(ours.state_dict(), theirs), strict=True)
        values = [final(model(noise)).numpy() for model in (ours, theirs)]
    errors = [measure(before.numpy(), value).max_error for value in values]
    return type(ours.get_submodule("backbone")).__name__, max(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stems", nargs="*", help="of RapidOCR's files; all by default")
    given = parser.parse_args()
    known = OmegaConf.load(ModelLoader.DEFAULT_CFG_PATH)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for stem in given.stems or known:
            backbone, error = check(stem, known[stem], Path(folder))
            failed += not error <= TOLERANCE
            print(f"{stem:36} {backbone:24} {error:.1e}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
