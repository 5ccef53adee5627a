"""How messages call what the user can say: options on the command line, arguments in Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from paddle2torch.converter.support.errors import ConverterError

# Options whose names are not those of the arguments, and those that are switched on.
ARGUMENTS = {"dict": "dictionary", "as-graph": "as_graph=True", "offline": "offline=True"}
SAME = ("architecture", "branch", "cache", "config", "kind", "member", "mirror", "reference", "tolerance", "weights")
# Commands are quoted with backticks; what is in them is not translated.
_OPTION = re.compile(rf"`[^`]*`|(?<![\w-])--({'|'.join((*ARGUMENTS, *SAME))})(?![\w-])")


@contextmanager
def in_python() -> Iterator[None]:
    """Where Python is used, errors name its arguments in place of the command line's options."""
    try:
        yield
    except ConverterError as error:
        error.args = tuple(as_arguments(each) if isinstance(each, str) else each for each in error.args)
        raise


def as_arguments(message: str) -> str:
    """A message with the arguments of Python's functions in place of the options that it names."""
    return _OPTION.sub(lambda found: ARGUMENTS.get(found[1], found[1]) if found[1] else found[0], message)
