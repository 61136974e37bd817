"""Conditions on rows: `rating >= 4`, `event = view`, `event in (view, addtocart)`, `timestamp >= 2024-05-01`.

If the column's and the condition's values are numbers, they are compared as numbers; if they are dates, as moments;
otherwise as text. A row whose value is missing holds no condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.columns import as_text, decoded, is_text
from data.formats.comparisons import NUMBER, ORDERS, compare_floats, compare_text, compare_wholes, is_number
from data.formats.dates import are_dates, from_dates, nanoseconds, unit_of_dates
from data.formats.places import Places
from data.formats.time_kinds import PER_SECOND
from data.formats.times import converted, from_format

_TEXT = pa.large_string()
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition on the value of a column.

    Attributes:
        text: the condition as the user wrote it.
        column: the column's name.
        operator: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `not in`.
        values: the value that the column's is compared with; several for `in` and `not in`.
    """

    text: str
    column: str
    operator: str
    values: tuple[str, ...]

    def holds(self, column: pa.ChunkedArray, places: Places, time_format: str | None = None) -> np.ndarray:
        """Return which rows hold the condition: bool [rows].

        Args:
            column: the values.
            places: where the rows are, for messages.
            time_format: how dates in the column are written, as for strptime; None: as ISO 8601 says.

        Raises:
            InputError: the column is of a type that cannot be compared, or not with the condition's value; or an order
                is asked of a value of the column that is no number, or no date.
        """
        column = decoded(column)
        kind = column.type
        if pa.types.is_null(kind):
            return np.zeros(len(column), bool)
        if pa.types.is_time(kind) or pa.types.is_duration(kind):
            column = column.cast(pa.large_string())
        elif is_text(kind):
            column = as_text(column, places.file, self.column)
        if time_format is not None and is_text(kind) and (dates := _dates_of(self.values)):
            found = self._written_dates(column, places, dates, time_format)
        else:
            found = self._found(column, places)
        found = pc.fill_null(found, False)
        if self.operator in ("!=", "not in"):
            found = pc.invert(found)
        return pc.and_(found, pc.is_valid(column)).to_numpy()

    def _found(self, column: pa.ChunkedArray, places: Places) -> pa.ChunkedArray:
        """Return which values are in the order that is asked, or equal one of the condition's values."""
        kind = column.type
        if pa.types.is_boolean(kind):
            return self._flags(column, places)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return self._moments(column, places)
        if is_text(kind):
            return self._texts(column, places)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return self._numbers(column, places)
        raise InputError(
            f"{places.file}: column {self.column} is {kind}, and --keep {self.text!r} compares text, numbers or "
            "dates; name another column"
        )

    @property
    def _order(self) -> str | None:
        return self.operator if self.operator in ORDERS else None

    def _numbers(self, column: pa.ChunkedArray, places: Places) -> pa.ChunkedArray:
        numbers = _numbers_of(self.values)
        if self._order and not numbers:
            raise self._refused(column, places, "write a number")
        is_whole = pa.types.is_integer(column.type) or (pa.types.is_decimal(column.type) and column.type.scale == 0)
        compare = compare_wholes if is_whole else compare_floats
        return compare(column, self._order, numbers)

    def _flags(self, column: pa.ChunkedArray, places: Places) -> pa.ChunkedArray:
        if self._order or any(value.lower() not in _FLAGS for value in self.values):
            raise self._refused(column, places, "compare with = true or = false")
        return pc.is_in(column, value_set=pa.array([_FLAGS[value.lower()] for value in self.values]), skip_nulls=True)

    def _moments(self, column: pa.ChunkedArray, places: Places) -> pa.ChunkedArray:
        dates = _dates_of(self.values)
        if len(dates) < len(self.values):
            raise self._refused(column, places, "write a date such as 2024-05-01 or 2024-05-01T12:00:00Z")
        kind = column.type
        unit = kind.unit if pa.types.is_timestamp(kind) else "s"
        times = (column if pa.types.is_timestamp(kind) else column.cast(pa.timestamp("s"))).cast(pa.int64())
        return self._times(times, unit, dates)

    def _times(self, times: pa.ChunkedArray, unit: str, dates: list[int]) -> pa.ChunkedArray:
        """Compare times in a unit with dates in nanoseconds."""
        in_unit = [Decimal(date).scaleb(-_DIGITS[unit]) for date in dates]
        return compare_wholes(times, self._order, in_unit)

    def _texts(self, column: pa.ChunkedArray, places: Places) -> pa.ChunkedArray:
        numbers, dates = _numbers_of(self.values), _dates_of(self.values)
        if self._order:
            self._check_order(column, places, is_date=bool(dates))
            return self._dates(column, places, dates) if dates else compare_text(column, self._order, numbers)
        found = pc.is_in(column, value_set=pa.array(self.values, _TEXT))
        flags = [value.lower() for value in self.values if value.lower() in ("true", "false")]
        if flags:
            found = pc.or_(found, pc.is_in(pc.utf8_lower(column), value_set=pa.array(flags, _TEXT)))
        if numbers:
            found = pc.or_(found, compare_text(column, None, numbers))
        if dates:
            others = pc.if_else(are_dates(column), column, pa.scalar(None, _TEXT))
            found = pc.or_(found, self._dates(others, places, dates))
        return found

    def _dates(self, column: pa.ChunkedArray, places: Places, dates: list[int]) -> pa.ChunkedArray:
        unit = unit_of_dates(column)
        times = converted(column, lambda text: from_dates(text, unit), self.column, places, unit)
        return pc.fill_null(self._times(times, unit, dates), False)

    def _written_dates(
        self, column: pa.ChunkedArray, places: Places, dates: list[int], time_format: str
    ) -> pa.ChunkedArray:
        """As `_texts`, for dates that are written in another way than the condition's."""
        if self._order:
            return self._times(from_format(column, self.column, places, time_format), "s", dates)
        times = pc.strptime(column, format=time_format, unit="s", error_is_null=True).cast(pa.int64())
        return pc.or_(pc.fill_null(self._times(times, "s", dates), False), self._texts(column, places))

    def _check_order(self, column: pa.ChunkedArray, places: Places, *, is_date: bool) -> None:
        """Raise InputError for the first value that has no order to a date or a number."""
        row = pc.index(are_dates(column) if is_date else _are_numbers(column), False).as_py()
        if row >= 0:
            what, other = ("date", "number") if is_date else ("number", "date")
            first = column.slice(row, 1)
            is_other = (_are_numbers if is_date else are_dates)(first)[0].as_py()
            next_move = f"write a {other}" if is_other else "correct the row, or compare with = or !="
            raise InputError(
                f"{places.value(column, row, self.column)}, which is no {what}, and --keep {self.text!r} compares "
                f"{what}s; {next_move}"
            )

    def _refused(self, column: pa.ChunkedArray, places: Places, next_move: str) -> InputError:
        values = ", ".join(map(repr, self.values))
        return InputError(
            f"{places.file}: column {self.column} is {column.type}, and --keep {self.text!r} compares it with "
            f"{values}; {next_move}"
        )


# For each unit, the number of digits between it and nanoseconds.
_DIGITS = {unit: len(str(PER_SECOND["ns"] // per_second)) - 1 for unit, per_second in PER_SECOND.items()}


def _are_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(column, NUMBER)


def _numbers_of(values: tuple[str, ...]) -> list[Decimal]:
    return [Decimal(value) for value in values if is_number(value)]


def _dates_of(values: tuple[str, ...]) -> list[int]:
    """Return the dates in nanoseconds since 1970."""
    return [found for value in values if (found := nanoseconds(value)) is not None]
