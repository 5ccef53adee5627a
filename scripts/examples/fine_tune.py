#!/usr/bin/env python3
"""Fine-tune a converted recogniser in plain PyTorch, for characters of your own.

The example takes the embedded recogniser, which knows letters and digits, gives it a new head for dates and times, and
trains it on rendered lines until it reads dates that it has never seen. From the repository's root:

    .venv/bin/python -m paddle2torch convert embedded_rec --output converted
    .venv/bin/python -m scripts.examples.fine_tune converted/embedded_rec.safetensors --output converted
    .venv/bin/python -m paddle2torch convert --to paddle converted/dates.pth --output paddle --reference embedded_rec
    .venv/bin/python -m paddle2torch verify paddle/dates.pdparams --dict converted/dates.txt --reference paddle/dates

The third command goes back to Paddle, the fourth proves that Paddle reads what PyTorch reads. For data of your own,
`batch` is the function to replace.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from paddle2torch.architectures import create_model, load_model
from paddle2torch.architectures.records import Preprocessing
from paddle2torch.converter.mapping.labels import BLANK
from paddle2torch.converter.ocr.ctc import decode
from paddle2torch.converter.ocr.preprocess import prepare
from paddle2torch.converter.writing.artifacts import write_files
from scripts.fixtures.rendered_words import render

NAME = "dates"
CHARACTERS = "0123456789-/:."
LABELS = [BLANK, *CHARACTERS]
WIDTH = 160
BATCH_SIZE = 16
RATE = 2e-3
FORMATS = ("{y:04}-{m:02}-{d:02}", "{d:02}.{m:02}.{y:04}", "{m}/{d}/{y}", "{h:02}:{i:02}:{s:02}", "{h}:{i:02}")


@dataclass(frozen=True)
class Outcome:
    """How the training went.

    Attributes:
        losses: CTC loss of each step.
        accuracy: share of right characters, position by position, in lines that training never showed.
    """

    losses: list[float]
    accuracy: float


def draw_text(rng: np.random.Generator) -> str:
    """A date or a time of day."""
    parts = {"y": (1900, 2100), "m": (1, 13), "d": (1, 29), "h": (0, 24), "i": (0, 60), "s": (0, 60)}
    values = {name: int(rng.integers(*bounds)) for name, bounds in parts.items()}
    return FORMATS[rng.integers(len(FORMATS))].format(**values)


def is_held_out(text: str) -> bool:
    """Whether the text is kept for judging."""
    return hashlib.sha256(text.encode()).digest()[0] < 32


def batch(rng: np.random.Generator, record: Preprocessing, size: int, held_out: bool) -> tuple[torch.Tensor, list[str]]:
    """Images (N, 3, H, W), preprocessed as the model wants them, and what they say."""
    texts: list[str] = []
    while len(texts) < size:
        text = draw_text(rng)
        if is_held_out(text) == held_out:
            texts.append(text)
    return torch.from_numpy(prepare([render(text, rng) for text in texts], record, WIDTH)), texts


def with_new_head(path: Path) -> torch.nn.Module:
    """The converted network for other classes: all weights are kept, of the head those of characters known before."""
    old = load_model(path)
    parameters = {**old.metadata["parameters"], "classes": len(LABELS)}
    model = create_model(old.metadata["architecture"], **parameters)
    known = {label: row for row, label in enumerate(old.metadata["labels"] or [])}
    state = model.state_dict()
    for key, value in old.state_dict().items():
        if not key.startswith("head."):
            state[key] = value
            continue
        for row, label in enumerate(LABELS):
            if label in known:
                state[key][row] = value[known[label]]
    model.load_state_dict(state)
    model.metadata = {
        **old.metadata,
        "name": NAME,
        "parameters": parameters,
        "labels": LABELS,
        "source": {**old.metadata["source"], "fine_tuned_from": old.metadata["name"]},
    }
    return model


def ctc_loss(model: torch.nn.Module, images: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """The loss of a batch; the model is in training mode and returns logits (N, T, classes)."""
    scores = F.log_softmax(model(images), dim=2).transpose(0, 1)
    targets = torch.tensor([CHARACTERS.index(character) + 1 for text in texts for character in text])
    steps = torch.full((len(texts),), scores.shape[0])
    return F.ctc_loss(scores, targets, steps, torch.tensor([len(text) for text in texts]), zero_infinity=True)


def measure(model: torch.nn.Module, record: Preprocessing, lines: int) -> float:
    """Share of right characters in lines that training never shows."""
    images, texts = batch(np.random.default_rng(1), record, lines, held_out=True)
    with torch.no_grad():
        readings = decode(model.eval()(images).numpy(), LABELS)
    right = sum(
        a == b for text, reading in zip(texts, readings, strict=True) for a, b in zip(text, reading.text, strict=False)
    )
    return right / sum(len(text) for text in texts)


def fine_tune(model: torch.nn.Module, steps: int, seed: int = 0) -> Outcome:
    """Train in place; Adam, the rate falling to zero along a half cosine."""
    record = Preprocessing.from_json(model.metadata["preprocessing"], NAME)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for step in range(steps):
        images, texts = batch(rng, record, BATCH_SIZE, held_out=False)
        loss = ctc_loss(model.train(), images, texts)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step}: CTC loss {np.mean(losses[-25:]):.3f}", flush=True)
    return Outcome(losses, measure(model, record, lines=100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a converted recogniser, with its .json or as .safetensors")
    parser.add_argument("--output", type=Path, default=Path("converted"))
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = with_new_head(arguments.model)
    outcome = fine_tune(model, arguments.steps)
    print(f"{outcome.accuracy:.1%} of the characters of unseen lines are right")
    for path in write_files(model.state_dict(), model.metadata, arguments.output):
        print(path)
    dictionary = arguments.output / f"{NAME}.txt"
    dictionary.write_text("".join(f"{character}\n" for character in CHARACTERS))
    print(dictionary)


if __name__ == "__main__":
    main()
