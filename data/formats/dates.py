"""Dates as text: ISO 8601, with or without a time and a zone. A date or time without a zone is in UTC."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data.formats.time_kinds import PER_SECOND

_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_MOMENT = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}(\.[0-9]{{1,9}})?)?{_ZONE}?$"
_ZONED = rf":[0-9]{{2}}(\.[0-9]+)?{_ZONE}$"
_FRACTIONS = {"ns": r"\.[0-9]{7}", "us": r"\.[0-9]{4}", "ms": r"\.[0-9]"}  # finest first


def are_dates(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which texts are written as dates; they may not be in the calendar."""
    return pc.or_(pc.match_substring_regex(column, _DAY), pc.match_substring_regex(column, _MOMENT))


def unit_of_dates(column: pa.ChunkedArray) -> str:
    """Return the coarsest unit (s, ms, us or ns) that is exact for all dates."""

    def any_match(digits: str) -> bool:
        return bool(pc.any(pc.match_substring_regex(column, digits)).as_py())

    return next((unit for unit, digits in _FRACTIONS.items() if any_match(digits)), "s")


def first_in_unit(column: pa.ChunkedArray, unit: str) -> int:
    """Return the row of the first date whose fraction of a second needs this unit (ms, us or ns), or -1."""
    return int(pc.index(pc.match_substring_regex(column, _FRACTIONS[unit]), True).as_py())


def from_dates(column: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """Convert dates to int64 in the unit, since 1970 in UTC.

    Raises:
        pa.ArrowInvalid: a date is not in the calendar, or needs more than 64 bits.
    """
    zone = pc.if_else(pc.match_substring_regex(column, _ZONED), "", "Z")
    ending = pc.if_else(pc.match_substring_regex(column, _DAY), "T00:00:00Z", zone).cast(pa.large_string())
    complete = pc.binary_join_element_wise(column, ending, pa.scalar("", pa.large_string()))
    return complete.cast(pa.timestamp(unit, "UTC")).cast(pa.int64())


def nanoseconds(text: str) -> int | None:
    """Return the nanoseconds from 1970 to a date, or None if the text is not written as one.

    Raises:
        pa.ArrowInvalid: as `from_dates`.
    """
    column = pa.chunked_array([[text]], pa.large_string())
    if not are_dates(column)[0].as_py():
        return None
    unit = unit_of_dates(column)
    return from_dates(column, unit)[0].as_py() * (PER_SECOND["ns"] // PER_SECOND[unit])
