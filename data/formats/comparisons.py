"""Comparisons of columns with numbers and moments: exact for whole numbers, in float64 for others."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

Compare = Callable[[pa.ChunkedArray, pa.Scalar], pa.ChunkedArray]

ORDERS: dict[str, Compare] = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WHOLE = r"^[+-]?[0-9]{1,37}$"  # what `_DECIMAL` holds
_DECIMAL = pa.decimal128(38, 0)
_LARGEST = 10**37
# For = and in, longer text with a point or an exponent may be an id that float64 would round.
_LONGEST_FRACTION = 15
_TEXT = pa.large_string()


def is_number(text: str) -> bool:
    """Return whether a condition's value is a number. Decimal does not hold exponents of 20 digits."""
    return re.match(NUMBER, text) is not None and re.search("[eE][+-]?[0-9]{7}", text) is None


def compare_wholes(column: pa.ChunkedArray, order: str | None, numbers: Sequence[Decimal]) -> pa.ChunkedArray:
    """Compare whole numbers exactly, also with fractions.

    Args:
        column: integers, or decimals without fractions.
        order: `<`, `<=`, `>` or `>=`, for one number; None: whether a value equals one of the numbers.
        numbers: what the values are compared with.
    """
    floors = [_floor(number) for number in numbers]
    if not pa.types.is_decimal(column.type):
        is_small = column.type != pa.uint64() and all(-(2**63) <= floor < 2**63 for floor, _ in floors)
        column = column.cast(pa.int64() if is_small else _DECIMAL)
    elif column.type.precision <= _DECIMAL.precision:
        column = column.cast(_DECIMAL)

    def scalar(floor: int) -> pa.Scalar:
        return pa.scalar(floor if pa.types.is_integer(column.type) else Decimal(floor), column.type)

    if order is not None:
        floor, is_exact = floors[0]
        # Below a fraction are the whole numbers up to its floor, and above it those beyond.
        compare = ORDERS[order] if is_exact else pc.less_equal if order in ("<", "<=") else pc.greater
        return compare(column, scalar(floor))
    exact = [scalar(floor) for floor, is_exact in floors if is_exact]
    found = pa.chunked_array([pa.repeat(pa.scalar(False), len(column))])
    for value in exact:
        found = pc.or_(found, pc.fill_null(pc.equal(column, value), False))
    return found


def _floor(number: Decimal) -> tuple[int, bool]:
    """Return the largest whole number that is not above a number, within bounds, and whether it equals the number."""
    if number.copy_abs() >= _LARGEST:  # its digits may be too many to write down, as those of 1e999999999
        return (_LARGEST if number > 0 else -_LARGEST), False
    floor = math.floor(number)
    return floor, floor == number


def compare_floats(column: pa.ChunkedArray, order: str | None, numbers: Sequence[Decimal]) -> pa.ChunkedArray:
    """As `compare_wholes`, in float64."""
    column = column.cast(pa.float64())
    if order is not None:
        return ORDERS[order](column, pa.scalar(_float(numbers[0])))
    found = pa.chunked_array([pa.repeat(pa.scalar(False), len(column))])
    for number in numbers:
        if math.isfinite(_float(number)):  # otherwise too large, and all such numbers would be equal
            found = pc.or_(found, pc.fill_null(pc.equal(column, pa.scalar(_float(number))), False))
    return found


def _float(number: Decimal) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


def compare_text(column: pa.ChunkedArray, order: str | None, numbers: Sequence[Decimal]) -> pa.ChunkedArray:
    """As `compare_wholes`, for numbers as text (large_string). Other text is less, equal and greater than none."""
    is_whole = pc.match_substring_regex(column, _WHOLE)
    wholes = pc.utf8_ltrim(pc.if_else(is_whole, column, pa.scalar(None, _TEXT)), characters="+")
    found = pc.fill_null(compare_wholes(_wholes(wholes), order, numbers), False)
    if pc.all(is_whole).as_py() is not False:
        return found
    is_other = pc.and_(pc.match_substring_regex(column, NUMBER), pc.invert(is_whole))
    if order is None:
        is_other = pc.and_(is_other, pc.less_equal(pc.utf8_length(column), _LONGEST_FRACTION))
    others = pc.if_else(is_other, column, pa.scalar(None, _TEXT)).cast(pa.float64())
    return pc.or_(found, pc.fill_null(compare_floats(others, order, numbers), False))


def _wholes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:  # a number needs more than 64 bits
        return column.cast(_DECIMAL)
