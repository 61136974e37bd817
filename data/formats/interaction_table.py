"""The table that every reader of interactions returns: columns user, item and timestamp with fixed types."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from data.formats.columns import as_ids
from data.formats.times import as_times


def interaction_table(table: pa.Table, columns: Mapping[str, str], file: str) -> pa.Table:
    """Return all rows of a table as columns user, item (large_string) and timestamp (int64); empty text becomes null.

    If the table tells the unit of its timestamps (s, ms, us, ns), it is in the metadata of the field timestamp.

    Args:
        table: the table as it was read.
        columns: for each of user, item and timestamp, the name of its column in the table.
        file: the file's name, for messages.

    Raises:
        InputError: an id is neither text nor a whole number, or `times.as_times` refuses a timestamp.
    """
    users, items = (as_ids(table.column(columns[role]), file, columns[role]) for role in ("user", "item"))
    times, unit = as_times(table.column(columns["timestamp"]), file, columns["timestamp"])
    kinds = {"user": pa.large_string(), "item": pa.large_string()}
    field = pa.field("timestamp", pa.int64(), metadata={"unit": unit} if unit else None)
    return pa.table([users, items, times], schema=pa.schema([*map(pa.field, kinds, kinds.values()), field]))


def timestamp_unit(table: pa.Table) -> str | None:
    """Return the unit of an `interaction_table`'s timestamps, or None if the file does not tell it."""
    unit = (table.schema.field("timestamp").metadata or {}).get(b"unit")
    return unit.decode() if unit else None
