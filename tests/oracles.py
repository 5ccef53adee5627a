"""Facts about released models that are not part of this repository; tests that need them are skipped without.

PADDLE2TORCH_MANIFESTS names a folder of key lists: `NAME.json` has [key, shape, …] for each tensor of a checkpoint.
PADDLE2TORCH_ORACLES names one of answers that upstream's own networks gave: `NAME.npz`, and the `recipe.py` that makes
the checkpoints to which they belong.
"""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

MANIFESTS_VARIABLE = "PADDLE2TORCH_MANIFESTS"
ORACLES_VARIABLE = "PADDLE2TORCH_ORACLES"


def folder(variable: str) -> Path:
    """The folder that a variable names; where it names none, the test is skipped."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no folder")
    return Path(os.environ[variable])


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint: structured name → shape in Paddle, in the file's order."""
    return {key: tuple(shape) for key, shape, *_ in _rows(name)}


def checkpoint(name: str) -> dict[str, np.ndarray]:
    """The checkpoint to which an oracle's answers belong: structured name → array in Paddle's layout."""
    return _recipe(folder(ORACLES_VARIABLE) / "recipe.py").checkpoint(name, _rows(name))


def oracle(name: str) -> dict[str, np.ndarray]:
    """Input and answers of an oracle, by the names that its README explains."""
    return _arrays(folder(ORACLES_VARIABLE) / f"{name}.npz")


def _rows(name: str) -> list[list[Any]]:
    return json.loads((folder(MANIFESTS_VARIABLE) / f"{name}.json").read_text(encoding="utf-8"))


@cache
def _recipe(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_recipe", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)
