"""Packages that only reading needs, imported when they are used."""

from __future__ import annotations

from types import ModuleType

from paddle2torch.converter.support.extras import require


def opencv() -> ModuleType:
    """The module `cv2`.

    Raises:
        MissingPackageError: it is not installed.
    """
    return require("cv2", "reading", "reading images")


def clipper() -> ModuleType:
    """The module `pyclipper`.

    Raises:
        MissingPackageError: it is not installed.
    """
    return require("pyclipper", "reading", "reading images")
