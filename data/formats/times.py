"""Converts timestamps of all formats to int64 exactly, and refuses those that may have been rounded.

Numbers and Arrow's timestamps keep their unit. Dates, as text or in Arrow's date types, become seconds since 1970 in
UTC. If a column has fractions of seconds, they become milliseconds, microseconds or nanoseconds, whichever is the
coarsest unit that is exact for the whole column. A date or time without a zone is in UTC.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.columns import as_text, decoded, is_text

# Name of each float type, and the number of bits b such that all whole numbers up to 2^b are exact, but not 2^b + 1.
_FLOATS = {pa.float16(): ("float16", 11), pa.float32(): ("float32", 24), pa.float64(): ("float64", 53)}
_DECIMAL = pa.decimal128(38, 18)  # keeps fractions that float64 would round away, so that they can be refused

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
    """Return timestamps as int64, and their unit (s, ms, us, ns) if the column tells it, else None.

    Raises:
        InputError: a value is neither a whole number of 64 bits nor a date, or may have been rounded; names the first
            such value.
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
    """Convert a column of text, which must have only numbers or only dates: numbers do not tell their unit."""
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
    """Check that numbers that are or were floats are below 2^bits, because larger ones may have been rounded.

    Args:
        column: the numbers.
        bits: see above.
        where: why they are floats, for the message.
        file: the file's name, for the message.
        name: the column's name, for the message.

    Raises:
        InputError: a number is not below 2^bits.
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
    """Convert chunk by chunk, so that intermediate results stay small."""
    try:
        chunks = [chunk for part in column.chunks for chunk in convert(pa.chunked_array([part])).chunks]
        return pa.chunked_array(chunks, pa.int64())
    except pa.ArrowInvalid:
        place = _place(column, _first_refused(column, convert), file, name)
        if unit is not None:
            raise InputError(
                f"{place}, which is not in the calendar or needs more than 64 bits of {_UNITS[unit]}; correct it"
            ) from None
        raise InputError(f"{place}, expected a whole number of 64 bits; use whole seconds or milliseconds") from None


def _place(column: pa.ChunkedArray, row: int, file: str, name: str) -> str:
    value = f"{column[row].as_py()!r:.100}"
    return f"{file}: column {name} is {value} in row {row + 1} of {len(column)} (header not counted)"


def _first_refused(column: pa.ChunkedArray, convert: Convert) -> int:
    """Return the first row that cannot be converted, by bisection, which converts at most two columns' rows."""
    first, last = 0, len(column)
    while last - first > 1:
        middle = (first + last) // 2
        try:
            convert(column.slice(first, middle - first))
            first = middle
        except pa.ArrowInvalid:
            last = middle
    return first
