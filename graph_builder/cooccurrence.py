"""The co-occurrence matrix O (MDSRec Eq. 1) from the training parts of all sequences.

    1. the training items are copied to work/sequences: nothing later can see valid or test items
    2. one task per user range counts its pairs: work/pairs/users-00000.npy, int64 [2, distinct]
       (sorted keys, counts), so each row range is a slice of it
    3. one task per row range adds those slices up, normalises, keeps the strongest, and writes its
       block of O

Counts are whole numbers until step 3, so how users are split leaves no trace in the result.
"""

from __future__ import annotations

import functools
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError
from configs.schema import GraphConfig
from graph_builder.executor import Executor
from graph_builder.row_blocks import save_rows
from graph_builder.source import GraphSource
from graph_builder.work import (
    WorkFolder,
    load_array,
    num_row_blocks,
    read_json,
    replacing,
    row_range,
    save_array,
    write_json,
)
from kernels.pair_counts import add_counts, count_pairs, keys_fit, pair_weights

PAIRS_PER_TASK = 1 << 22
# Above block_rows * this many items, blocks of O grow instead of getting more: each is three open files.
_MAX_BLOCKS = 1024
_COPIED_AT_A_TIME = 1 << 22


@dataclass(frozen=True)
class _Spec:
    """What the tasks need to know; small, so that it travels with each."""

    work: Path
    folder: Path
    num_items: int
    max_gap: int
    user_bounds: tuple[int, ...]
    block_rows: int
    options: GraphConfig

    def pairs_path(self, task: int) -> Path:
        return self.work / "pairs" / f"users-{task:05d}.npy"

    def record_path(self, block: int) -> Path:
        return self.work / "cooccurrence" / f"block-{block:05d}.json"


def build_cooccurrence(
    source: GraphSource, work: WorkFolder, options: GraphConfig, executor: Executor, pairs_per_task: int
) -> dict[str, Any]:
    """Write GRAPH/cooccurrence and return what the manifest says of it.

    Raises:
        InputError: an item id is out of range, or histories are so long that a window is needed.
    """
    summary_path = work.path / "cooccurrence.json"
    summary = read_json(summary_path)
    if summary is not None:
        return summary
    lengths = _write_training_sequences(source, work.path / "sequences")
    max_gap = largest_gap(source, options)
    spec = _Spec(
        work=work.path,
        folder=work.graph / "cooccurrence",
        num_items=source.num_items,
        max_gap=max_gap,
        user_bounds=tuple(user_bounds(lengths, max_gap, pairs_per_task).tolist()),
        block_rows=max(options.block_rows, num_row_blocks(_MAX_BLOCKS, source.num_items)),
        options=options,
    )
    tasks = [task for task in range(len(spec.user_bounds) - 1) if not spec.pairs_path(task).exists()]
    for _ in executor.run_blocks(functools.partial(count_users, spec), tasks, label="pairs"):
        pass
    num_blocks = num_row_blocks(spec.block_rows, spec.num_items)
    pending = [block for block in range(num_blocks) if not spec.record_path(block).exists()]
    for _ in executor.run_blocks(functools.partial(reduce_rows, spec), pending, label="cooccurrence"):
        pass
    records = [read_json(spec.record_path(block)) for block in range(num_blocks)]
    mass, kept = (sum(record[name] for record in records) for name in ("mass", "mass_kept"))
    summary = {
        "block_rows": spec.block_rows,
        "max_gap": spec.max_gap,
        "num_pairs": sum(record["pairs"] for record in records),
        "num_pairs_kept": sum(record["pairs_kept"] for record in records),
        "mass_kept": kept / mass if mass else 1.0,
    }
    write_json(summary_path, summary)
    for finished in ("pairs", "sequences", "cooccurrence"):
        shutil.rmtree(work.path / finished, ignore_errors=True)
    return summary


def user_bounds(lengths: np.ndarray, max_gap: int, pairs_per_task: int) -> np.ndarray:
    """Users split into ranges of about `pairs_per_task` pairs, one user at least: int64 [tasks+1]."""
    gaps = np.minimum(max_gap, np.maximum(lengths - 1, 0))
    pairs = np.cumsum(gaps * lengths - gaps * (gaps + 1) // 2)
    task = np.maximum(pairs - 1, 0) // pairs_per_task
    inner = np.flatnonzero(task[1:] != task[:-1]) + 1
    return np.concatenate([[0], inner, [len(lengths)]]).astype(np.int64)


def count_users(spec: _Spec, task: int) -> None:
    """Step 2 for one range of users."""
    first, last = spec.user_bounds[task : task + 2]
    offsets = np.asarray(load_array(spec.work / "sequences" / "offsets.npy")[first : last + 1])
    items = np.asarray(load_array(spec.work / "sequences" / "items.npy")[offsets[0] : offsets[-1]])
    keys, counts = count_pairs(items, offsets - offsets[0], spec.num_items, spec.max_gap)
    save_array(spec.pairs_path(task), np.stack([keys, counts]))


def reduce_rows(spec: _Spec, block: int) -> None:
    """Step 3 for one range of rows."""
    rows = row_range(block, spec.block_rows, spec.num_items)
    edges = np.array([rows.start, rows.stop]) * (spec.num_items * spec.max_gap)
    empty = np.zeros(0, dtype=np.int64)
    parts = [(empty, empty)]
    for task in range(len(spec.user_bounds) - 1):
        pairs = load_array(spec.pairs_path(task))
        begin, end = np.searchsorted(pairs[0], edges)
        parts.append((np.asarray(pairs[0, begin:end]), np.asarray(pairs[1, begin:end])))
    keys, counts = add_counts(parts)
    item, columns, raw = pair_weights(keys, counts, spec.num_items, spec.max_gap, spec.options.distance_weighting)
    local = item - rows.start
    num_rows = rows.stop - rows.start
    weights = normalized(local, raw, num_rows, spec.options.normalization)
    kept = strongest(local, raw, num_rows, spec.options.max_neighbors)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(local[kept], minlength=num_rows))]).astype(np.int64)
    save_rows(spec.folder, block, indptr, columns[kept], weights[kept])
    mass = {"mass": raw.sum(dtype=np.float64), "mass_kept": raw[kept].sum(dtype=np.float64)}
    record = {"pairs": len(raw), "pairs_kept": int(kept.sum()), **{name: float(value) for name, value in mass.items()}}
    write_json(spec.record_path(block), record)


def normalized(rows: np.ndarray, weights: np.ndarray, num_rows: int, normalization: str) -> np.ndarray:
    """Weights float32 [nnz] over the L2 or L1 norm of their full row, computed in float64 in stored order."""
    if normalization == "none":
        return weights
    wide = weights.astype(np.float64)
    totals = np.bincount(rows, weights=wide * wide if normalization == "row_l2" else wide, minlength=num_rows)
    norms = np.sqrt(totals) if normalization == "row_l2" else totals
    return (wide / norms[rows]).astype(np.float32)


def strongest(rows: np.ndarray, weights: np.ndarray, num_rows: int, max_neighbors: int | None) -> np.ndarray:
    """Which entries are among the `max_neighbors` largest of their row, bool [nnz]; ties: lower column.

    Entries are sorted by row, then column.
    """
    if max_neighbors is None:
        return np.ones(len(rows), dtype=bool)
    order = np.lexsort((-weights, rows))  # stable: equal weights stay in column order
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))])
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows)) - starts[rows[order]]
    return rank < max_neighbors


def largest_gap(source: GraphSource, options: GraphConfig) -> int:
    """G, the largest gap that is counted: the window, or what the longest training history allows.

    Raises:
        InputError: (item, item, gap) has no room in an int64 key.
    """
    longest = int(np.max(source.train_end, initial=0))
    max_gap = max(1, min(longest - 1, options.window or longest))
    if not keys_fit(source.num_items, max_gap):
        raise InputError(
            f"graph_options.window={options.window}: the longest training history has {longest} items, and "
            f"{source.num_items} items leave room for gaps up to {(2**63 - 1) // source.num_items**2}; "
            "set a smaller window"
        )
    return max_gap


def _write_training_sequences(source: GraphSource, folder: Path) -> np.ndarray:
    """Step 1: `items.npy` int64 and `offsets.npy` int64 [users+1]; returns the lengths int64 [users]."""
    lengths = np.asarray(source.train_end, dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    assert ((lengths >= 0) & (lengths <= np.diff(source.offsets))).all()
    if (folder / "offsets.npy").exists():
        return lengths
    copies = user_bounds(np.diff(source.offsets), 1, _COPIED_AT_A_TIME)
    with replacing(folder / "items.npy") as temporary:
        items = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int64, shape=(int(offsets[-1]),))
        for first, last in itertools.pairwise(copies):
            begins = np.asarray(source.offsets[first : last + 1], dtype=np.int64)
            position = np.arange(begins[0], begins[-1]) - np.repeat(begins[:-1], np.diff(begins))
            trained = position < np.repeat(lengths[first:last], np.diff(begins))
            piece = np.asarray(source.items[begins[0] : begins[-1]])[trained]
            if len(piece) and not (piece.min() >= 0 and piece.max() < source.num_items):
                raise InputError(
                    f"dataset {source.path}: users {first} to {last - 1} hold a training item outside "
                    f"[0, {source.num_items}); prepare the dataset again"
                )
            items[offsets[first] : offsets[last]] = piece
        items.flush()
    save_array(folder / "offsets.npy", offsets)
    return lengths
