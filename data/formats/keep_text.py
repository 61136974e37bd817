"""Reads what `--keep` says: a column's name, an operator and a value, or `in` and a list of values."""

from __future__ import annotations

import re

import pyarrow as pa

from contracts.errors import InputError
from data.formats.comparisons import ORDERS, is_number
from data.formats.dates import nanoseconds
from data.formats.keep import Condition

_QUOTED = r"""(?:"[^"]*"|'[^']*')"""
_FORM = re.compile(
    rf"""\s*(?P<column>{_QUOTED}|[^\s"'=!<>(),]+)\s*"""
    r"""(?:(?P<sign>[=!<>]+)\s*(?P<value>.*?)|(?<=[\s"'])(?P<within>(?:not\s+)?in)\s*\((?P<values>.*)\))\s*""",
    re.DOTALL | re.IGNORECASE,
)
_VALUE = re.compile(rf"""\s*(?P<value>{_QUOTED}|[^"',]*[^"',\s])\s*(?P<end>,|$)""")
_SIGNS = ("=", "!=", "<", "<=", ">", ">=")
_MEANT = {"=>": ">=", "=<": "<=", "<>": "!=", "==": "="}
_UNCLEAR = re.compile(r"^!|[\s()=<>]")
_NEXT = (
    "repeat --keep for several conditions, and put quotes around a value with spaces, commas, parentheses or operators"
)


def parse_condition(text: str) -> Condition:
    """Return the condition that a text says.

    Raises:
        InputError: the text is no condition, or an order is asked of a value that is neither a number nor a date.
    """
    found = _FORM.fullmatch(text)
    if found is not None and (meant := _MEANT.get(found["sign"] or "")):
        raise InputError(f"--keep {text!r}: {found['sign']} is no operator; write {meant}")
    column = _unquoted(found["column"]) if found else ""
    listed = (found["values"] if found["within"] else found["value"]) if found else ""
    if found is None or not column or not listed.strip() or not (found["within"] or found["sign"] in _SIGNS):
        raise InputError(
            f"--keep {text!r}: is no condition; write COLUMN OPERATOR VALUE with one of = != < <= > >=, such as "
            "'rating >= 4', or 'event in (view, addtocart)', or 'event not in (view)'"
        )
    values = _values(text, listed)
    if found["sign"] and len(values) > 1:
        raise InputError(f"--keep {text!r}: the value reads {listed!r}, several values; write in (...), or {_NEXT}")
    operator = " ".join((found["within"] or found["sign"]).lower().split())
    for value in values:
        _check_value(text, operator, value)
    return Condition(text=text, column=column, operator=operator, values=values)


def _check_value(text: str, operator: str, value: str) -> None:
    try:
        is_date = nanoseconds(value) is not None
    except pa.ArrowInvalid:
        raise InputError(
            f"--keep {text!r}: the date {value!r} is not in the calendar or needs more than 64 bits; correct it"
        ) from None
    if operator in ORDERS and not (is_date or is_number(value)):
        raise InputError(
            f"--keep {text!r}: {operator} compares numbers or dates, and {value!r} is neither; "
            "write a number, or a date such as 2024-05-01 or 2024-05-01T12:00:00Z"
        )


def _values(text: str, listed: str) -> tuple[str, ...]:
    """Return the values of a list separated by commas; quotes allow commas, spaces and signs in a value."""
    values, place = [], 0
    while found := _VALUE.match(listed, place):
        value = found["value"]
        if value[0] not in "\"'" and _UNCLEAR.search(value) and not _is_date(value):
            raise InputError(f"--keep {text!r}: the value reads {value!r}, which is no single value; {_NEXT}")
        values.append(_unquoted(value))
        place = found.end()
        if not found["end"]:
            return tuple(values)
    raise InputError(f"--keep {text!r}: cannot read {listed[place:].strip()!r}; {_NEXT}")


def _is_date(text: str) -> bool:
    try:
        return nanoseconds(text) is not None
    except pa.ArrowInvalid:  # `_check_value` says so
        return True


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] in "\"'" else text
