"""Facts about upstream's networks that are too large to be kept here; tests that need them are skipped without.

PADDLE2TORCH_MANIFESTS names a folder of `NAME.json`: `[key, shape, …]` for each tensor of a checkpoint, in Paddle's
names and layout; of `NAME.folded.json` for the same network without branches. PADDLE2TORCH_ORACLES names a folder of
`NAME.npz`, inputs and what upstream's own network answers, with `recipe.py`, which makes the checkpoints behind them.
"""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

Shape = tuple[int, ...]


def material(variable: str) -> Path:
    """The folder that a variable names; the test is skipped where it names none."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder")
    return Path(folder)


@cache
def manifest(name: str) -> dict[str, Shape]:
    """The tensors of a checkpoint: structured name → shape."""
    return {key: tuple(shape) for key, shape, *_ in _rows(name)}


@cache
def oracle(name: str) -> dict[str, np.ndarray]:
    """Input and answers."""
    with np.load(material("PADDLE2TORCH_ORACLES") / f"{name}.npz") as file:
        return dict(file)


@cache
def checkpoint(name: str) -> dict[str, np.ndarray]:
    """The checkpoint behind an oracle: structured name → float32 array."""
    spec = importlib.util.spec_from_file_location("oracle_recipe", material("PADDLE2TORCH_ORACLES") / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    made: dict[str, np.ndarray] = recipe.checkpoint(name, _rows(name))
    return made


def _rows(name: str) -> list[tuple[str, list[int], str]]:
    path = material("PADDLE2TORCH_MANIFESTS") / f"{name}.json"
    rows: list[tuple[str, list[int], str]] = json.loads(path.read_text(encoding="utf-8"))
    return rows
