"""Reads the requested columns of JSON lines as Arrow tables with explicit types, and ignores other columns.

Arrow parses the file. Python reads the first rows to find out whether columns are text or numbers. If Arrow refuses a
row, Python searches for the row that the error message names.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import pyarrow as pa
import pyarrow.json as pajson

from contracts.errors import InputError
from data.formats.columns import check_columns
from data.formats.encodings import check_not_utf16
from data.formats.layouts import Part, Wanted
from data.formats.text_blocks import is_compressed, line_blocks, line_ranges, open_bytes, refused_compression
from data.layout import UNREADABLE

_LONGEST_OBJECT = 16 << 20
_CHUNK_CHARACTERS = 1 << 20
_NUM_SAMPLED = 1000  # rows whose names are looked at if the columns of a file are asked for
_SPACE = " \t\r\n"
_DIGITS_REFUSED = re.compile(r"parse:\s*-?[0-9]+$")  # Arrow's message for a whole number that needs more than 64 bits
_MARK = codecs.BOM_UTF8


@dataclass(frozen=True)
class JsonLinesLayout:
    """JSON objects, one a line."""

    is_typed: ClassVar[bool] = False
    row_name: ClassVar[str] = "row"

    def ranges(self, name: str, path: Path, chunk_bytes: int) -> list[tuple[int, int | None]]:  # noqa: ARG002
        """Return byte ranges that end with lines. A compressed file is one part."""
        if is_compressed(path):
            return [(0, None)]
        return [*line_ranges(path, 0, chunk_bytes)] or [(0, 0)]

    def column_names(self, name: str, path: Path) -> list[str]:
        """Return the names that the first rows have."""
        seen: dict[str, None] = {}
        with _opened(name, path) as source:
            for found in itertools.islice(_objects(source, name, lambda: 0), _NUM_SAMPLED):
                seen |= dict.fromkeys(found) if isinstance(found, dict) else {}
        return list(seen)

    def tables(self, part: Part, wanted: Wanted, block_bytes: int) -> Iterator[pa.Table]:
        """Yield the wanted columns: large_string, int64, or bool; numbers with a point as float64 or decimals."""
        types = _types(part, wanted)
        num_rows = 0
        try:
            for block in line_blocks(part.name, part.path, part.start, part.stop, block_bytes):
                if block.removeprefix(_MARK).isspace():
                    continue
                before = num_rows
                table = self._parsed(part, wanted, types, block, before)
                num_rows += table.num_rows
                yield table
        except UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{part.name}: cannot be read ({reason}); restore the file") from None

    def _parsed(
        self, part: Part, wanted: Wanted, types: Mapping[str, pa.DataType], block: bytes, before: int
    ) -> pa.Table:
        try:
            return _read(block, types)
        except pa.ArrowInvalid as error:
            time, is_overflow = wanted.roles.get("timestamp"), _DIGITS_REFUSED.search(str(error))
            if time is not None and types[time] == pa.int64() and not is_overflow:
                with contextlib.suppress(pa.ArrowInvalid):
                    return _read_fractions(block, types, time)
            _name_first_refused(block, part.name, wanted, types, lambda: before + self._rows_before(part, wanted))
            raise

    def _rows_before(self, part: Part, wanted: Wanted) -> int:
        if not part.start:
            return 0
        return self.count_rows(Part(name=part.name, path=part.path, stop=part.start), wanted, _LONGEST_OBJECT)

    def count_rows(self, part: Part, wanted: Wanted, block_bytes: int) -> int:
        """Return the number of rows of a part, by reading it."""
        return sum(table.num_rows for table in self.tables(part, wanted, block_bytes))


def _read(block: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
    parse = pajson.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
    read = pajson.ReadOptions(use_threads=False, block_size=len(block))
    return pajson.read_json(pa.BufferReader(block), read_options=read, parse_options=parse)


def _read_fractions(block: bytes, types: Mapping[str, pa.DataType], time: str) -> pa.Table:
    """Read timestamps with a point or an exponent as float64, or as decimals if float64 would lose a fraction."""
    floats = _read(block, {**types, time: pa.float64()})
    with contextlib.suppress(pa.ArrowInvalid):  # too large for these decimals, and so for a timestamp
        decimals = _read(block, {**types, time: pa.decimal128(38, 18)})
        try:
            decimals.column(time).cast(pa.int64())
        except pa.ArrowInvalid:
            return decimals
    return floats


def _types(part: Part, wanted: Wanted) -> dict[str, pa.DataType]:
    """Return the type of each column by its first value in the file; a column with only nulls is text."""
    roles = {name: role for role, name in wanted.roles.items()}
    seen: dict[str, None] = {}
    types: dict[str, pa.DataType] = {}
    num = 0
    with _opened(part.name, part.path) as source:
        for num, found in enumerate(_objects(source, part.name, lambda: 0), start=1):
            _check_row(found, num, part.name)
            seen |= dict.fromkeys(found)
            for name in wanted.names:
                if name not in types and (value := found.get(name)) is not None:
                    _check_value(value, None, roles.get(name), name, num, part.name)
                    types[name] = _type_of(value, roles.get(name))
            if len(types) == len(wanted.names):
                break
    if not num:
        raise InputError(f"{part.name}: cannot be read (Empty JSON file); restore the file")
    if seen:
        wanted.check(list(seen), part.name)
    else:
        check_columns([], {}, part.name, wanted.next_move)
    return {name: types.get(name, pa.large_string()) for name in wanted.names}


def _type_of(value: Any, role: str | None) -> pa.DataType:
    if isinstance(value, str):
        return pa.large_string()
    if role is not None:
        return pa.int64()
    return pa.bool_() if isinstance(value, bool) else pa.float64()


def _name_first_refused(
    block: bytes, file: str, wanted: Wanted, types: Mapping[str, pa.DataType], rows_before: Callable[[], int]
) -> None:
    """Raise InputError for the first row that is not JSON or has a value of a wrong type; return if there is none."""
    roles = {name: role for role, name in wanted.roles.items()}
    for row, found in enumerate(_objects(io.BytesIO(block), file, rows_before), start=1):
        try:
            _check_found(found, row, file, roles, types)
        except InputError:
            _check_found(found, row + rows_before(), file, roles, types)


def _check_found(found: Any, row: int, file: str, roles: Mapping[str, str], types: Mapping[str, pa.DataType]) -> None:
    _check_row(found, row, file)
    for name, kind in types.items():
        if (value := found.get(name)) is not None:
            _check_value(value, kind, roles.get(name), name, row, file)


def _check_row(found: Any, row: int, file: str) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{file}: row {row} is {found!r:.60}, expected one JSON object a line; write it as JSON lines")


def _check_value(value: Any, kind: pa.DataType | None, role: str | None, name: str, row: int, file: str) -> None:
    place = f"{file}: column {name} is {value!r:.60} in row {row}"
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_number = is_whole or isinstance(value, float)
    if role is None:
        if not isinstance(value, (str, bool, int, float)):
            raise InputError(f"{place}, expected text or a number; name another column to compare")
        if kind is not None and kind != _type_of(value, None):
            raise InputError(f"{place}, unlike the type of the rows before; write all values as one type")
        return
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


@contextlib.contextmanager
def _opened(name: str, path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_bytes(path) as source:
            yield source
    except (OSError, pa.ArrowException) as error:
        if is_compressed(path):
            raise refused_compression(name, error) from None
        raise InputError(f"{name}: cannot be read ({' '.join(str(error).split())}); restore the file") from None


def _objects(source: IO[bytes], file: str, rows_before: Callable[[], int]) -> Iterator[Any]:
    """Yield the values of a file or block one after the other.

    Raises:
        InputError: the file contains something that is not JSON, or an object that is very long.
    """
    decoder, text, num = json.JSONDecoder(strict=False, parse_int=_whole_number), "", 0
    # A byte order mark may be at the start of a file.
    characters = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    while len(text) <= _LONGEST_OBJECT and (chunk := source.read(_CHUNK_CHARACTERS)):
        if not num and not text:
            check_not_utf16(file, chunk)
        text, place = text + characters.decode(chunk), 0
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
    text += characters.decode(b"", final=True)
    if text:
        row = num + 1 + rows_before()
        raise InputError(f"{file}: row {row} is not valid JSON ({text[:60]!r:.60}); restore the file")
