"""The files of entries (row, column, gap) of O: some tasks write them, and others read and add them up.

    events-00000.bin          the entries of one range of events: columns, gaps, rows and starts of PairEntries, one
                              after the other; 5 bytes an entry for N <= 2^31 and gaps below 256, and 12 a row
    events-00000.blocks.npy   int64 [2, blocks+1]: the number of rows and of entries before each block of rows;
                              written last
    blocks.npy                int64 [ranges of events, 2, blocks+1]: the same for all ranges of events

The rows of a range lie in four slices of a file. The slices are read rather than mapped: a file is opened once for
each pair of a range of events and a range of rows, and a read takes a tenth of the time of a new map.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from graph_builder.work_folder import num_row_blocks
from kernels.cooccurrence.pair_counts import PairEntries, gap_dtype, item_dtype
from storage.array_file import map_array, save_array
from storage.durable_files import replacing


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """The files' folder and form. The object is small, because it is sent with each task."""

    folder: Path
    num_items: int
    block_rows: int
    max_gap: int
    num_ranges: int

    @property
    def num_blocks(self) -> int:
        return num_row_blocks(self.block_rows, self.num_items)

    def is_written(self, index: int) -> bool:
        return self._blocks_path(index).exists()

    def write(self, index: int, entries: PairEntries) -> None:
        """Write the entries of one range of events."""
        with replacing(self._path(index)) as temporary, temporary.open("wb") as file:
            for array in (entries.columns, entries.gaps, entries.rows, entries.starts):
                array.tofile(file)
        edges = np.arange(self.num_blocks + 1) * self.block_rows
        rows_before = np.searchsorted(entries.rows, edges)
        save_array(self._blocks_path(index), np.stack([rows_before, entries.starts[rows_before]]))

    def join_tables(self) -> np.ndarray:
        """Write blocks.npy and return it. All ranges of events must be written before."""
        if not self._table_path.exists():
            tables = [np.load(self._blocks_path(index), allow_pickle=False) for index in range(self.num_ranges)]
            save_array(self._table_path, np.stack(tables))
        return map_array(self._table_path)

    def rows_of(self, blocks: range) -> tuple[int, int]:
        """Return the first row of some blocks, and the row after their last."""
        return blocks.start * self.block_rows, min(blocks.stop * self.block_rows, self.num_items)

    def slices(self, blocks: range, rows: range) -> list[PairSlice]:
        """Return the slices of all files that hold entries of `rows`, which must lie in `blocks`. No entry is read."""
        table = map_array(self._table_path)
        items = item_dtype(self.num_items)
        found = []
        # For each file: the number of rows before the blocks, before the blocks' end, and in all; the same for
        # entries.
        edges = np.asarray(table[:, :, [blocks.start, blocks.stop, -1]]).tolist()
        for index, ((first, last, num_rows), (_, _, num_entries)) in enumerate(edges):
            if first == last:
                continue
            rows_begin = num_entries * (items.itemsize + gap_dtype(self.max_gap).itemsize)
            starts_begin = rows_begin + num_rows * items.itemsize
            with self._path(index).open("rb", buffering=0) as file:
                row_ids = _read(file, rows_begin + first * items.itemsize, items, last - first)
                starts = _read(file, starts_begin + first * 8, np.dtype(np.int64), last - first + 1)
            found.append(PairSlice(index=index, num_entries=num_entries, rows=row_ids, starts=starts))
        return narrowed(found, rows)

    def entries(self, part: PairSlice) -> PairEntries:
        """Read the entries of a slice. `starts` begins at the slice's first entry, and so do `columns` and `gaps`."""
        items, gaps = item_dtype(self.num_items), gap_dtype(self.max_gap)
        first, count = int(part.starts[0]), int(part.starts[-1] - part.starts[0])
        with self._path(part.index).open("rb", buffering=0) as file:
            columns = _read(file, first * items.itemsize, items, count)
            gap = _read(file, part.num_entries * items.itemsize + first * gaps.itemsize, gaps, count)
        return PairEntries(part.rows, part.starts, columns, gap)

    def _path(self, index: int) -> Path:
        return self.folder / f"events-{index:05d}.bin"

    def _blocks_path(self, index: int) -> Path:
        return self.folder / f"events-{index:05d}.blocks.npy"

    @property
    def _table_path(self) -> Path:
        return self.folder / "blocks.npy"


@dataclass(frozen=True, kw_only=True)
class PairSlice:
    """Some rows of one file.

    Attributes:
        index: number of the file.
        num_entries: entries of the whole file.
        rows: as in PairEntries.
        starts: as in PairEntries, except that it begins at the slice's first entry rather than at 0.
    """

    index: int
    num_entries: int
    rows: np.ndarray
    starts: np.ndarray


def narrowed(slices: list[PairSlice], rows: range) -> list[PairSlice]:
    """Cut slices down to `rows`, and leave out slices without any of these rows."""
    found = []
    for part in slices:
        begin, end = np.searchsorted(part.rows, [rows.start, rows.stop]).tolist()
        if begin < end:
            found.append(
                PairSlice(
                    index=part.index,
                    num_entries=part.num_entries,
                    rows=part.rows[begin:end],
                    starts=part.starts[begin : end + 1],
                )
            )
    return found


def _read(file: FileIO, begin: int, dtype: np.dtype, count: int) -> np.ndarray:
    array = np.empty(count, dtype=dtype)
    rest = array.view(np.uint8).data
    file.seek(begin)
    while rest:  # one call reads at most 2 GiB
        num_bytes = file.readinto(rest)
        assert num_bytes
        rest = rest[num_bytes:]
    return array
