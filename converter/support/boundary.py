"""The boundary around what reads files of others: whatever is raised in it becomes the one error that people are told.

Nobody knows all that a library raises over bytes that somebody made up. With `--debug` the cause is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from paddle2torch.converter.support.blob import Blob
from paddle2torch.converter.support.errors import ConverterError, FormatError

_LONGEST_CAUSE = 120
UNFORESEEN = "Nobody foresaw this one: please report it, with the file where that is possible."

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def boundary(name: str, wanted: str, error: Callable[[str, str], ConverterError] = FormatError) -> Iterator[None]:
    """Turn whatever is raised in the block, but for our own errors, into one of ours, with the note `UNFORESEEN`.

    Args:
        name: of the file, as the user knows it.
        wanted: what it is read as, for the message.
        error: makes the error from the name and the problem.

    Raises:
        FormatError: or what `error` makes.
    """
    try:
        yield
    except ConverterError:
        raise
    except Exception as cause:
        text = f"{type(cause).__name__}: {cause}".partition("\n")[0][:_LONGEST_CAUSE]
        found = error(name, f"cannot be read as {wanted} ({text}); it is damaged or something else")
        found.add_note(UNFORESEEN)
        raise found from cause


def guarded(wanted: str) -> Callable[[Callable[Concatenate[Blob, P], R]], Callable[Concatenate[Blob, P], R]]:
    """`boundary` around a reader of a file.

    Args:
        wanted: what the file is read as, for the message.
    """

    def decorate(read: Callable[Concatenate[Blob, P], R]) -> Callable[Concatenate[Blob, P], R]:
        @wraps(read)
        def guard(blob: Blob, *args: P.args, **kwargs: P.kwargs) -> R:
            with boundary(blob.name, wanted):
                return read(blob, *args, **kwargs)

        return guard

    return decorate
