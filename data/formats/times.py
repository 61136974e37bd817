"""Timestamps of tables of any format as int64: exact, or refused.

Numbers keep their unit, whatever it is. So do Arrow's own timestamps. Dates, as text or as Arrow's date types, become
seconds since 1970 in UTC, or the coarsest of milliseconds, microseconds and nanoseconds that holds every fraction of a
second in the column. A date or time without a zone is in UTC.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.columns import as_text, decoded, is_text

# Whole numbers below these have a float of their own. The next larger whole number has none.
_FLOATS = {pa.float16(): ("float16", 11), pa.float32(): ("float32", 24), pa.float64(): ("float64", 53)}
_DECIMAL = pa.decimal128(38, 18)  # a fraction that float64 would round away is seen

_DIGITS = r"^-?[0-9]+$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"  # RecBole writes floats, such as 1.3e9
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_MOMENT = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}(\.[0-9]{{1,9}})?)?{_ZONE}?$"
_ZONED = rf":[0-9]{{2}}(\.[0-9]+)?{_ZONE}$"
_FRACTIONS = {"ns": r"\.[0-9]{7}", "us": r"\.[0-9]{4}", "ms": r"\.[0-9]"}  # finest first
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_EXPECTED = "whole numbers or dates; use whole seconds or milliseconds, or dates such as 2024-05-01T12:00:00Z"

Convert = Callable[[pa.ChunkedArray], pa.ChunkedArray]


def as_times(column: pa.ChunkedArray, file: str, name: str) -> tuple[pa.ChunkedArray, str | None]:
    """Timestamps as int64, and their unit (s, ms, us, ns) where the column tells it.

    Raises:
        InputError: a value that is no whole number of 64 bits and no date, or that may have been rounded; names the
            first.
    """
    column = decoded(column)
    kind = column.type
    if is_text(kind):
        return _from_text(as_text(column, file, name), file, name)
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()), kind.unit
    if pa.types.is_date(kind):
        return _converted(column, lambda days: days.cast(pa.timestamp("s")).cast(pa.int64()), file, name), "s"
    if kind in _FLOATS:
        type_name, bits = _FLOATS[kind]
        _check_exact(column, bits, f"as {type_name}", file, name)
        return _converted(column.cast(pa.float64()), _to_int, file, name), None
    if not (pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise InputError(f"{file}: column {name} is {kind}, expected {_EXPECTED}")
    return _converted(column, _to_int, file, name), None


def _to_int(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.int64())


def _from_text(column: pa.ChunkedArray, file: str, name: str) -> tuple[pa.ChunkedArray, str | None]:
    """A column of text holds numbers or dates, never both: nothing says what unit its numbers have."""
    if pc.all(pc.match_substring_regex(column, _DIGITS)).as_py() is not False:  # the usual case, and the fast one
        return _converted(column, _to_int, file, name), None
    is_number = pc.match_substring_regex(column, _NUMBER)
    is_date = pc.or_(pc.match_substring_regex(column, _DAY), pc.match_substring_regex(column, _MOMENT))
    row = pc.index(pc.or_(is_number, is_date), False).as_py()  # nulls are not False
    if row >= 0:
        raise InputError(f"{_place(column, row, file, name)}, expected {_EXPECTED}")
    if not pc.any(is_date).as_py():
        _check_exact(column, 53, "in a column with points or exponents", file, name)
        return _converted(column, lambda text: _to_int(text.cast(_DECIMAL)), file, name), None
    if pc.any(is_number).as_py():
        row = max(pc.index(is_number, True).as_py(), pc.index(is_date, True).as_py())
        raise InputError(f"{_place(column, row, file, name)}; the column mixes numbers and dates, write one of the two")
    unit = next((unit for unit, digits in _FRACTIONS.items() if _any_match(column, digits)), "s")
    return _converted(column, lambda dates: _from_dates(dates, unit), file, name, unit), unit


def _any_match(column: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())


def _from_dates(column: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    zone = pc.if_else(pc.match_substring_regex(column, _ZONED), "", "Z")
    ending = pc.if_else(pc.match_substring_regex(column, _DAY), "T00:00:00Z", zone).cast(pa.large_string())
    complete = pc.binary_join_element_wise(column, ending, pa.scalar("", pa.large_string()))
    return complete.cast(pa.timestamp(unit, "UTC")).cast(pa.int64())


def _check_exact(column: pa.ChunkedArray, bits: int, where: str, file: str, name: str) -> None:
    """Numbers that are or were floats are below 2^bits; a larger one may stand for several whole numbers.

    Args:
        where: what makes them floats.
    """
    size = pc.abs(column.cast(pa.float64()))
    row = pc.index(pc.and_(pc.greater_equal(size, 2.0**bits), pc.is_finite(size)), True).as_py()
    if row >= 0:
        raise InputError(
            f"{_place(column, row, file, name)} {where}, exact only below 2^{bits}; "
            "write all of it as int64 or in whole digits"
        )


def _converted(
    column: pa.ChunkedArray, convert: Convert, file: str, name: str, unit: str | None = None
) -> pa.ChunkedArray:
    """Each chunk converted, so that what a conversion needs in between is small."""
    try:
        chunks = [chunk for part in column.chunks for chunk in convert(pa.chunked_array([part])).chunks]
        return pa.chunked_array(chunks, pa.int64())
    except pa.ArrowInvalid:
        place = _place(column, _first_refused(column, convert), file, name)
        if unit is not None:
            raise InputError(
                f"{place}, no date or time of the calendar, or beyond 64 bits of {_UNITS[unit]}; correct it"
            ) from None
        raise InputError(f"{place}, expected a whole number of 64 bits; use whole seconds or milliseconds") from None


def _place(column: pa.ChunkedArray, row: int, file: str, name: str) -> str:
    value = f"{column[row].as_py()!r:.100}"
    return f"{file}: column {name} is {value} in row {row + 1} of {len(column)} (header not counted)"


def _first_refused(column: pa.ChunkedArray, convert: Convert) -> int:
    """The first row that cannot be converted, by halving; what is converted is twice the column at most."""
    first, last = 0, len(column)
    while last - first > 1:
        middle = (first + last) // 2
        try:
            convert(column.slice(first, middle - first))
            first = middle
        except pa.ArrowInvalid:
            last = middle
    return first
