"""Ctrl-C, also where Python loses it.

`KeyboardInterrupt` is raised wherever the program happens to be. Between the two halves of a library's `with` block,
another error takes its place; in a callback that must not raise, it is printed and gone. What came is remembered here,
to be raised again where somebody listens.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_came = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Raise interrupts as ever and remember them; an error that leaves the block after one becomes it again.

    Only where Python's own handler is in place, in the main thread: whoever set another has plans of their own.

    Raises:
        KeyboardInterrupt: there was an interrupt, and the block ended with any error.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    except Exception as error:
        heed(error)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _came.clear()


def heed(error: Exception | None = None) -> None:
    """Raise an interrupt that came and was lost.

    Args:
        error: what took its place.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _came.is_set():
        raise KeyboardInterrupt from error


def _remember(number: int, frame: FrameType | None) -> None:
    _came.set()
    signal.default_int_handler(number, frame)
