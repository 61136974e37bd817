"""Numbers as a report shows them: shares, dates, durations and other numbers."""

from __future__ import annotations

import numpy as np

from experiments.inspection.time_axis import PER_SECOND

UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def share(value: float) -> str:
    """Return a share as a percentage; never 0% or 100% for one that is more or less."""
    if 0 < value < 0.0005:
        return "under 0.1%"
    if 0.9995 <= value < 1:
        return "over 99.9%"
    return f"{100 * value:.3g}%" if value < 0.995 else f"{100 * value:.4g}%"


def number(value: float) -> str:
    """Return a number with at most four digits that say something, or with thousands separated."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def as_date(timestamp: int, unit: str | None, *, with_time: bool = False) -> str:
    """Return a timestamp as a date in UTC; as a number if its unit is not known or its year is not of four digits."""
    if unit is None:
        return f"{timestamp:,}"
    moment = np.datetime64(timestamp // PER_SECOND[unit], "s")
    if not np.datetime64("0001", "s") <= moment < np.datetime64("9999", "s"):
        return f"{timestamp:,}"
    text = str(moment)
    return text.replace("T", " ") if with_time else text[:10]


def in_words(duration: float, unit: str | None) -> str:
    """Return a duration in the unit in words, such as "3.2 days"."""
    if unit is None:
        return _figures(duration)
    seconds = duration / PER_SECOND[unit]
    for size, word in ((31_557_600, "years"), (86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds")):
        if seconds >= size:
            figures = _figures(seconds / size)
            return f"{figures} {word.removesuffix('s') if figures == '1' else word}"
    return f"{_figures(seconds)} seconds"


def _figures(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
