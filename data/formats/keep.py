"""Conditions on rows: `rating >= 4`, `event = view`, `event in (view, addtocart)`.

If the column and the value are numbers they are compared as numbers, otherwise as text. A row whose value is missing
holds no condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.columns import as_text, decoded, is_text
from data.formats.places import Places

_FORM = re.compile(
    r"""\s*(?:"(?P<quoted>[^"]+)"|(?P<plain>[^\s"'=!<>(),]+))\s*"""
    r"(?:(?P<sign>!=|<=|>=|==|=|<|>)\s*(?P<value>.*?)|(?P<within>in)\s*\((?P<values>.*)\))\s*",
    re.DOTALL,
)
_VALUE = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^"',]+?))\s*(,|$)""")
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_ORDERS: dict[str, Callable[[pa.ChunkedArray, pa.Scalar], pa.ChunkedArray]] = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
# Longer text may be an id of digits that float64 would round.
_LONGEST_NUMBER = 15


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition on the value of a column.

    Attributes:
        text: the condition as the user wrote it.
        column: the column's name.
        operator: `=`, `!=`, `<`, `<=`, `>`, `>=` or `in`.
        values: the value that the column's is compared with; several for `in`.
    """

    text: str
    column: str
    operator: str
    values: tuple[str, ...]

    def holds(self, column: pa.ChunkedArray, places: Places) -> np.ndarray:
        """Return which rows hold the condition: bool [rows].

        Raises:
            InputError: the column is neither text nor numbers, or an order of numbers is asked of a value that is none.
        """
        column = decoded(column)
        kind = column.type
        if pa.types.is_boolean(kind):
            column = column.cast(pa.large_string())
        elif pa.types.is_temporal(kind):
            column = column.cast(pa.string()).cast(pa.large_string())
        elif is_text(kind):
            column = as_text(column, places.file, self.column)
        elif pa.types.is_null(kind):
            return np.zeros(len(column), bool)
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise InputError(
                f"{places.file}: column {self.column} is {kind}, and --keep {self.text!r} compares text or numbers; "
                "name another column"
            )
        compare = self._in_order if self.operator in _ORDERS else self._equal
        return pc.fill_null(compare(column, places), False).to_numpy()

    def _in_order(self, column: pa.ChunkedArray, places: Places) -> pa.ChunkedArray:
        value, compare = self.values[0], _ORDERS[self.operator]
        if not is_text(column.type):
            if not re.match(_NUMBER, value):
                raise InputError(
                    f"{places.file}: column {self.column} is {column.type}, and --keep {self.text!r} compares it with "
                    f"{value!r}; write a number"
                )
            return compare(column, _number(value, column.type))
        if not re.match(_NUMBER, value):
            return compare(column, pa.scalar(value, pa.large_string()))
        row = pc.index(pc.match_substring_regex(column, _NUMBER), False).as_py()
        if row >= 0:
            raise InputError(
                f"{places.value(column, row, self.column)}, which is no number, and --keep {self.text!r} compares "
                "numbers; correct the row, or compare with = or !="
            )
        return compare(column.cast(pa.float64()), pa.scalar(float(value)))

    def _equal(self, column: pa.ChunkedArray, _places: Places) -> pa.ChunkedArray:
        """Compare each value as text, and as a number where it and the condition's value are numbers."""
        numbers = [value for value in self.values if re.match(_NUMBER, value) and len(value) <= _LONGEST_NUMBER]
        if is_text(column.type):
            found = pc.is_in(column, value_set=pa.array(self.values, pa.large_string()))
            short = pc.less_equal(pc.utf8_length(column), _LONGEST_NUMBER)
            if numbers:
                is_number = pc.and_(pc.match_substring_regex(column, _NUMBER), short)
                floats = pc.if_else(is_number, column, pa.scalar(None, pa.large_string())).cast(pa.float64())
                found = pc.or_(
                    found, pc.is_in(floats, value_set=pa.array([float(x) for x in numbers]), skip_nulls=True)
                )
        else:
            # A value that is no number equals none.
            found = pa.chunked_array([pa.repeat(pa.scalar(False), len(column))])
            for value in self.values:
                if re.match(_NUMBER, value):
                    found = pc.or_(found, pc.fill_null(pc.equal(column, _number(value, column.type)), False))
        found = pc.invert(found) if self.operator == "!=" else found
        return pc.and_(found, pc.is_valid(column))


def _number(value: str, kind: pa.DataType) -> pa.Scalar:
    """Return a number for comparisons with a column: whole numbers stay exact."""
    if pa.types.is_integer(kind) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return pa.scalar(int(value), pa.int64())
    return pa.scalar(float(value))


def parse_condition(text: str) -> Condition:
    """Return the condition that a text says.

    Raises:
        InputError: the text is no condition.
    """
    found = _FORM.fullmatch(text)
    values = _values(text, found["values"] if found["within"] else found["value"]) if found else ()
    if found is None or not values or (len(values) > 1 and not found["within"]):
        raise InputError(
            f"--keep {text!r}: is no condition; write COLUMN OPERATOR VALUE with one of = != < <= > >=, such as "
            "'rating >= 4', or 'event in (view, addtocart)'"
        )
    sign = "in" if found["within"] else found["sign"].replace("==", "=")
    return Condition(text=text, column=found["quoted"] or found["plain"], operator=sign, values=values)


def _values(text: str, listed: str) -> tuple[str, ...]:
    """Return the values of a list separated by commas; quotes allow commas and spaces at the ends of a value."""
    values, place = [], 0
    while found := _VALUE.match(listed, place):
        values.append(next(part for part in found.groups()[:3] if part is not None))
        place = found.end()
        if found[4] == "":
            return tuple(values)
    if listed.strip():
        raise InputError(f"--keep {text!r}: cannot read {listed[place:].strip()!r}; put a value with commas in quotes")
    return ()
