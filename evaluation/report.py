"""Metrics as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from tabulate import tabulate


def metrics_table(rows: Mapping[str, Mapping[str, float | None]], columns: tuple[str, ...]) -> str:
    """One row per name, one column per metric, four decimals; a metric that was not measured is empty."""
    body = [[name, *(_cell(metrics.get(c)) for c in columns)] for name, metrics in rows.items()]
    return tabulate(body, headers=["", *columns], disable_numparse=True)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
