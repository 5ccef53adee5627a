"""The networks of the PP-OCR model list in PyTorch.

    from architectures import create_model, list_models, load_model

Importing this package imports no torch; building or loading a network does.
"""

from __future__ import annotations

from architectures.loading import load_model
from architectures.registry import create_model, list_models

__all__ = ["create_model", "list_models", "load_model"]
