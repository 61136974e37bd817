"""First stage: reads the chunks of the input, and writes ids as codes of a dictionary for each segment of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.formats.held import Held, sum_of_held
from data.formats.source import Block, Chunk, InteractionSource
from data.prepare.engine.plan import KINDS, Kind, KnownIds, Segment, Sizes
from data.prepare.engine.work import Work, save, save_batches
from kernels.grouping import grouped_order, text_buckets

STAGE = "read"
_COLUMNS: dict[Kind, str] = {"users": "user", "items": "item"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a task needs to read a chunk."""

    work: Work
    source: InteractionSource
    chunks: Sequence[Chunk]
    sizes: Sizes
    num_buckets: int


def read_chunk(reading: Reading, number: int) -> None:
    """Write the segments of a chunk."""
    chunk, sizes = reading.chunks[number], reading.sizes
    num_read, dropped, segments = 0, dict[str, int](), list[dict[str, Any]]()
    has_times, has_splits, held = True, False, tuple[Held, ...]()
    with reading.work.writing(STAGE, number) as (folder, facts):
        growing = _GrowingSegment()

        def close() -> None:
            nonlocal growing
            segments.append(growing.write(folder / str(len(segments)), reading.num_buckets))
            growing = _GrowingSegment()

        for block in reading.source.blocks(chunk, sizes.block_bytes):
            num_read += block.num_read
            for reason, count in block.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
            held = sum_of_held([held, block.held])
            has_times, has_splits = block.time_kind is not None, "split" in block.rows.column_names
            growing.add(block)
            if growing.rows >= sizes.segment_rows or growing.id_bytes >= sizes.segment_id_bytes:
                close()
        if growing.rows:
            close()
        facts |= {"num_read": num_read, "dropped": dropped, "segments": segments}
        facts |= {"has_times": has_times, "has_splits": has_splits, "held": [asdict(condition) for condition in held]}


def write_known(known: KnownIds, folder: Path, num_buckets: int) -> Segment:
    """Write known ids as a segment without rows. As the first segment, it gives them the first numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, users=np.zeros(0, np.int32), items=np.zeros(0, np.int32))
    offsets = {
        kind: _write_ids(folder, kind, getattr(known, kind), np.zeros(0, np.int32), num_buckets) for kind in KINDS
    }
    return Segment(folder=folder, rows=0, offsets=offsets, blocks=[])


def segments_of(work: Work, number: int) -> Iterator[Segment]:
    """Return the segments that the task of a chunk has written."""
    for place, facts in enumerate(work.facts(STAGE, number)["segments"]):
        yield Segment(folder=work.task(STAGE, number) / str(place), **facts)


class _GrowingSegment:
    def __init__(self) -> None:
        self.rows = 0
        self.id_bytes = 0
        self._ids: dict[Kind, list[pa.Array]] = {kind: [] for kind in KINDS}
        self._times: list[np.ndarray] = []
        self._splits: list[np.ndarray] = []
        self._blocks: list[tuple[int, dict[str, Any] | None]] = []

    def add(self, block: Block) -> None:
        table = block.rows
        if not table.num_rows:
            return
        for kind in KINDS:
            chunks = table.column(_COLUMNS[kind]).chunks
            self._ids[kind] += chunks
            self.id_bytes += sum(chunk.nbytes for chunk in chunks)
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
            # One dictionary for all rows. Encoding block by block and joining the dictionaries takes three times as
            # long where most ids of a block are different.
            encoded = pa.concat_arrays(self._ids.pop(kind)).dictionary_encode()
            codes = encoded.indices.to_numpy()
            offsets[kind] = _write_ids(folder, kind, encoded.dictionary, codes, num_buckets)
            save(folder, **{kind: codes})
        if self._times:
            save(folder, times=np.concatenate(self._times))
        if self._splits:
            save(folder, splits=np.concatenate(self._splits))
        return {"rows": self.rows, "offsets": offsets, "blocks": self._blocks}


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
