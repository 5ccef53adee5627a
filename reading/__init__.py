"""Reading text in images with PP-OCR networks: detection, angle classification, recognition.

    from paddle2torch import Reader

    for line in Reader(rec="french_mobile_v2.0_rec").read("sign.jpg"):
        print(line.text, line.score, line.box)

The steps are those published with PaddleOCR. They work on NumPy arrays, and what computes a network is a callable from
array to array: PyTorch, Paddle (see `.paddle`), or anything else. Needs `pip install 'paddle2torch[reading]'`.

Importing this package alone imports next to nothing; its names are fetched when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle2torch.reading.network import Network
    from paddle2torch.reading.reader import Line, Reader

__all__ = ["Line", "Network", "Reader"]

_HOMES = {
    "Line": "paddle2torch.reading.reader",
    "Network": "paddle2torch.reading.network",
    "Reader": "paddle2torch.reading.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
