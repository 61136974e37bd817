"""Columns of tables of any format: they are there, once, and hold ids or whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import InputError

_EXACT = 2.0**53


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
            raise InputError(f"{file}: no column {name!r} among {', '.join(names)}; {next_move.format(role=role)}")
        if names.count(name) > 1:
            raise InputError(f"{file}: {names.count(name)} columns are called {name!r}; rename or remove all but one")
        if (other := next(known for known, column in columns.items() if column == name)) != role:
            raise InputError(f"{file}: column {name!r} is named for both {other} and {role}; name one for each")


def as_text(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Ids as large_string.

    Raises:
        InputError: they are neither text nor whole numbers.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind) or pa.types.is_integer(kind):
        return column.cast(pa.large_string())
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise InputError(f"{file}: column {name} is {kind}, ids must be text or whole numbers; cast it")
    try:
        column.validate(full=True)  # JSON and Parquet are read without a look at the encoding
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{file}: column {name} holds bytes that are not UTF-8 text ({reason}); write it again"
        ) from None
    return column.cast(pa.large_string())


def _check_exact(column: pa.ChunkedArray, file: str, name: str) -> None:
    """Text that went through float64 must be below 2^53, beyond which not every whole number has a float64."""
    largest = pc.max(pc.abs(column)).as_py()
    if largest is not None and _EXACT <= largest < math.inf:
        raise InputError(
            f"{file}: column {name} holds {largest:.17g} in a column with points or exponents, exact only below 2^53; "
            "write all of it in whole digits"
        )


def as_whole(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Timestamps as int64: whole numbers in any notation, or Arrow's own timestamps in their own unit.

    Raises:
        InputError: a value that is no whole number of 64 bits; names the first.
    """
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            try:
                return column.cast(pa.int64())
            except pa.ArrowInvalid:
                numbers = column.cast(pa.float64())  # '1.3e9', as RecBole writes a float
                _check_exact(numbers, file, name)
                return numbers.cast(pa.int64())
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        row = _first_that_is_not_whole(column)
        raise InputError(
            f"{file}: column {name} is {column[row].as_py()!r} in row {row + 1} of {len(column)} (header not counted), "
            "expected a whole number; use whole seconds or milliseconds"
        ) from None
    except pa.ArrowNotImplementedError:
        raise InputError(
            f"{file}: column {name} is {column.type}, expected whole numbers; use whole seconds or milliseconds"
        ) from None


def _first_that_is_not_whole(column: pa.ChunkedArray) -> int:
    """By halving; what is cast is twice the column at most."""
    first, last = 0, len(column)
    while last - first > 1:
        middle = (first + last) // 2
        try:
            half = column.slice(first, middle - first)
            (half.cast(pa.float64()) if not pa.types.is_floating(half.type) else half).cast(pa.int64())
            first = middle
        except pa.ArrowInvalid:
            last = middle
    return first
