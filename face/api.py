"""What one does with models in Python, in a line each: the functions behind the commands' names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle2torch.converter.conversion.choice import Access, Choice

if TYPE_CHECKING:
    from torch import Tensor, nn

    from paddle2torch.converter.conversion.convert import Conversion
    from paddle2torch.converter.parity.result import ParityResult
