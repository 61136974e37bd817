"""Reads the requested columns of JSON lines as an Arrow table with explicit types, and ignores other columns.

Arrow parses the file. Python reads the first rows to find out whether columns are text or numbers. If Arrow refuses a
row, Python searches for the row that the error message names.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pajson

from contracts.errors import InputError
from data.formats.columns import check_columns

_BLOCK_BYTES = 16 << 20  # also the largest size of an object
_CHUNK_CHARACTERS = 1 << 20
_SPACE = " \t\r\n"
_DIGITS_REFUSED = re.compile(r"parse:\s*-?[0-9]+$")  # Arrow's message for a whole number that needs more than 64 bits


def read_json_lines(file: Path, columns: Mapping[str, str], next_move: str) -> pa.Table:
    """Return columns of a file that consists of JSON objects.

    Args:
        file: the file.
        columns: for each role (user, item, timestamp), the name of its column in the file.
        next_move: as for `columns.check_columns`.

    Returns:
        Each column as large_string or int64; timestamps with a point or an exponent as float64 or decimals.

    Raises:
        InputError: as `columns.check_columns`, or a value has a type that its column may not have; names the row.
        pa.ArrowException: the file cannot be read.
        OSError: the file cannot be read.
    """
    types = _types(file, columns, next_move)
    try:
        return _read(file, types)
    except pa.ArrowInvalid as error:
        time, is_overflow = columns["timestamp"], _DIGITS_REFUSED.search(str(error))
        if types[time] == pa.int64() and not is_overflow:
            with contextlib.suppress(pa.ArrowInvalid):
                return _read_fractions(file, types, time)
        _name_first_refused(file, columns, types)
        raise


def _read(file: Path, types: Mapping[str, pa.DataType]) -> pa.Table:
    parse = pajson.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
    return pajson.read_json(file, read_options=pajson.ReadOptions(block_size=_BLOCK_BYTES), parse_options=parse)


def _read_fractions(file: Path, types: dict[str, pa.DataType], time: str) -> pa.Table:
    """Read timestamps with a point or an exponent as float64, or as decimals if float64 would lose a fraction."""
    floats = _read(file, types | {time: pa.float64()})
    with contextlib.suppress(pa.ArrowInvalid):  # too large for these decimals, and so for a timestamp
        decimals = _read(file, types | {time: pa.decimal128(38, 18)})
        try:
            decimals.column(time).cast(pa.int64())
        except pa.ArrowInvalid:
            return decimals
    return floats


def _types(file: Path, columns: Mapping[str, str], next_move: str) -> dict[str, pa.DataType]:
    """Return the type of each column by its first value; a column with only nulls is text."""
    seen: dict[str, None] = {}
    types: dict[str, pa.DataType] = {}
    for row, found in enumerate(_objects(file), start=1):
        _check_row(found, row, file)
        seen |= dict.fromkeys(found)
        for role, name in columns.items():
            if name not in types and (value := found.get(name)) is not None:
                _check_value(value, None, role, name, row, file)
                types[name] = pa.large_string() if isinstance(value, str) else pa.int64()
        if len(types) == len(columns):
            break
    if seen:
        check_columns(list(seen), columns, str(file), next_move)
    return {name: types.get(name, pa.large_string()) for name in columns.values()}


def _name_first_refused(file: Path, columns: Mapping[str, str], types: Mapping[str, pa.DataType]) -> None:
    """Raise InputError for the first row that is not JSON or has a value of a wrong type; return if there is none."""
    for row, found in enumerate(_objects(file), start=1):
        _check_row(found, row, file)
        for role, name in columns.items():
            if (value := found.get(name)) is not None:
                _check_value(value, types[name], role, name, row, file)


def _check_row(found: Any, row: int, file: Path) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{file}: row {row} is {found!r:.60}, expected one JSON object a line; write it as JSON lines")


def _check_value(value: Any, kind: pa.DataType | None, role: str, name: str, row: int, file: Path) -> None:
    place = f"{file}: column {name} is {value!r:.60} in row {row}"
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_number = is_whole or isinstance(value, float)
    if role == "timestamp":
        if not (is_number or isinstance(value, str)):
            raise InputError(f"{place}, expected a whole number or a date; use whole seconds or milliseconds")
    elif not (is_whole or isinstance(value, str)):
        raise InputError(f"{place}, expected text or a whole number; write ids as text")
    if kind == pa.large_string() and is_number:
        raise InputError(f"{place}, after text in the rows before; write all as text or all as numbers")
    if kind == pa.int64() and isinstance(value, str):
        raise InputError(f"{place}, after numbers in the rows before; write all as text or all as numbers")
    if is_whole and not -(2**63) <= value < 2**63:
        next_move = "use whole seconds or milliseconds" if role == "timestamp" else "write ids as text"
        raise InputError(f"{place}, expected a whole number of 64 bits; {next_move}")


def _whole_number(digits: str) -> int | float:
    """Return the number. Long ones become floats: Python refuses to convert thousands of digits to an integer."""
    return int(digits) if len(digits) <= 100 else float(digits)


def _objects(file: Path) -> Iterator[Any]:
    """Yield the values of a file one after the other.

    Raises:
        InputError: the file contains something that is not JSON, or an object that is longer than a block.
    """
    decoder, text, num = json.JSONDecoder(strict=False, parse_int=_whole_number), "", 0
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as source:
        while len(text) <= _BLOCK_BYTES and (chunk := source.read(_CHUNK_CHARACTERS)):
            text, place = text + chunk, 0
            while True:
                while place < len(text) and text[place] in _SPACE:
                    place += 1
                try:
                    found, end = decoder.raw_decode(text, place)
                except (ValueError, RecursionError):
                    break
                yield found
                place, num = end, num + 1
            text = text[place:]
    if text:
        raise InputError(f"{file}: row {num + 1} is not valid JSON ({text[:60]!r:.60}); restore the file")
