"""The report about a dataset as text for a terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from contracts.text_table import text_table
from experiments.inspection.facts import Bar, DatasetFacts
from experiments.inspection.report import BarPicture, Cell, CurvePicture, Part, Table, report
from experiments.page.titles import title_of

_WIDTH = 100
_BAR = 50
_NOTHING = "Nothing stands out."
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"


def text(facts: DatasetFacts) -> str:
    """Return the whole report."""
    lines = [f"Dataset {facts.path}", *_headed("What would be surprising"), *_surprises(facts)]
    for section in report(facts):
        lines += _headed(section.title)
        for part in section.parts:
            lines += [shown, ""] if (shown := _part(part)) else []
    return "\n".join(lines).rstrip()


def _headed(title: str) -> list[str]:
    return ["", title, "=" * len(title), ""]


def _surprises(facts: DatasetFacts) -> list[str]:
    if not facts.surprises:
        return [_NOTHING]
    return [
        textwrap.fill(_visible(f"{one.what} {one.next_move}"), _WIDTH, initial_indent="- ", subsequent_indent="  ")
        for one in facts.surprises
    ]


def _part(part: Part) -> str:
    if isinstance(part, str):
        return textwrap.fill(_visible(part), _WIDTH, break_long_words=False, break_on_hyphens=False)
    if isinstance(part, BarPicture):
        return f"{part.caption}\n{_bars(part.bars)}"
    if isinstance(part, CurvePicture):  # characters cannot show logarithmic axes well; the quantiles say the same
        return ""
    return _table(part)


def _table(table: Table) -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    if any(table.headers):
        shown = text_table(rows, table.headers, right=table.right)
    else:
        width = max(len(name) for name, _ in rows)
        values = max(len(value) for _, value in rows) if table.right else 0
        shown = "\n".join(f"{name:<{width}}  {value:>{values}}" for name, value in rows)
    return f"{_visible(table.caption)}\n{shown}" if table.caption else shown


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return _visible(cell)
    return _visible(cell.id if cell.text is None else f"{title_of(cell.text)} ({cell.id})")


def _bars(bars: Sequence[Bar]) -> str:
    most = max(bar.count for bar in bars) or 1
    width = max(len(bar.label) for bar in bars)
    digits = max(len(f"{bar.count:,}") for bar in bars)
    return "\n".join(
        f"{bar.label:>{width}}  {bar.count:>{digits},}  {'#' * -(-bar.count * _BAR // most)}".rstrip() for bar in bars
    )


def _visible(text: str) -> str:
    """Replace characters that would move the cursor, or change colours or the direction of a terminal's text.

    Joiners stay, since emoji and some scripts need them, and every kind of space becomes a plain one.
    """
    return "".join(char if char.isprintable() or char in _JOINERS else _instead_of(char) for char in text)


def _instead_of(char: str) -> str:
    return " " if unicodedata.category(char) == "Zs" else "\N{REPLACEMENT CHARACTER}"
