"""Interactions in memory, cut into chunks and blocks at will, as a source for the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from contracts.errors import InputError
from data.formats.source import Block, Chunk
from data.formats.time_kinds import TimeKind

NUMBERS = TimeKind(first="row 1")


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Rows of a table.

    Attributes:
        table: columns user, item (large_string), and if wanted timestamp (int64) and split (int8), with nulls.
        rows_of_chunk: rows of a chunk.
        rows_of_block: rows of a block.
        kind: what the timestamps are.
        broken: a chunk that cannot be read; None: all can.
    """

    table: pa.Table
    rows_of_chunk: int = 1 << 20
    rows_of_block: int = 1 << 20
    kind: TimeKind = NUMBERS
    broken: int | None = None

    @property
    def name(self) -> str:
        return "memory"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"format": "memory", "path": "memory"}

    def chunks(self, chunk_bytes: int) -> Sequence[Chunk]:
        """Return chunks of `rows_of_chunk` rows, whatever their bytes."""
        del chunk_bytes
        starts = range(0, max(1, self.table.num_rows), self.rows_of_chunk)
        return [
            Chunk(number=n, file="memory", start=start, stop=stop, num_bytes=stop - start)
            for n, start in enumerate(starts)
            for stop in [min(start + self.rows_of_chunk, self.table.num_rows)]
        ]

    def blocks(self, chunk: Chunk, block_bytes: int) -> Iterator[Block]:
        """Yield blocks of `rows_of_block` rows, whatever their bytes."""
        del block_bytes
        if chunk.number == self.broken:
            raise InputError(f"memory: chunk {chunk.number} is broken; restore it")
        assert chunk.stop is not None
        rows = self.table.slice(chunk.start, chunk.stop - chunk.start)
        for start in range(0, rows.num_rows, self.rows_of_block):
            read = rows.slice(start, self.rows_of_block)
            complete = read.drop_null()
            yield Block(
                rows=complete,
                time_kind=self.kind if "timestamp" in read.column_names else None,
                num_read=read.num_rows,
                dropped={"rows_with_null": read.num_rows - complete.num_rows},
            )

    def item_columns(self) -> pa.Table | None:
        return None
