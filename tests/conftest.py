"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

MIRROR_VARIABLE = "PADDLE2TORCH_MIRROR"

# A shell has its background jobs ignore Ctrl-C, and all their children with them; here some children are to heed it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder with a local mirror of the zoo's tarballs; the test is skipped where there is none."""
    folder = os.environ.get(MIRROR_VARIABLE)
    if not folder:
        pytest.skip(f"{MIRROR_VARIABLE} does not name a mirror of the zoo's tarballs")
    return Path(folder)


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """The command line tells its children not to look into the working folder; other tests' children may."""
    before = os.environ.get("PYTHONSAFEPATH")
    yield
    if before is None:
        os.environ.pop("PYTHONSAFEPATH", None)
    else:
        os.environ["PYTHONSAFEPATH"] = before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests, which follow whole pages of documentation, first: the processes then end at about one time."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")
