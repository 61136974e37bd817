"""First stage: reads the pieces of the input, and writes ids as codes of a dictionary for each segment of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.formats.source import Block, InteractionSource, Piece
from data.prepare.engine.plan import KINDS, KnownIds, Segment, Sizes
from data.prepare.engine.work import Work, save, save_batches
from kernels.grouping import grouped_order, text_buckets

STAGE = "read"
_COLUMNS = {"users": "user", "items": "item"}
# Dictionaries of blocks are joined when they have as many ids as the segment's so far, and at least this many.
_JOIN_AT = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a task needs to read a piece."""

    work: Work
    source: InteractionSource
    pieces: Sequence[Piece]
    sizes: Sizes
    num_buckets: int


def read_piece(reading: Reading, number: int) -> None:
    """Write the segments of a piece."""
    piece, sizes = reading.pieces[number], reading.sizes
    num_read, dropped, segments = 0, dict[str, int](), list[dict[str, Any]]()
    has_times, has_splits = True, False
    with reading.work.writing(STAGE, number) as (folder, facts):
        growing = _GrowingSegment()

        def close() -> None:
            nonlocal growing
            segments.append(growing.write(folder / str(len(segments)), reading.num_buckets))
            growing = _GrowingSegment()

        for block in reading.source.blocks(piece, sizes.block_bytes):
            num_read += block.num_read
            for reason, count in block.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
            has_times, has_splits = block.time_kind is not None, "split" in block.rows.column_names
            growing.add(block)
            if growing.rows >= sizes.segment_rows or growing.id_bytes >= sizes.segment_id_bytes:
                close()
        if growing.rows:
            close()
        facts |= {"num_read": num_read, "dropped": dropped, "segments": segments}
        facts |= {"has_times": has_times, "has_splits": has_splits}


def write_known(known: KnownIds, folder: Path, num_buckets: int) -> Segment:
    """Write known ids as a segment without rows. As the first segment, it gives them the first numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, users=np.zeros(0, np.int32), items=np.zeros(0, np.int32))
    offsets = {
        kind: _write_ids(folder, kind, getattr(known, kind), np.zeros(0, np.int32), num_buckets) for kind in KINDS
    }
    return Segment(folder=folder, rows=0, offsets=offsets, blocks=[])


def segments_of(work: Work, number: int) -> Iterator[Segment]:
    """Return the segments that the task of a piece has written."""
    for place, facts in enumerate(work.facts(STAGE, number)["segments"]):
        yield Segment(folder=work.task(STAGE, number) / str(place), **facts)


class _GrowingSegment:
    def __init__(self) -> None:
        self.rows = 0
        self._ids = {kind: _GrowingDictionary() for kind in KINDS}
        self._times: list[np.ndarray] = []
        self._splits: list[np.ndarray] = []
        self._blocks: list[tuple[int, dict[str, Any] | None]] = []

    @property
    def id_bytes(self) -> int:
        return sum(ids.num_bytes for ids in self._ids.values())

    def add(self, block: Block) -> None:
        table = block.rows
        if not table.num_rows:
            return
        for kind in KINDS:
            self._ids[kind].add(table.column(_COLUMNS[kind]))
        if block.time_kind is not None:
            self._times.append(table.column("timestamp").to_numpy())
        if "split" in table.column_names:
            self._splits.append(table.column("split").to_numpy())
        self._blocks.append((table.num_rows, None if block.time_kind is None else asdict(block.time_kind)))
        self.rows += table.num_rows

    def write(self, folder: Path, num_buckets: int) -> dict[str, Any]:
        """Write the files of a `Segment`, and return its attributes but the folder."""
        folder.mkdir()
        offsets = {}
        for kind in KINDS:
            codes, ids = self._ids[kind].finished()
            offsets[kind] = _write_ids(folder, kind, ids, codes, num_buckets)
            save(folder, **{kind: codes})
        if self._times:
            save(folder, times=np.concatenate(self._times))
        if self._splits:
            save(folder, splits=np.concatenate(self._splits))
        return {"rows": self.rows, "offsets": offsets, "blocks": self._blocks}


class _GrowingDictionary:
    """Encodes text, block after block, by one dictionary in order of first appearance."""

    def __init__(self) -> None:
        self._ids = pa.array([], pa.large_string())
        self._new: list[pa.Array] = []
        self._num_new = 0
        # A row refers to an entry, which is a place in the dictionary of its block; an entry has a code.
        self._rows: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []
        self._num_entries = 0

    @property
    def num_bytes(self) -> int:
        return self._ids.nbytes + sum(ids.nbytes for ids in self._new)

    def add(self, column: pa.ChunkedArray) -> None:
        encoded = column.dictionary_encode().unify_dictionaries()
        ids = encoded.chunk(0).dictionary
        self._rows += [chunk.indices.to_numpy() + np.int32(self._num_entries) for chunk in encoded.chunks]
        self._new.append(ids)
        self._num_new += len(ids)
        self._num_entries += len(ids)
        if self._num_new >= max(len(self._ids), _JOIN_AT):
            self._join()

    def _join(self) -> None:
        if not self._new:
            return
        joined = pa.concat_arrays([self._ids, *self._new]).dictionary_encode()
        self._codes.append(joined.indices.to_numpy()[len(self._ids) :])
        self._ids, self._new, self._num_new = joined.dictionary, [], 0

    def finished(self) -> tuple[np.ndarray, pa.Array]:
        """Return the code of each row, int32, and the ids by code."""
        self._join()
        return np.concatenate(self._codes)[np.concatenate(self._rows)], self._ids


def _write_ids(folder: Path, kind: str, ids: pa.Array, codes: np.ndarray, num_buckets: int) -> list[int]:
    """Write what `Segment` says about a kind of ids, and return the start of each bucket."""
    ids = ids.cast(pa.large_string())
    if num_buckets == 1:
        order, offsets = np.arange(len(ids)), np.array([0, len(ids)])
    else:
        _, starts, characters = ids.buffers()
        starts = np.frombuffer(starts, np.int64)[ids.offset : ids.offset + len(ids) + 1]
        buckets = text_buckets(starts, np.frombuffer(characters or b"", np.uint8), num_buckets)
        order, offsets = grouped_order(buckets, num_buckets)
        ids = ids.take(pa.array(order))
    batches = [pa.record_batch({"id": ids.slice(start, stop - start)}) for start, stop in pairwise(offsets)]
    save_batches(folder / f"{kind}-ids.arrow", batches)
    rows = np.bincount(codes, minlength=len(ids))
    save(folder, **{f"{kind}-codes": order.astype(np.int32), f"{kind}-rows": rows})
    return [int(offset) for offset in offsets]
