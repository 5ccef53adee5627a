"""Ctrl-C: the program ends with exit code 130, and nothing half-written stays.

The interrupt is Python's own `KeyboardInterrupt`, which leaves every `with` block on its way to the command line, where
it becomes the exit code. Those blocks tidy up: files that are being written go (`support.files`), downloads keep what
has come and lose their locks (`zoo.download`), Paddle's process and temporary folders go with their owners.

Libraries lose interrupts, so two things are added here. Raised between the two halves of a library's `with` block, an
interrupt is replaced by another error; raised in a callback that must not raise, it is printed and gone: it is
remembered, and raised again where `remembered` ends with an error, or somebody asks by `raise_pending`. While PyTorch
is imported, C++ code calls Python code and aborts the process when that raises: the interrupt waits until that is over.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PAUSE = 0.02  # seconds between two looks at whether PyTorch has been imported

_came = threading.Event()
_waiting = threading.Event()


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
        raise_pending(error)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _came.clear()


def raise_pending(error: Exception | None = None) -> None:
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
    if not _torch_is_being_imported():
        signal.default_int_handler(number, frame)
    elif not _waiting.is_set():
        _waiting.set()
        # Not by `threading`, one of whose locks the interrupted code may hold.
        _thread.start_new_thread(_interrupt_after_import, ())


def _torch_is_being_imported() -> bool:
    # The import system's own mark, by which it tells circular imports.
    return getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False)


def _interrupt_after_import() -> None:
    while _torch_is_being_imported():
        time.sleep(PAUSE)
    _waiting.clear()
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:  # Windows, where it does not wake a thread that waits
        _thread.interrupt_main()
