"""Tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table_lines(rows: Sequence[Sequence[str]], indent: int = 0) -> list[str]:
    """Rows as lines, every column as wide as its widest cell.

    Args:
        rows: cells; the first row may be the heads of the columns.
        indent: spaces before each line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" " * indent + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
