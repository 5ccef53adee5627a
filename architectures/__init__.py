"""Networks of PaddleOCR in PyTorch.

    from paddle2torch.architectures import create_model, list_models, load_model, optimize

This package depends on PyTorch alone, and works when it is copied out of here.
"""

from .loading import load_model
from .registry import create_model, list_models
from .serving import optimize

__all__ = ["create_model", "list_models", "load_model", "optimize"]
