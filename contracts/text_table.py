"""Formats a table as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(rows: Iterable[Sequence[str]], headers: Sequence[str], right: Iterable[int] = ()) -> str:
    """Return a table of text cells, one line for each row, below a line of headers.

    Where tabulate is not installed, the table has no line below its headers.

    Args:
        rows: the cells of each row.
        headers: the name of each column.
        right: the numbers of the columns that are aligned to the right.
    """
    body, at_right = [list(row) for row in rows], set(right)
    alignments = ["right" if column in at_right else "left" for column in range(len(headers))]
    try:
        from tabulate import tabulate
    except ImportError:
        return _plain([list(headers), *body], at_right)
    return tabulate(body, headers, colalign=alignments if body else None, disable_numparse=True)


def _plain(lines: Sequence[Sequence[str]], right: set[int]) -> str:
    columns = []
    for number, column in enumerate(zip(*lines, strict=True)):
        width = max(map(len, column))
        columns.append([cell.rjust(width) if number in right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
