"""Prints metrics as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.text_table import text_table


def metrics_table(rows: Mapping[str, Mapping[str, float | None]], columns: tuple[str, ...]) -> str:
    """Return a text table with a row per name and a column per metric; a metric without a value is an empty cell."""
    body = [[name, *(_cell(metrics.get(c)) for c in columns)] for name, metrics in rows.items()]
    return text_table(body, ["", *columns])


def slice_rows(split: str, slices: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, float | None]]:
    """Return the rows of a table of slices. After a slice within a group comes a row with a random ranking's metrics.

    Args:
        split: "valid" or "test".
        slices: of a result file.
    """
    rows: dict[str, Mapping[str, float | None]] = {}
    for name, found in slices.items():
        row = f"{split}, {name} ({found['targets']:,} targets"
        if "candidates" not in found:
            rows[f"{row})"] = found
            continue
        rows[f"{row}, {found['candidates']:,} items)"] = found
        rows[f"{split}, {name}: by chance"] = found["chance"]
    return rows


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
