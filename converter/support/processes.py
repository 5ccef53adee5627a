"""Python processes that are started from here: they import nothing that lies in the working folder.

Python looks for modules in the working folder first where it is started with `-c` or `-m`, as `multiprocessing` does.
People work in folders that they have unpacked, and there may lie a `numpy.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def safe_variables() -> dict[str, str]:
    """Environment variables that keep Python processes from the working folder.

    Empty and relative entries of PYTHONPATH, which mean the working folder or what lies in it, are left out.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(entry for entry in entries if Path(entry).is_absolute()),
    }


@contextmanager
def safe_children() -> Iterator[None]:
    """Have all processes that are started in the block keep from it, also by libraries that ask for no environment."""
    safe = safe_variables()
    before = {name: os.environ.get(name) for name in safe}
    os.environ.update(safe)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
