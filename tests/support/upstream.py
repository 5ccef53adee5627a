"""Facts about released models that are not part of this repository; tests that need them are skipped without.

PADDLE2TORCH_MANIFESTS names a folder of key lists: `NAME.json` has [key, shape, …] for each tensor of a checkpoint, and
`NAME.folded.json` for the same network without branches. PADDLE2TORCH_ORACLES names one of answers that upstream's own
networks gave: `NAME.npz`, and the `recipe.py` that makes the checkpoints to which they belong. PADDLE2TORCH_PROGRAMS
names one of released programs, a folder each; where a program has no names, `names.json` lists them.
"""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .recipe import Shape

MANIFESTS_VARIABLE = "PADDLE2TORCH_MANIFESTS"
ORACLES_VARIABLE = "PADDLE2TORCH_ORACLES"
PROGRAMS_VARIABLE = "PADDLE2TORCH_PROGRAMS"


def manifest(name: str) -> dict[str, Shape]:
    """The tensors of a checkpoint: structured name → shape in Paddle, in the file's order."""
    return {key: tuple(shape) for key, shape, *_ in _rows(name)}


@cache
def checkpoint(name: str) -> dict[str, np.ndarray]:
    """The checkpoint to which an oracle's answers belong: structured name → array in Paddle's layout."""
    spec = importlib.util.spec_from_file_location("oracle_recipe", _folder(ORACLES_VARIABLE) / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe.checkpoint(name, _rows(name))


@cache
def oracle(name: str) -> dict[str, np.ndarray]:
    """Input and answers of an oracle, by the names that its README explains."""
    with np.load(_folder(ORACLES_VARIABLE) / f"{name}.npz") as file:
        return dict(file)


def program_folder(name: str) -> Path:
    """The folder with the program of a released model."""
    return _folder(PROGRAMS_VARIABLE) / name


def _folder(variable: str) -> Path:
    """The folder that a variable names; where it names none, the test is skipped."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no folder")
    return Path(os.environ[variable])


@cache
def _rows(name: str) -> list[list[Any]]:
    return json.loads((_folder(MANIFESTS_VARIABLE) / f"{name}.json").read_text(encoding="utf-8"))
