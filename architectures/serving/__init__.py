"""Networks for serving on a CPU: faster ones, with the same answers."""

from .model import OptimizedModel, optimize

__all__ = ["OptimizedModel", "optimize"]
