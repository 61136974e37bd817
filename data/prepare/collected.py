"""Collects all rows of a source in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from data.formats.source import InteractionSource, all_blocks
from data.formats.time_kinds import common_kind, rescaled

_PIECE_BYTES = 256 << 20
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class CollectedRows:
    """All rows of a source.

    Attributes:
        rows: columns as in `source.Block`, with all timestamps in one unit.
        timestamp_unit: s, ms, us or ns; None: the source does not tell, or has no timestamps.
        num_read: the number of rows of the files.
        dropped: for each reason, the number of rows that were left out.
    """

    rows: pa.Table
    timestamp_unit: str | None
    num_read: int
    dropped: Mapping[str, int]


def collected_rows(source: InteractionSource) -> CollectedRows:
    """Read a source.

    Raises:
        InputError: a file cannot be read, or the blocks' timestamps contradict each other.
    """
    blocks = list(all_blocks(source, source.pieces(_PIECE_BYTES), _BLOCK_BYTES))
    kinds = [block.time_kind for block in blocks if block.time_kind is not None]
    common = common_kind(kinds)
    tables = []
    for block in blocks:
        table = block.rows
        if block.time_kind is not None:
            place = table.schema.get_field_index("timestamp")
            times = rescaled(table.column(place).to_numpy(), block.time_kind, common)
            table = table.set_column(place, "timestamp", pa.array(times, pa.int64()))
        tables.append(table)
    dropped: Counter[str] = Counter({"rows_with_null": 0})
    for block in blocks:
        dropped.update(block.dropped)
    return CollectedRows(
        rows=pa.concat_tables(tables) if tables else _nothing(),
        timestamp_unit=common.named_unit if kinds else None,
        num_read=sum(block.num_read for block in blocks),
        dropped=dict(dropped),
    )


def _nothing() -> pa.Table:
    kinds = {"user": pa.large_string(), "item": pa.large_string(), "timestamp": pa.int64()}
    return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
