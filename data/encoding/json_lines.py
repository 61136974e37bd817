"""Reads JSON-lines tables of items: the types of columns, and which line is wrong. Rows are lines, counted from 1."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.errors import InputError

_LOOKED_AT = 10_000  # rows that are looked at for the types of columns
_TEXT, _TEXTS, _NUMBER = pa.large_string(), pa.list_(pa.large_string()), pa.int64()
_WORDS = {_TEXT: "text", _TEXTS: "a list of texts", _NUMBER: "a whole number"}


def json_types(file: Path, wanted: Sequence[str]) -> tuple[dict[str, pa.DataType], list[str]]:
    """Return the type of each column by its first value among the first rows, and the names of all columns there.

    Args:
        file: the table, compressed or not.
        wanted: the columns that are read; the first one has the ids.

    Raises:
        InputError: a line is no JSON object, or a value is neither text, a list of texts nor a whole number.
    """
    types: dict[str, pa.DataType] = {}
    seen: dict[str, None] = {}
    for row, found in itertools.islice(_objects(file), _LOOKED_AT):
        seen |= dict.fromkeys(found)
        for name in wanted:
            if name not in types and found.get(name) not in (None, []):
                types[name] = _type_of(found[name], name, row, file, is_id=name == wanted[0])
        if len(types) == len(wanted):
            break
    return {name: types.get(name, _TEXT) for name in wanted}, list(seen)


def check_json_lines(file: Path, types: Mapping[str, pa.DataType]) -> None:
    """Read a whole file that pyarrow could not read, for the number of the wrong line.

    Args:
        file: the table.
        types: what `json_types` returned; the first column has the ids.

    Raises:
        InputError: a line is no JSON object, or a value has another type than those before it.
    """
    ids = next(iter(types))
    for row, found in _objects(file):
        for name, kind in types.items():
            if found.get(name) in (None, []):
                continue
            if _type_of(found[name], name, row, file, is_id=name == ids) != kind:
                raise InputError(
                    f"{file}: column {name} is {found[name]!r:.80} in row {row}, and {_WORDS[kind]} before; write all "
                    "rows alike"
                )


def _objects(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the content of each line that is not empty."""
    with pa.input_stream(str(file), compression="detect") as source:
        lines = io.TextIOWrapper(io.BufferedReader(source), encoding="utf-8-sig", errors="replace")
        for row, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError:
                raise InputError(f"{file}: row {row} is not valid JSON ({line[:60]!r}); restore the file") from None
            if not isinstance(found, dict):
                raise InputError(f"{file}: row {row} is {line[:60]!r}, expected one JSON object a line")
            yield row, found


def _type_of(value: Any, name: str, row: int, file: Path, *, is_id: bool) -> pa.DataType:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_id and not is_number and not isinstance(value, str):
        raise InputError(
            f"{file}: column {name} is {value!r:.80} in row {row}, ids must be text or whole numbers; cast it"
        )
    if is_number:
        return _NUMBER  # columns of values refuse numbers
    element = value[0] if isinstance(value, list) else value
    if isinstance(value, list) and isinstance(element, int) and not isinstance(element, bool):
        return pa.list_(_NUMBER)
    if not isinstance(element, str) and not (isinstance(value, list) and element is None):
        raise InputError(f"{file}: column {name} is {value!r:.80} in row {row}, expected text or a list of texts")
    return _TEXTS if isinstance(value, list) else _TEXT
