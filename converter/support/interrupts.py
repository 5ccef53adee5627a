"""Ctrl-C, also where Python loses it.

`KeyboardInterrupt` is raised wherever the program happens to be. Between the two halves of a library's `with` block,
another error takes its place; in a callback that must not raise, it is printed and gone. What came is remembered here,
to be raised again where somebody listens. Where it would do harm it is put off: C++ code that runs while PyTorch is
imported aborts the process, and Python takes a thread for ended if waiting for it is interrupted.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PUT_OFF = 0.02  # seconds

_came = threading.Event()
_held_back = threading.Event()
_put_off = threading.Event()


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
        _put_off.clear()


def heed(error: Exception | None = None) -> None:
    """Raise an interrupt that came and was lost.

    Args:
        error: what took its place.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _came.is_set():
        _put_off.clear()
        raise KeyboardInterrupt from error


@contextmanager
def held_back() -> Iterator[None]:
    """Put interrupts off, where they are remembered, until the block has ended; it must not take long."""
    _held_back.set()
    try:
        yield
    finally:
        _held_back.clear()


def _remember(number: int, frame: FrameType | None) -> None:
    _came.set()
    if not _held_back.is_set() and not _imports_torch(frame):
        _put_off.clear()
        signal.default_int_handler(number, frame)
    elif not _put_off.is_set():
        _put_off.set()
        # Not by `threading`, one of whose locks the interrupted code may hold.
        _thread.start_new_thread(_interrupt_again, ())


def _imports_torch(frame: FrameType | None) -> bool:
    """Whether the code that a frame runs was called, however far away, by that of a module of PyTorch's."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals["__name__"].partition(".")[0] == "torch":
            return True
        frame = frame.f_back
    return False


def _interrupt_again() -> None:
    """Once more, unless it was heeded meanwhile."""
    time.sleep(PUT_OFF)
    main = threading.main_thread().ident
    if not _put_off.is_set():
        return
    _put_off.clear()
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:  # Windows, where it does not wake a thread that waits
        _thread.interrupt_main()
