"""Prints metrics as a table."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.text_table import text_table


def metrics_table(rows: Mapping[str, Mapping[str, float | None]], columns: tuple[str, ...]) -> str:
    """Return a text table with a row per name and a column per metric; a metric without a value is an empty cell."""
    body = [[name, *(_cell(metrics.get(c)) for c in columns)] for name, metrics in rows.items()]
    return text_table(body, ["", *columns])


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
