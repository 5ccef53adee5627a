"""A task for tests of `paddle2torch.converter.batch.run`; in a module of its own, so that a process which runs it imports little."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from paddle2torch.converter.batch.run import Report
from paddle2torch.converter.support.errors import DownloadError, MappingError


@dataclass(frozen=True)
class Scripted:
    """A task that fails as often as it is told, and counts its runs in a file.

    Attributes:
        name: see `Task`.
        counter: the file.
        failures: how often to fail before it succeeds.
        how: "passing", "lasting" or "killed".
    """

    name: str
    counter: Path
    failures: int = 0
    how: str = "passing"

    def run(self) -> Report:
        runs = len(self.counter.read_text()) if self.counter.exists() else 0
        self.counter.write_text("x" * (runs + 1))
        if runs < self.failures:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"passing": DownloadError, "lasting": MappingError}[self.how](f"{self.name}: no luck")
        return Report(f"run {runs + 1}", (f"{self.name} says",))
