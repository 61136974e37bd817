"""Metrics as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from tabulate import tabulate


def metrics_table(rows: Mapping[str, Mapping[str, float]], columns: tuple[str, ...]) -> str:
    """One row per name, one column per metric, four decimals; a metric that was not measured is empty."""
    body = [[name, *(f"{metrics[c]:.4f}" if c in metrics else "" for c in columns)] for name, metrics in rows.items()]
    return tabulate(body, headers=["", *columns], disable_numparse=True)
