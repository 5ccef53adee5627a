"""The networks of the PP-OCR model list in PyTorch.

    from . import create_model, list_models, load_model, optimize

Importing this package imports no torch; building, loading or optimising a network does.
"""

from __future__ import annotations

from typing import Any

from .loading import load_model
from .registry import create_model, list_models

__all__ = ["create_model", "list_models", "load_model", "optimize"]


def __getattr__(name: str) -> Any:
    if name == "optimize":  # its module imports torch
        from .serving import optimize

        return optimize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
