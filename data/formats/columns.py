"""Columns of tables of any format: each is there, once, and ids are text or whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError

_NAMES_SHOWN = 20


def read_parquet(file: Path, columns: Mapping[str, str], next_move: str) -> pa.Table:
    """The columns of one Parquet file, page checksums verified where the file has them.

    Not through pyarrow's datasets, for which a folder named `item=5` on the way to the file is a column.

    Args:
        columns: role -> the file's own name for it. next_move: as for `check_columns`.

    Raises:
        InputError: as `check_columns`. pa.ArrowException, OSError: the file cannot be read.
    """
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        check_columns(parquet.schema_arrow.names, columns, str(file), next_move)
        return parquet.read(columns=list(columns.values()))


def check_columns(names: Sequence[str], columns: Mapping[str, str], file: str, next_move: str) -> None:
    """Each role has a column of its own.

    Args:
        columns: role -> name. next_move: what to do where there is none; may hold `{role}`.

    Raises:
        InputError: a column that is not there, is there twice, or is named for two roles.
    """
    for role, name in columns.items():
        if name not in names:
            raise InputError(f"{file}: no column {name!r} among {shown(names)}; {next_move.format(role=role)}")
        if names.count(name) > 1:
            raise InputError(f"{file}: {names.count(name)} columns are called {name!r}; rename or remove all but one")
        if (other := next(known for known, column in columns.items() if column == name)) != role:
            raise InputError(f"{file}: column {name!r} is named for both {other} and {role}; name one for each")


def shown(names: Sequence[str]) -> str:
    """Column names for a message, in quotes so that spaces can be seen."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(repr, names[:_NAMES_SHOWN])) + more


def as_ids(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Ids as large_string; an empty text is a null.

    Raises:
        InputError: they are neither text nor whole numbers.
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
    """The values of a dictionary-encoded column; other columns as they are."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def as_text(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """A column of text as large_string, with nulls for empty values.

    Raises:
        InputError: its bytes are not UTF-8.
    """
    try:
        column.validate(full=True)  # JSON and Parquet are read without a look at the encoding
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{file}: column {name} holds bytes that are not UTF-8 text ({reason}); write it again"
        ) from None
    column = column.cast(pa.large_string())
    is_empty = pc.equal(column, "")
    return pc.if_else(is_empty, pa.scalar(None, pa.large_string()), column) if pc.any(is_empty).as_py() else column
