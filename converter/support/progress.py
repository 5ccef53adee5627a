"""Progress bars for downloads: one per file and one for all together, on a terminal only."""

from __future__ import annotations

from types import TracebackType
from typing import Never

from tqdm import tqdm


def _bar(label: str) -> tqdm[Never]:
    # disable=None: drawn where stderr is a terminal.
    return tqdm(desc=label, total=0, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None)


class Overall:
    """The bar of all files together; its total grows as the files' lengths become known."""

    def __init__(self, files: int) -> None:
        self._bar = _bar(f"{files} files")

    def change(self, done: int, total: int) -> None:
        """Count that many bytes more as done, and as part of the whole."""
        self._bar.total = (self._bar.total or 0) + total
        self._bar.update(done)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.close()


class Bar:
    """The bar of one file; a context manager that takes it off the screen."""

    def __init__(self, label: str, overall: Overall | None = None) -> None:
        self._bar = _bar(label)
        self._overall = overall
        self._done = self._total = 0

    def begin(self, done: int, total: int | None) -> None:
        """Some bytes are here already, of so many; called again when a download starts over."""
        self._change(done - self._done, (total or 0) - self._total)
        self._bar.refresh()

    def advance(self, count: int) -> None:
        """So many bytes more are here."""
        self._change(count, 0)

    def _change(self, done: int, total: int) -> None:
        self._done, self._total = self._done + done, self._total + total
        self._bar.total = self._total or None
        self._bar.update(done)
        if self._overall:
            self._overall.change(done, total)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
