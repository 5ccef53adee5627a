"""The fine-tuning example in its short form: the loss falls, text gets read, and Paddle reads the same afterwards."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from paddle2torch.converter.conversion.convert import convert
from paddle2torch.converter.sources import load_source
from paddle2torch.converter.writing import artifacts
from paddle2torch.converter.writing.to_paddle import read_converted, write_checkpoint, write_inference
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.converter.zoo.download import Fetcher
from scripts.examples.fine_tune import LABELS, NAME, fine_tune, with_new_head

STEPS = 40


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float], float]:
    """The tuned `.pth`, the losses, and the share of characters that it reads in unseen lines."""
    folder = tmp_path_factory.mktemp("fine-tuning")
    zoo, fetcher = load_zoo(), Fetcher()
    conversion = convert(load_source("embedded_rec", zoo, fetcher), fetcher=fetcher)
    _, safetensors, _ = artifacts.write(conversion, folder)
    torch.manual_seed(0)
    model = with_new_head(safetensors)
    outcome = fine_tune(model, STEPS)
    pth, *_ = artifacts.write_files(model.state_dict(), model.metadata, folder)
    return pth, outcome.losses, outcome.accuracy


def test_loss_falls_and_text_gets_read(tuned: tuple[Path, list[float], float]) -> None:
    _, losses, accuracy = tuned
    assert np.mean(losses[-5:]) < 0.4 * losses[0]
    assert accuracy > 0.7


def test_paddle_reads_the_same_afterwards(tuned: tuple[Path, list[float], float], tmp_path: Path) -> None:
    if importlib.util.find_spec("paddle") is None:
        pytest.skip("PaddlePaddle is not installed")
    from paddle2torch.converter.parity.verify import verify

    pth, *_ = tuned
    zoo, fetcher = load_zoo(), Fetcher()
    weights = read_converted(pth)
    checkpoint = write_checkpoint(weights, tmp_path)
    write_inference(weights, load_source("embedded_rec", zoo, fetcher), tmp_path)
    dictionary = tmp_path / "dates.txt"
    dictionary.write_text("\n".join(LABELS[1:]))
    back = convert(load_source(str(checkpoint), zoo, fetcher), dictionary=dictionary)
    result = verify(back, reference=load_source(str(tmp_path / NAME), zoo, fetcher))
    assert result.passed, result.failures
    assert result.parameters["classes"] == len(LABELS)
