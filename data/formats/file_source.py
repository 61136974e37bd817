"""Reads interactions from any set of files that a description fits: a layout, the columns' roles, time, conditions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.columns import as_ids
from data.formats.held import Held, held_of
from data.formats.input_files import InputFile
from data.formats.item_files import ItemFiles
from data.formats.keep import Condition
from data.formats.layouts import Layout, Part, Wanted
from data.formats.places import Places
from data.formats.source import Block, Chunk
from data.formats.time_kinds import TimeKind
from data.formats.times import TimeRule, block_times

# Larger files are not read again to say how many rows they have.
_COUNTED_BYTES = 64 << 20
_COUNTING_BLOCK = 16 << 20
_SPLITS = {"0": 0, "1": 1, "2": 2, "train": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}


@dataclass(frozen=True, kw_only=True)
class TypedRows:
    """The rows of a block that hold the conditions, still with nulls.

    Attributes:
        rows: columns user, item (large_string), timestamp (int64) and split (int8) as far as the source has them.
        time_kind: what the timestamps are; None: the source has none.
        num_read: the number of rows of the file that the block stands for.
        held: for each condition, how many rows hold it.
    """

    rows: pa.Table
    time_kind: TimeKind | None
    num_read: int
    held: tuple[Held, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Interactions in files (a `source.InteractionSource`).

    Attributes:
        name: the input as the user named it, for messages.
        files: the files in order.
        layout: how a file holds its rows.
        columns: for each role (user, item, timestamp, split), the name of its column; without timestamp, rows are in
            order of time; without split, the source has none of its own.
        parameters: the format and its parameters, for the manifest.
        time: what the user says about timestamps.
        keep: conditions that a row must hold.
        splits: the number of each value of the column of the split (0: training, 1: validation, 2: test).
        next_move: what to do about a missing column; `{role}` in it is replaced.
        items: the files that describe items, if there are any.
        looked_for: names of files with titles that the format looked for beside the input, if it found none.
    """

    name: str
    files: tuple[InputFile, ...]
    layout: Layout
    columns: Mapping[str, str]
    parameters: Mapping[str, Any]
    time: TimeRule = field(default_factory=TimeRule)
    keep: tuple[Condition, ...] = ()
    splits: Mapping[str, int] = field(default_factory=lambda: _SPLITS)
    next_move: str = "name it with --{role}-column"
    items: ItemFiles | None = None
    looked_for: tuple[str, ...] = ()

    def chunks(self, chunk_bytes: int) -> Sequence[Chunk]:
        """Return the chunks in order. Compressed files and files with quotes are not divided.

        Raises:
            InputError: a file cannot be read.
        """
        chunks: list[Chunk] = []
        for file in self.files:
            path = file.local()
            ranges = self.layout.ranges(file.name, path, chunk_bytes)
            num_bytes = path.stat().st_size // len(ranges)
            for start, stop in ranges:
                chunk = Chunk(number=len(chunks), file=file.name, start=start, stop=stop, num_bytes=num_bytes)
                chunks.append(chunk)
        return chunks

    def blocks(self, chunk: Chunk, block_bytes: int) -> Iterator[Block]:
        """Yield the rows of a chunk in file order, about this many bytes of the file at a time.

        Raises:
            InputError: a row is malformed, or an id or timestamp is refused; names the file, the row and the value.
        """
        for typed in self.typed_rows(chunk, block_bytes):
            rows = typed.rows.drop_null()
            dropped = {"rows_with_null": typed.rows.num_rows - rows.num_rows}
            if self.keep:
                dropped["rows_not_kept"] = typed.num_read - typed.rows.num_rows
            yield Block(rows=rows, time_kind=typed.time_kind, num_read=typed.num_read, dropped=dropped, held=typed.held)

    def typed_rows(self, chunk: Chunk, block_bytes: int) -> Iterator[TypedRows]:
        """Yield what `blocks` does, before rows with nulls are left out."""
        file = next(file for file in self.files if file.name == chunk.file)
        part = Part(name=file.name, path=file.local(), start=chunk.start, stop=chunk.stop)
        wanted, constants = self._wanted(file, part)
        at_start, num_before = None if part.start else 0, 0
        if part.start and self.layout.is_typed:  # the file says how many rows it has
            at_start = self.layout.count_rows(replace(part, start=0, stop=part.start), wanted, block_bytes)
        for table in self.layout.tables(part, wanted, block_bytes):
            for name, value in constants.items():
                column = pa.repeat(pa.scalar(value, pa.large_string()), table.num_rows)
                table = table.append_column(name, column)
            yield self._typed(table, self._places(part, wanted, num_before, at_start))
            num_before += table.num_rows

    def _wanted(self, file: InputFile, part: Part) -> tuple[Wanted, dict[str, str | None]]:
        """Return the columns that the file itself has to give, and those that names of its folders give."""
        conditions = {condition.column: f"--keep {condition.text!r}" for condition in self.keep}
        others = {name: text for name, text in conditions.items() if name not in self.columns.values()}
        constants: dict[str, str | None] = {}
        named = {*self.columns.values(), *others} & {name for name, _ in file.partitions}
        if named:
            own = set(self.layout.column_names(part.name, part.path))
            constants = {name: value for name, value in file.partitions if name in named - own}
        wanted = Wanted(
            roles={role: name for role, name in self.columns.items() if name not in constants},
            others={name: text for name, text in others.items() if name not in constants},
            next_move=self.next_move,
        )
        if not wanted.names:
            raise InputError(f"{part.name}: all columns are names of folders; name one that the file has")
        return wanted, constants

    def _typed(self, table: pa.Table, places: Places) -> TypedRows:
        num_read, held = table.num_rows, list[Held]()
        if self.keep:
            holds = np.ones(num_read, bool)
            for condition in self.keep:
                column = table.column(condition.column)
                is_time = condition.column == self.columns.get("timestamp")
                holds_it = condition.holds(column, places, self.time.format if is_time else None)
                held.append(held_of(condition, column, holds_it))
                holds &= holds_it
            kept = np.flatnonzero(holds)
            if len(kept) < num_read:
                table, places = table.filter(pa.array(holds)), places.of(lambda row: int(kept[row]))
        columns = {
            role: as_ids(table.column(self.columns[role]), places.file, self.columns[role]) for role in ("user", "item")
        }
        kind = None
        if (name := self.columns.get("timestamp")) is not None:
            column = table.column(name)
            columns["timestamp"], kind = block_times(column, name, places, self.time, is_typed=self.layout.is_typed)
        if (name := self.columns.get("split")) is not None:
            columns["split"] = self._splits(table.column(name), name, places)
        return TypedRows(rows=pa.table(columns), time_kind=kind, num_read=num_read, held=tuple(held))

    def _splits(self, column: pa.ChunkedArray, name: str, places: Places) -> pa.ChunkedArray:
        text = as_ids(column, places.file, name)
        codes = pc.index_in(text, value_set=pa.array(self.splits, pa.large_string()))
        row = pc.index(pc.and_(pc.is_null(codes), pc.is_valid(text)), True).as_py()
        if row >= 0:
            known = ", ".join(map(repr, self.splits))
            raise InputError(f"{places.value(text, row, name)}, expected one of {known}; correct the split")
        return pa.chunked_array(
            [pa.array(list(self.splits.values()), pa.int8()).take(chunk) for chunk in codes.chunks], pa.int8()
        )

    def _places(self, part: Part, wanted: Wanted, num_before: int, at_start: int | None) -> Places:
        """Return the places of a block's rows.

        Args:
            part: the part of the file that the block is in.
            wanted: the columns that are read.
            num_before: the number of rows of the part before the block.
            at_start: the number of rows of the file before the part; None: they have to be counted.
        """

        counted = self.layout.row_name
        note = " (header not counted)" if counted == "row" else ""

        def count(start: int, stop: int | None) -> int:
            rows = Part(name=part.name, path=part.path, start=start, stop=stop)
            return self.layout.count_rows(rows, wanted, _COUNTING_BLOCK)

        def exact(row: int) -> str:
            before = count(0, part.start) if at_start is None else at_start
            total = ""
            if part.path.stat().st_size <= _COUNTED_BYTES:
                with contextlib.suppress(InputError):  # a later row is malformed too
                    total = f" of {count(0, None)}"
            return f"{counted} {before + num_before + row + 1}{total}{note}"

        def quick(row: int) -> str:
            if at_start is None:
                return f"{counted} {num_before + row + 1} after byte {part.start}{note}"
            return f"{counted} {at_start + num_before + row + 1}{note}"

        return Places(file=part.name, exact=exact, quick=quick)

    def item_columns(self) -> pa.Table | None:
        """Return what the source tells about items, each item once, or None. See `item_files`.

        Raises:
            InputError: a file of items cannot be read, or a column is missing.
        """
        return None if self.items is None else self.items.read()
