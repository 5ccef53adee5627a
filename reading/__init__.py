"""Reading text in pictures with PP-OCR networks: detection, angle classification, recognition.

    from reading import Reader

    for line in Reader(rec="french_mobile_v2.0_rec").read("sign.jpg"):
        print(line.text, line.score, line.box)

The steps are those published with PaddleOCR. They work on NumPy arrays, and what computes a network is a callable from
array to array: PyTorch, Paddle (`reading.paddle`), or anything else. Needs `pip install 'paddle2torch[reading]'`.

Importing this package alone imports next to nothing; its names are fetched when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reading.network import Network
    from reading.reader import Line, Reader

__all__ = ["Line", "Network", "Reader"]

_HOMES = {"Line": "reading.reader", "Network": "reading.network", "Reader": "reading.reader"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
