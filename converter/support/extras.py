"""Packages that only some commands need: imported where they are used, and named with what installs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from paddle2torch.converter.support.errors import MissingPackageError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: its name.
        extra: of `setup.cfg`, which installs it.
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs the package {module}, which cannot be imported ({error}); install it with: "
            f"pip install 'paddle2torch[{extra}]'"
        ) from error


def available(module: str) -> bool:
    """Whether a module of an optional package can be imported."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
