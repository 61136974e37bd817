"""What every reader of interactions returns: users, items and times of a table, by explicit types."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from data.formats.columns import as_ids
from data.formats.times import as_times


def interaction_table(table: pa.Table, columns: Mapping[str, str], file: str) -> pa.Table:
    """The columns user, item (large_string) and timestamp (int64) of a table; all its rows, an empty text as a null.

    The field timestamp has its unit (s, ms, us, ns) as metadata, where the table tells it.

    Args:
        columns: user, item, timestamp -> the table's own name for it.

    Raises:
        InputError: an id that is neither text nor a whole number, or a timestamp that `times.as_times` refuses.
    """
    users, items = (as_ids(table.column(columns[role]), file, columns[role]) for role in ("user", "item"))
    times, unit = as_times(table.column(columns["timestamp"]), file, columns["timestamp"])
    kinds = {"user": pa.large_string(), "item": pa.large_string()}
    field = pa.field("timestamp", pa.int64(), metadata={"unit": unit} if unit else None)
    return pa.table([users, items, times], schema=pa.schema([*map(pa.field, kinds, kinds.values()), field]))


def timestamp_unit(table: pa.Table) -> str | None:
    """The unit of an `interaction_table`'s timestamps, or None where the file does not say."""
    unit = (table.schema.field("timestamp").metadata or {}).get(b"unit")
    return unit.decode() if unit else None
