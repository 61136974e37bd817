"""Puts the interactions of OLD and new ones into one source: OLD's rows first, then those held back, then the new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from contracts.errors import InputError
from data.formats.source import Block, Chunk, InteractionSource
from data.formats.time_kinds import PER_SECOND, UNITS, TimeKind, rescaled
from data.prepare.growth.stored_rows import StoredRows, is_stored


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Interactions of a dataset and of files (an `InteractionSource`).

    Attributes:
        old: the rows of OLD.
        has_times: whether OLD has timestamps.
        new: the new rows.
        origin: what the manifest says about OLD.
    """

    old: StoredRows
    has_times: bool
    new: InteractionSource
    origin: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.new.name

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self.new.parameters, "appended_to": self.origin}

    def chunks(self, chunk_bytes: int) -> Sequence[Chunk]:
        """Return the chunks of OLD, then those of the files."""
        chunks = [*self.old.chunks(chunk_bytes), *self.new.chunks(chunk_bytes)]
        return [replace(chunk, number=number) for number, chunk in enumerate(chunks)]

    def blocks(self, chunk: Chunk, block_bytes: int) -> Iterator[Block]:
        """Yield the rows of a chunk.

        Raises:
            InputError: see the sources; or the timestamps of the two do not go together.
        """
        if is_stored(chunk):
            yield from self.old.blocks(chunk, block_bytes)
            return
        for block in self.new.blocks(chunk, block_bytes):
            yield self._agreeing(block)

    def item_columns(self) -> pa.Table | None:
        """Return what the files tell about items."""
        return self.new.item_columns()

    def _agreeing(self, block: Block) -> Block:
        """Return a block of new rows with timestamps in OLD's unit."""
        kind, old = block.time_kind, self.old.path
        rows = block.rows.drop_columns(["split"]) if "split" in block.rows.column_names else block.rows
        if not self.has_times and kind is not None:
            raise InputError(
                f"{self.name}: has timestamps, and {old} has none, so nothing says which rows are later; read it "
                "without (--timestamp-column none), or prepare all rows at once with timestamps"
            )
        if self.has_times and kind is None:
            raise InputError(
                f"{self.name}: has no timestamps, and {old} has them, so nothing says which rows are later; "
                "add timestamps"
            )
        if kind is None or kind.first is None:
            return replace(block, rows=rows)
        times = self._in_unit(rows.column("timestamp"), kind)
        place = rows.schema.get_field_index("timestamp")
        kind = replace(kind, unit=None, declared=self.old.unit) if self.old.unit is not None else kind
        return replace(block, rows=rows.set_column(place, "timestamp", times), time_kind=kind)

    def _in_unit(self, times: pa.ChunkedArray, kind: TimeKind) -> pa.ChunkedArray:
        """Return timestamps in OLD's unit.

        Raises:
            InputError: they are in another unit, or do not tell theirs.
        """
        unit, old = self.old.unit, self.old.path
        if unit is None:
            if kind.unit is None:
                return times  # the engine compares what the numbers tell
            raise InputError(
                f"{kind.first}, a date, and the timestamps of {old} are numbers whose unit is not known; "
                "write numbers of the same unit"
            )
        own = kind.unit or kind.declared
        if kind.told and kind.told[0][0] != unit:
            raise _other_unit(kind.told[0][1], kind.told[0][0], old, unit)
        if kind.unit is not None and PER_SECOND[kind.unit] < PER_SECOND[unit]:
            exact = rescaled(times.to_numpy(), kind, TimeKind(unit=unit))
            return pa.chunked_array([pa.array(exact, pa.int64())])
        if own is not None and own != unit:
            raise _other_unit(str(kind.finest or kind.first), own, old, unit)
        if own is None and kind.is_silent:
            raise InputError(
                f"{kind.first}: this or another timestamp there is no time between 1973 and 2100 in any unit, and "
                f"those of {old} are in {UNITS[unit]}; if these are too, say --time-unit {unit}"
            )
        return times


def _other_unit(place: str, unit: str, old: str, old_unit: str) -> InputError:
    return InputError(
        f"{place}, a time in {UNITS[unit]}, and those of {old} are in {UNITS[old_unit]}; write the new timestamps in "
        f"{UNITS[old_unit]}"
    )
