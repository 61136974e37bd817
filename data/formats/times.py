"""Converts the timestamps of a block to int64 exactly, and refuses those that may have been rounded.

Numbers and Arrow's timestamps keep their unit. Dates, as text or in Arrow's date types, become seconds since 1970 in
UTC. If a block has fractions of seconds, its dates become milliseconds, microseconds or nanoseconds, whichever is the
coarsest unit that is exact for all of them. A date or time without a zone is in UTC. `time_kinds` has the rules that
hold for all blocks together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.columns import as_text, decoded, is_text
from data.formats.dates import are_dates, first_in_unit, from_dates, unit_of_dates
from data.formats.places import Places
from data.formats.time_kinds import UNITS, TimeKind, check_units, told_units

# Name of each float type, and the number of bits b such that all whole numbers up to 2^b are exact, but not 2^b + 1.
_FLOATS = {pa.float16(): ("float16", 11), pa.float32(): ("float32", 24), pa.float64(): ("float64", 53)}
_DECIMAL = pa.decimal128(38, 18)  # keeps fractions that float64 would round away, so that they can be refused
_EXACT = 2**53

_DIGITS = r"^-?[0-9]+$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"  # RecBole writes floats, such as 1.3e9
_EXPECTED = "whole numbers or dates; use whole seconds or milliseconds, or dates such as 2024-05-01T12:00:00Z"
_DATE_LIKE = re.compile(r"[0-9]+[/.-][0-9]+[/.-][0-9]|[0-9]:[0-9]{2}|[0-9]{4}/[0-9]|[A-Za-z]{3}.*[0-9]")
_DIRECTIVES = frozenset("YmdHIMSpbByzaATDF%")

Convert = Callable[[pa.ChunkedArray], pa.ChunkedArray]


@dataclass(frozen=True, kw_only=True)
class TimeRule:
    """What the user says about timestamps.

    Attributes:
        unit: the unit of numbers: s, ms, us or ns; None: the numbers tell it, if they do.
        format: how dates are written, as for strptime; None: as ISO 8601 says.
    """

    unit: str | None = None
    format: str | None = None

    def check(self) -> None:
        """Raise InputError if the format has a directive that is not supported, or both are given."""
        if self.format is None:
            return
        if self.unit is not None:
            raise InputError("--time-unit is for numbers and --time-format for dates; give one of the two")
        found = re.findall("%(.?)", self.format)
        if not found or (wrong := [name for name in found if name not in _DIRECTIVES]):
            problem = f"%{wrong[0]} is not supported" if found else "has no % directive"
            raise InputError(
                f"--time-format {self.format!r}: {problem}; use %Y %m %d %H %I %M %S %p %b %B %y %a %A %z, "
                "as in %m/%d/%Y %I:%M:%S %p"
            )


def block_times(
    column: pa.ChunkedArray, name: str, places: Places, rule: TimeRule, *, is_typed: bool
) -> tuple[pa.ChunkedArray, TimeKind]:
    """Return a block's timestamps as int64 with nulls, and what they are.

    Args:
        column: the timestamps as they were read.
        name: the column's name, for messages.
        places: where the rows are, for messages.
        rule: what the user says about timestamps.
        is_typed: whether the file says the column's type, as Parquet does. Otherwise floats were written with a point
            or an exponent, and all numbers of the column may have been rounded.

    Raises:
        InputError: a value is neither a whole number of 64 bits nor a date, or may have been rounded; or numbers are
            in two units or not in the declared one. Names the first such value.
    """
    column = decoded(column)
    if is_text(column.type):
        column = as_text(column, places.file, name)
    elif rule.format is not None and not pa.types.is_null(column.type):
        raise InputError(f"{places.file}: column {name} is {column.type}, and --time-format reads text; leave it out")
    times, kind = _convert(column, name, places, rule)
    if not is_typed and not is_text(column.type):
        is_whole = pa.types.is_integer(column.type)
        large = _large_number(times, column, name, places) if is_whole else None
        kind = replace(kind, large=large, has_points=not is_whole)
    valid = np.flatnonzero(times.is_valid().to_numpy()) if times.null_count else None
    if valid is not None and not len(valid):
        return times, TimeKind()
    if not len(times):
        return times, TimeKind()
    first = 0 if valid is None else int(valid[0])
    kind = replace(kind, first=places.value(column, first, name, is_exact=False))
    if kind.unit is not None:
        if rule.unit is not None:
            raise InputError(
                f"{places.value(column, first, name)}, a date, and --time-unit is the unit of numbers; leave it out"
            )
        return times, kind
    numbers = times.drop_null().to_numpy()

    def place(index: int, is_exact: bool = False) -> str:
        return places.value(column, index if valid is None else int(valid[index]), name, is_exact=is_exact)

    told, is_silent = told_units(numbers)
    kind = replace(
        kind,
        told=tuple((unit, place(index)) for unit, index in told.items()),
        is_silent=is_silent,
        declared=rule.unit,
    )
    if len(told) > 1 or (told and rule.unit is not None and rule.unit not in told):  # count rows for the message
        check_units(replace(kind, told=tuple((unit, place(index, True)) for unit, index in told.items())))
    return times, kind


def _convert(column: pa.ChunkedArray, name: str, places: Places, rule: TimeRule) -> tuple[pa.ChunkedArray, TimeKind]:
    """Convert a column by its type. The kind lacks `first` and what `told_units` finds."""
    kind = column.type
    if is_text(kind):
        if rule.format is not None:
            return from_format(column, name, places, rule.format), TimeKind(unit="s")
        return _from_text(column, name, places)
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()), TimeKind(unit=kind.unit)
    if pa.types.is_date(kind):
        days = converted(column, lambda part: part.cast(pa.timestamp("s")).cast(pa.int64()), name, places)
        return days, TimeKind(unit="s")
    if kind in _FLOATS:
        type_name, bits = _FLOATS[kind]
        _check_exact(column, bits, f"as {type_name}", name, places)
        return converted(column.cast(pa.float64()), _to_int, name, places), TimeKind()
    if not (pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise InputError(f"{places.file}: column {name} is {kind}, expected {_EXPECTED}")
    return converted(column, _to_int, name, places), TimeKind()


def _to_int(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.int64())


def _from_text(column: pa.ChunkedArray, name: str, places: Places) -> tuple[pa.ChunkedArray, TimeKind]:
    """Convert a column of text, which must have only numbers or only dates: numbers do not tell their unit."""
    is_digits = pc.match_substring_regex(column, _DIGITS)
    if pc.all(is_digits).as_py() is not False:  # the usual case, and the fast one
        times = converted(column, _to_int, name, places)
        return times, TimeKind(large=_large_number(times, column, name, places))
    is_number = pc.match_substring_regex(column, _NUMBER)
    is_date = are_dates(column)
    row = pc.index(pc.or_(is_number, is_date), False).as_py()  # nulls are not False
    if row >= 0:
        is_date = bool(_DATE_LIKE.search(column[row].as_py()))
        way_out = "; for dates written in another way, --time-format says how" if is_date else ""
        raise InputError(f"{places.value(column, row, name)}, expected {_EXPECTED}{way_out}")
    if not pc.any(is_date).as_py():
        _check_exact(column, 53, "in a column with points or exponents", name, places)
        return converted(column, lambda text: _to_int(text.cast(_DECIMAL)), name, places), TimeKind(has_points=True)
    if pc.any(is_number).as_py():
        row = max(pc.index(is_number, True).as_py(), pc.index(is_date, True).as_py())
        raise InputError(f"{places.value(column, row, name)}; the column mixes numbers and dates, write one of the two")
    unit = unit_of_dates(column)
    times = converted(column, lambda dates: from_dates(dates, unit), name, places, unit)
    if unit == "s":
        return times, TimeKind(unit=unit)
    return times, TimeKind(unit=unit, finest=places.value(column, first_in_unit(column, unit), name, is_exact=False))


def _large_number(times: pa.ChunkedArray, column: pa.ChunkedArray, name: str, places: Places) -> str | None:
    """Return the place and value of the first number of 2^53 or more, or None."""
    if not len(times) or times.null_count == len(times):
        return None
    least, most = pc.min_max(times).as_py().values()
    if least > -_EXACT and most < _EXACT:
        return None
    is_large = pc.or_(pc.greater_equal(times, _EXACT), pc.less_equal(times, -_EXACT))
    return places.value(column, pc.index(is_large, True).as_py(), name, is_exact=False)


def from_format(column: pa.ChunkedArray, name: str, places: Places, pattern: str) -> pa.ChunkedArray:
    """Convert dates that are written as the pattern says to seconds: int64 with nulls.

    Args:
        column: the dates as large_string.
        name: the column's name, for messages.
        places: where the rows are, for messages.
        pattern: as for strptime.

    Raises:
        InputError: a text is not written so; names the first.
    """
    times = pc.strptime(column, format=pattern, unit="s", error_is_null=True)
    refused = pc.and_(pc.is_null(times), pc.is_valid(column))
    row = pc.index(refused, True).as_py()
    if row < 0 and "%z" not in pattern:
        row = _first_moved(column, times, pattern)
    if row >= 0:
        raise InputError(f"{places.value(column, row, name)}, which is not a date written as {pattern!r}; correct it")
    return times.cast(pa.int64())


def _first_moved(column: pa.ChunkedArray, times: pa.ChunkedArray, pattern: str) -> int:
    """Return the first date that is not in the calendar, such as February 30, which strptime reads as March 2; or -1.

    Such dates become one of the first three days of a month.
    """
    rows = np.flatnonzero(pc.fill_null(pc.less_equal(pc.day(times), 3), False).to_numpy())
    if not len(rows):
        return -1
    written, read = column.take(pa.array(rows)), pc.strftime(times.take(pa.array(rows)), format=pattern)
    plain = [pc.replace_substring_regex(pc.utf8_lower(text), r"\b0+([0-9])", r"\1") for text in (written, read)]
    moved = pc.index(pc.equal(plain[0].cast(pa.large_string()), plain[1].cast(pa.large_string())), False).as_py()
    return int(rows[moved]) if moved >= 0 else -1


def _check_exact(column: pa.ChunkedArray, bits: int, where: str, name: str, places: Places) -> None:
    """Check that numbers that are or were floats are below 2^bits, because larger ones may have been rounded.

    Args:
        column: the numbers.
        bits: see above.
        where: why they are floats, for the message.
        name: the column's name, for the message.
        places: where the rows are, for the message.

    Raises:
        InputError: a number is not below 2^bits.
    """
    size = pc.abs(column.cast(pa.float64()))
    row = pc.index(pc.and_(pc.greater_equal(size, 2.0**bits), pc.is_finite(size)), True).as_py()
    if row >= 0:
        raise InputError(
            f"{places.value(column, row, name)} {where}, exact only below 2^{bits}; "
            "write all of it as int64 or in whole digits"
        )


def converted(
    column: pa.ChunkedArray, convert: Convert, name: str, places: Places, unit: str | None = None
) -> pa.ChunkedArray:
    """Convert to int64, chunk by chunk so that intermediate results stay small.

    Args:
        column: the values.
        convert: converts them or raises pa.ArrowInvalid.
        name: the column's name, for the message.
        places: where the rows are, for the message.
        unit: the unit that dates are converted to; None: the values are no dates.

    Raises:
        InputError: a value cannot be converted; names the first.
    """
    try:
        chunks = [chunk for part in column.chunks for chunk in convert(pa.chunked_array([part])).chunks]
        return pa.chunked_array(chunks, pa.int64())
    except pa.ArrowInvalid:
        place = places.value(column, _first_refused(column, convert), name)
        if unit is not None:
            raise InputError(
                f"{place}, which is not in the calendar or needs more than 64 bits of {UNITS[unit]}; correct it"
            ) from None
        raise InputError(f"{place}, expected a whole number of 64 bits; use whole seconds or milliseconds") from None


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
