"""When this process looks for garbage, and gives freed memory back."""

from __future__ import annotations

import atexit
import ctypes
import gc
from contextlib import suppress

# Objects made, collections of the young, and of those that survived them; 700, 10 and 10 by default.
THRESHOLDS = (100_000, 50, 50)


def collect_rarely() -> None:
    """Have Python look through this process's objects less often, and not at all once it has come to its end.

    Importing PyTorch makes a million objects that live as long as the process. Python goes through them several times
    as they come, and once more at exit, which is a quarter of the time that the import takes.
    """
    if gc.get_threshold() != THRESHOLDS:
        gc.set_threshold(*THRESHOLDS)
        # Registered first, it runs last: what others do at the end they do as ever.
        atexit.register(gc.freeze)


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it in pieces that the next model may not fit."""
    with suppress(AttributeError, OSError, TypeError):  # it is glibc's
        ctypes.CDLL(None).malloc_trim(0)
