"""Compute the co-occurrence matrix O (MDSRec Eq. 1-2) from the training parts of all sequences.

An event is one position of a training sequence; its item is the row of the entries that it adds.

    1. Copy the training items to work/sequences, so that later steps cannot read valid or test items.
    2. A task per range of events writes the events' entries (row, column, gap) to work/pairs, sorted by row
       (pair_files.py).
    3. A task per group of row blocks reads these rows from all those files, adds the entries up, normalises, keeps
       the strongest, and writes its blocks of O. A block with very many entries is cut into parts, with a task each.
    4. A task per block that was cut joins its parts.

Counts are whole numbers until step 3, so the result does not depend on how events are split.
"""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder import progress
from graph_builder.build_inputs import GraphSource
from graph_builder.executor import Executor
from graph_builder.row_blocks import RowWriter, is_written, join_rows, writing_rows
from graph_builder.stages.pair_files import PairFiles, narrowed
from graph_builder.stages.training_sequences import read_around, write_training_sequences
from graph_builder.stages.window import event_bounds, window_summary
from graph_builder.work_folder import WorkFolder, num_row_blocks, read_json, write_json
from kernels.backend import array_module
from kernels.cooccurrence.pair_counts import (
    RowSums,
    bucket_pairs,
    cut_rows,
    largest_counted_gap,
    normalized,
    row_lengths,
    strongest,
)
from kernels.cuda.launchers import host_bucket_pairs

PAIRS_PER_TASK = 1 << 22
# Entries that are added up in memory at a time, or one row if it has more. Memory: 8 bytes an entry, 40 a row, and 12
# per row of each file of entries.
ENTRIES_AT_A_TIME = 1 << 22
# Small blocks share a task, up to ENTRIES_AT_A_TIME. A block of more than this many times ENTRIES_AT_A_TIME (two or
# three seconds of work) is cut into parts, which are joined afterwards.
_BATCHES_PER_TASK = 32
_MAX_ROWS_PER_PART = 1 << 22
# O has at most this many blocks, because each block is three open files. With more items, blocks have more rows.
_MAX_BLOCKS = 256


@dataclass(frozen=True, kw_only=True)
class _Spec:
    """The parameters that every task needs. The object is small, because it is sent with each task."""

    work: Path
    folder: Path
    pairs: PairFiles
    event_bounds: tuple[int, ...]
    entries_at_a_time: int
    options: GraphConfig

    @property
    def large_block(self) -> int:
        """Number of entries above which a block is cut into several tasks."""
        return self.entries_at_a_time * _BATCHES_PER_TASK

    def block_stem(self, block: int) -> Path:
        return self.folder / f"block-{block:05d}"

    def part_stem(self, part: _RowPart) -> Path:
        return self.work / "cooccurrence" / f"rows-{part.rows.start:010d}"


@dataclass(frozen=True)
class _RowPart:
    """Rows that one task adds up: all rows of some blocks, or (not `is_whole`) some rows of a single block."""

    blocks: range
    rows: range
    is_whole: bool


def build_cooccurrence(
    source: GraphSource,
    work: WorkFolder,
    options: GraphConfig,
    executor: Executor,
    pairs_per_task: int,
    entries_at_a_time: int = ENTRIES_AT_A_TIME,
) -> dict[str, Any]:
    """Write GRAPH/cooccurrence and return the manifest's fields about it.

    The fields:

    - max_gap: the largest gap that is counted.
    - pairs_counted: pairs of positions at most max_gap apart that hold two different items.
    - pairs_beyond_window: pairs of positions further apart.
    - window_mass_kept: the share of all pairs of positions, each weighted as in O, that lie within the window. This
      and pairs_beyond_window are computed from the lengths of the histories alone, so they include pairs of an item
      with itself, which O does not.
    - num_pairs: entries of O before `max_neighbors` is applied.
    - num_pairs_kept: entries of O after `max_neighbors` is applied.
    - mass_kept: the sum of the kept entries' weights before normalisation, divided by the sum over all entries.

    Raises:
        InputError: an item id is out of range, or a gap is too large (`largest_gap`).
    """
    summary_path = work.path / "cooccurrence.json"
    summary = read_json(summary_path)
    if summary is not None:
        return summary
    progress.begin("copying training items")
    lengths = write_training_sequences(source, work.path / "sequences")
    max_gap = largest_gap(source, options)
    bounds = event_bounds(lengths, max_gap, pairs_per_task)
    block_rows = max(options.block_rows, num_row_blocks(_MAX_BLOCKS, source.num_items))
    pairs = PairFiles(
        folder=work.path / "pairs",
        num_items=source.num_items,
        block_rows=block_rows,
        max_gap=max_gap,
        num_ranges=len(bounds) - 1,
    )
    folder = work.graph / "cooccurrence"
    spec = _Spec(
        work=work.path,
        folder=folder,
        pairs=pairs,
        event_bounds=tuple(bounds.tolist()),
        entries_at_a_time=entries_at_a_time,
        options=options,
    )
    pending = [task for task in range(pairs.num_ranges) if not pairs.is_written(task)]
    for _ in executor.run_blocks(functools.partial(count_events, spec), pending, label="pairs", on_gpu=True):
        pass
    progress.begin("joining the tables of pairs")
    table = pairs.join_tables()
    records = _add_up(spec, np.diff(table[:, 1].sum(axis=0)), executor)
    mass, kept = (sum(record[name] for record in records) for name in ("mass", "mass_kept"))
    summary = {
        "block_rows": block_rows,
        "max_gap": max_gap,
        "pairs_counted": int(table[:, 1, -1].sum()) // 2,
        **window_summary(lengths, max_gap, options.distance_weighting),
        "num_pairs": sum(record["pairs"] for record in records),
        "num_pairs_kept": sum(record["pairs_kept"] for record in records),
        "mass_kept": kept / mass if mass else 1.0,
    }
    write_json(summary_path, summary)
    for finished in ("pairs", "sequences", "cooccurrence"):
        shutil.rmtree(work.path / finished, ignore_errors=True)
    return summary


def _add_up(spec: _Spec, entries: np.ndarray, executor: Executor) -> list[dict[str, Any]]:
    """Run steps 3 and 4. Return the records of all parts.

    Args:
        spec: parameters of the tasks.
        entries: int64 [blocks], the number of entries of each block of rows.
        executor: runs the tasks.
    """
    large = np.flatnonzero(entries > spec.large_block).tolist()
    cuts = dict(zip(large, executor.run_blocks(functools.partial(cut_block, spec), large), strict=True))
    parts = []
    for blocks in block_groups(entries, spec.entries_at_a_time, max(_MAX_ROWS_PER_PART // spec.pairs.block_rows, 1)):
        first, last = spec.pairs.rows_of(blocks)
        edges = cuts.get(blocks.start, [first, last])
        parts += [_RowPart(blocks, range(*rows), len(edges) == 2) for rows in itertools.pairwise(edges)]
    record_paths = [spec.part_stem(part).with_suffix(".json") for part in parts]
    pending = [part for part, path in zip(parts, record_paths, strict=True) if not path.exists()]
    for _ in executor.run_blocks(functools.partial(reduce_rows, spec), pending, label="cooccurrence"):
        pass
    stems: dict[int, list[Path]] = {}
    for part in parts:
        if not part.is_whole and not is_written(spec.block_stem(part.blocks.start)):
            stems.setdefault(part.blocks.start, []).append(spec.part_stem(part))
    for _ in executor.run_blocks(functools.partial(join_block, spec), list(stems.items()), label="joining"):
        pass
    return [read_json(path) for path in record_paths]


def block_groups(entries: np.ndarray, max_entries: int, max_blocks: int) -> list[range]:
    """Group blocks, so that a group has at most `max_entries` entries and `max_blocks` blocks, but at least one."""
    groups = [range(0)]
    total = 0
    for block, count in enumerate(entries.tolist()):
        total += count
        if block == 0 or total > max_entries or len(groups[-1]) == max_blocks:
            groups.append(range(block, block))
            total = count
        groups[-1] = range(groups[-1].start, block + 1)
    return groups[1:]


def count_events(spec: _Spec, task: int) -> None:
    """Run step 2 for one range of events."""
    first, last = spec.event_bounds[task : task + 2]
    surrounding = read_around(spec.work / "sequences", first, last, spec.pairs.max_gap)
    xp = array_module(spec.options.backend)
    on_host = xp is np or surrounding.items.dtype != np.int32
    bucket = bucket_pairs if on_host else functools.partial(host_bucket_pairs, xp)
    spec.pairs.write(task, bucket(surrounding.items, surrounding.offsets, spec.pairs.max_gap, surrounding.centers))


def cut_block(spec: _Spec, block: int) -> list[int]:
    """Return the rows at which a large block is cut into parts, including its first row and its end."""
    blocks = range(block, block + 1)
    rows = range(*spec.pairs.rows_of(blocks))
    lengths = row_lengths(rows, ((part.rows, part.starts) for part in spec.pairs.slices(blocks, rows)))
    cuts: list[int] = (rows.start + cut_rows(lengths, spec.large_block)).tolist()
    return cuts


def reduce_rows(spec: _Spec, part: _RowPart) -> None:
    """Run step 3 for one range of rows."""
    record = {"pairs": 0, "pairs_kept": 0, "mass": 0.0, "mass_kept": 0.0}
    by_block = itertools.groupby(_sums(spec, part), lambda some: some[0] // spec.pairs.block_rows)
    for block, some_rows in by_block:
        with writing_rows(spec.block_stem(block) if part.is_whole else spec.part_stem(part)) as writer:
            for _, lengths, columns, raw in some_rows:
                _write(writer, lengths, columns, raw, spec.options, record)
    write_json(spec.part_stem(part).with_suffix(".json"), record)


def _sums(spec: _Spec, part: _RowPart) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield `RowSums.sums` of all rows of a part, with about `entries_at_a_time` entries in memory."""
    pairs = spec.pairs
    slices = pairs.slices(part.blocks, part.rows)
    lengths = row_lengths(part.rows, ((pair_slice.rows, pair_slice.starts) for pair_slice in slices))
    for begin, end in itertools.pairwise(cut_rows(lengths, spec.entries_at_a_time).tolist()):
        rows = part.rows[begin:end]
        sums = RowSums(
            first_row=rows.start,
            lengths=lengths[begin:end],
            num_items=pairs.num_items,
            max_gap=pairs.max_gap,
            block_rows=pairs.block_rows,
        )
        for pair_slice in narrowed(slices, rows):
            sums.place(pairs.entries(pair_slice))
        yield from sums.sums(spec.options.distance_weighting)


def _write(
    writer: RowWriter,
    lengths: np.ndarray,
    columns: np.ndarray,
    raw: np.ndarray,
    options: GraphConfig,
    record: dict[str, float],
) -> None:
    """Normalise some rows, keep their strongest entries, write them, and add their counts to `record`."""
    weights = normalized(lengths, raw, options.normalization)
    mass = mass_kept = float(raw.sum(dtype=np.float64))
    record["pairs"] += len(raw)
    if options.max_neighbors is not None:
        lengths, kept = strongest(lengths, raw, options.max_neighbors)
        columns, weights = columns[kept], weights[kept]
        mass_kept = float(raw[kept].sum(dtype=np.float64))
    record["pairs_kept"] += len(columns)
    record["mass"] += mass
    record["mass_kept"] += mass_kept
    writer.append(lengths, columns, weights)


def join_block(spec: _Spec, block: tuple[int, list[Path]]) -> None:
    """Run step 4 for one block and the stems of its parts."""
    join_rows(spec.block_stem(block[0]), block[1])


def largest_gap(source: GraphSource, options: GraphConfig) -> int:
    """Return G, the largest gap that is counted: the window or, if smaller, that of the longest training history.

    Raises:
        InputError: (item, gap) does not fit into a key of 63 bits, or the gap into 32 bits.
    """
    longest = int(np.max(source.train_end, initial=0))
    max_gap = max(1, min(longest - 1, options.window or longest))
    limit = largest_counted_gap(source.num_items)
    if max_gap > limit:
        raise InputError(
            f"graph_options.window={options.window}: the longest training history has {longest} items, and "
            f"{source.num_items} items leave room for gaps up to {limit}; set a smaller window"
        )
    return max_gap
