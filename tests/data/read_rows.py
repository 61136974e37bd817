"""All rows of files of interactions as one table, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from data.formats.file_source import FileSource
from data.formats.presets import PRESETS
from data.formats.read_options import ReadOptions
from data.formats.time_kinds import common_kind, rescaled

CHUNK_BYTES, BLOCK_BYTES = 1 << 30, 16 << 20


def source_of(kind: str, paths: str | Sequence[str], **options: Any) -> FileSource:
    several = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    return PRESETS[kind].source([paths] if isinstance(paths, str) else paths, ReadOptions(**{**options, **several}))


def rows_with_nulls(source: FileSource, chunk_bytes: int = CHUNK_BYTES, block_bytes: int = BLOCK_BYTES) -> pa.Table:
    """The rows that hold the conditions, before those with nulls are left out; the unit stands in the metadata."""
    found = [rows for chunk in source.chunks(chunk_bytes) for rows in source.typed_rows(chunk, block_bytes)]
    kinds = [rows.time_kind for rows in found if rows.time_kind is not None]
    common = common_kind(kinds)
    tables = []
    for rows in found:
        table = rows.rows
        if rows.time_kind is not None:
            column = table.column("timestamp")
            times = rescaled(column.fill_null(0).to_numpy(), rows.time_kind, common)
            field = pa.field("timestamp", pa.int64(), metadata={"unit": common.unit} if common.unit else None)
            place = table.schema.get_field_index("timestamp")
            table = table.set_column(place, field, pa.array(times, mask=column.is_null().to_numpy()))
        tables.append(table)
    return pa.concat_tables(tables)


def read_table(
    path: str, user_column: str = "user", item_column: str = "item", timestamp_column: str = "timestamp"
) -> pa.Table:
    columns = {"user_column": user_column, "item_column": item_column, "timestamp_column": timestamp_column}
    return rows_with_nulls(source_of("table", path, **columns))


def read_recbole(path: str) -> pa.Table:
    return rows_with_nulls(source_of("recbole", path))
