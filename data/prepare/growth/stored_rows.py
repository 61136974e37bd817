"""Reads the interactions of a dataset, and those that were held back beside it, as a source of raw interactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.dataset import Dataset
from data.formats.source import Block, Chunk
from data.formats.time_kinds import TimeKind, told_units
from data.layout import HELD_BACK, SEQUENCES, UNREADABLE, USERS

# About the bytes of an interaction in a text file, so that sizes in bytes mean as much for a dataset as for files.
_ROW_BYTES = 32
# Each chunk reads the ids of all items. So chunks are larger than those of files.
_CHUNKS_AS_LARGE = 4
# It is in the paths of chunks of a dataset. Paths of new files never have it, because `Path` leaves it out.
_MARK = "/./"


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """The interactions of a dataset: user by user, oldest first. It can be pickled, and opens the dataset where it is.

    Attributes:
        path: the dataset's absolute path or URI.
        unit: the unit of all timestamps; None: it is not known, or there are none.
    """

    path: str
    unit: str | None

    def chunks(self, chunk_bytes: int) -> Sequence[Chunk]:
        """Return the chunks: ranges of users with about equally many rows, then row groups of the rows held back."""
        dataset = Dataset.open(self.path)
        offsets = dataset.offsets
        count = max(1, dataset.num_interactions * _ROW_BYTES // (chunk_bytes * _CHUNKS_AS_LARGE))
        inner = np.searchsorted(offsets, np.arange(1, count) * (dataset.num_interactions / count))
        bounds = np.unique([0, *inner, dataset.num_users])
        held = dataset.folder / HELD_BACK
        parts = [
            (_marked(dataset.folder / SEQUENCES), int(start), int(stop), int(offsets[stop] - offsets[start]))
            for start, stop in pairwise(bounds)
        ]
        if held.exists():
            rows = _row_groups(held, has_times=dataset.timestamps is not None)
            parts += [(_marked(held), group, group + 1, count) for group, count in enumerate(rows) if count]
        return [
            Chunk(number=number, file=name, start=start, stop=stop, num_bytes=count * _ROW_BYTES)
            for number, (name, start, stop, count) in enumerate(parts)
        ]

    def blocks(self, chunk: Chunk, block_bytes: int) -> Iterator[Block]:
        """Yield the rows of a chunk, about this many bytes at a time."""
        dataset = Dataset.open(self.path)
        num_rows = max(1, block_bytes // _ROW_BYTES)
        rows = _held_back if Path(chunk.file).name == HELD_BACK else _of_users
        for table in rows(dataset, chunk, num_rows):
            kind = self._kind(table.column("timestamp").to_numpy()) if "timestamp" in table.column_names else None
            yield Block(rows=table, time_kind=kind, num_read=table.num_rows)

    def _kind(self, times: np.ndarray) -> TimeKind:
        if not len(times):
            return TimeKind()
        first = f"{self.path}: a timestamp is {times[0]}"
        if self.unit is not None:
            return TimeKind(first=first, declared=self.unit)
        told, is_silent = told_units(times)
        places = tuple((unit, f"{self.path}: a timestamp is {times[index]}") for unit, index in told.items())
        return TimeKind(first=first, told=places, is_silent=is_silent)


def is_stored(chunk: Chunk) -> bool:
    """Return whether a chunk is one of `StoredRows`, and not of a new file, which may have the same name."""
    return _MARK in chunk.file


def _marked(file: Path) -> str:
    return f"{file.parent}{_MARK}{file.name}"


def _of_users(dataset: Dataset, chunk: Chunk, num_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of a range of users."""
    assert chunk.stop is not None
    item_ids, user_ids = dataset.item_source_ids(), ids_of_users(dataset.folder / USERS, chunk.start, chunk.stop)
    offsets = dataset.offsets[chunk.start : chunk.stop + 1]
    for start in range(int(offsets[0]), int(offsets[-1]), num_rows):
        stop = min(start + num_rows, int(offsets[-1]))
        users = np.repeat(np.arange(len(offsets) - 1), np.diff(np.clip(offsets, start, stop)))
        columns = {
            "user": user_ids.take(pa.array(users)),
            "item": item_ids.take(pa.array(dataset.items[start:stop])),
        }
        if dataset.timestamps is not None:
            columns["timestamp"] = pa.array(dataset.timestamps[start:stop])
        yield pa.table(columns)


def ids_of_users(file: Path, start: int, stop: int) -> pa.Array:
    """Return the source ids of a range of users, from those row groups that have them."""
    with pq.ParquetFile(file) as parquet:
        counts = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        begins = np.concatenate([[0], np.cumsum(counts)])
        groups = [g for g in range(len(counts)) if begins[g] < stop and begins[g + 1] > start]
        ids = parquet.read_row_groups(groups, columns=["source_id"]).column(0).combine_chunks()
    return ids.slice(start - int(begins[groups[0]]), stop - start)


def _held_back(dataset: Dataset, chunk: Chunk, num_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of a row group of the rows held back."""
    file = dataset.folder / HELD_BACK  # this node's copy, which may be in another folder than the chunk says
    columns = ["user", "item", *(["timestamp"] if dataset.timestamps is not None else [])]
    try:
        with pq.ParquetFile(file, buffer_size=1 << 20) as parquet:
            for batch in parquet.iter_batches(num_rows, row_groups=[chunk.start], columns=columns):
                yield pa.Table.from_batches([batch])
    except UNREADABLE as error:
        raise _damaged(str(file), " ".join(str(error).split())) from None


def _row_groups(file: Path, *, has_times: bool) -> list[int]:
    """Return the number of rows of each row group of the rows held back, after checking the columns."""
    expected = {"user": pa.large_string(), "item": pa.large_string()} | ({"timestamp": pa.int64()} if has_times else {})
    try:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except UNREADABLE as error:
        raise _damaged(str(file), " ".join(str(error).split())) from None
    for name, kind in expected.items():
        if name not in schema.names or schema.field(name).type != kind:
            raise _damaged(str(file), f"has no column {name} of {kind}")
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _damaged(file: str, reason: str) -> InputError:
    return InputError(
        f"{file}: not the rows that --hold-back writes ({reason}); restore the file, or remove it to do without them"
    )
