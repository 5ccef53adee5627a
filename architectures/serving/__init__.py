"""Networks for serving: faster ones, with the same answers."""

from .optimize import OptimizedModel, optimize

__all__ = ["OptimizedModel", "optimize"]
