"""Checks and conversions of columns for all formats: each column exists once, and ids are text or whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.formats.encodings import not_utf8_column

_NAMES_SHOWN = 20


def read_parquet(file: Path, columns: Mapping[str, str], next_move: str) -> pa.Table:
    """Return columns of a Parquet file, after verifying page checksums if the file has any.

    pyarrow's datasets are not used, because they turn a folder such as `item=5` in the path into a column.

    Args:
        file: the file.
        columns: for each role, the name of its column in the file.
        next_move: as for `check_columns`.

    Raises:
        InputError: as `check_columns`.
        pa.ArrowException: the file cannot be read.
        OSError: the file cannot be read.
    """
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        check_columns(parquet.schema_arrow.names, columns, str(file), next_move)
        return parquet.read(columns=list(columns.values()))


def check_columns(names: Sequence[str], columns: Mapping[str, str], file: str, next_move: str) -> None:
    """Check that each role has a column of its own.

    Args:
        names: names of the file's columns.
        columns: for each role, the name of its column.
        file: the file's name, for messages.
        next_move: what to do if there is no such column; `{role}` in it is replaced.

    Raises:
        InputError: a column is missing, exists twice, or is named for two roles.
    """
    for role, name in columns.items():
        if name not in names:
            raise InputError(f"{file}: no column {name!r} among {shown(names)}; {next_move.format(role=role)}")
        if names.count(name) > 1:
            raise InputError(f"{file}: {names.count(name)} columns are called {name!r}; rename or remove all but one")
        if (other := next(known for known, column in columns.items() if column == name)) != role:
            raise InputError(f"{file}: column {name!r} is named for both {other} and {role}; name one for each")


def shown(names: Sequence[str]) -> str:
    """Return column names for a message, in quotes so that spaces are visible."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(repr, names[:_NAMES_SHOWN])) + more


def as_ids(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Return ids as large_string; an empty text becomes a null.

    Raises:
        InputError: the ids are neither text nor whole numbers.
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        return column.cast(pa.large_string())
    if not is_text(kind):
        raise InputError(f"{file}: column {name} is {kind}, ids must be text or whole numbers; cast it")
    return as_text(column, file, name)


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a dictionary-encoded column, and other columns unchanged."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def as_text(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Return a column of text as large_string, with nulls for empty values.

    Raises:
        InputError: its bytes are not UTF-8.
    """
    try:
        column.validate(full=True)  # reading JSON and Parquet does not check the encoding
    except pa.ArrowInvalid:
        raise not_utf8_column(file, name, column) from None
    column = column.cast(pa.large_string())
    is_empty = pc.equal(column, "")
    return pc.if_else(is_empty, pa.scalar(None, pa.large_string()), column) if pc.any(is_empty).as_py() else column
