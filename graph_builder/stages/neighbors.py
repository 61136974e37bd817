"""The neighbours of a modality: the exact cosine top-H of the injected features (MDSRec Eq. 4-5).

    1. order   the items to search are sorted by cluster and cut into row ranges
    2. blocks  a task per block, which is a pair of ranges: candidate lists for both ranges
    3. merges  after each round of blocks (`triangle`): one list per row; the block files are removed
    4. finish  a task per range: candidates are ranked in float64, overflowed rows are searched again

Each pair of items is scored once. A block is finished if its file exists, or if the merged files of both of its
ranges name it. So a build that was killed at any time computes no finished block again. `kernels.cosine.cosine_topk`
states the ranking and the proof.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from configs.schema import GraphConfig
from graph_builder import progress
from graph_builder.executor import Executor
from graph_builder.stages.injection import FeatureSpec
from graph_builder.stages.neighbor_tasks import (
    NeighborSpec,
    find_residual,
    finish_range,
    merge_range,
    merged_blocks,
    order_items,
    search_block,
)
from graph_builder.stages.triangle import block_rounds, blocks_of
from graph_builder.work_folder import num_row_blocks, read_json, write_json
from kernels.cosine.cosine_topk import Precision
from kernels.cosine.exact_ranking import finish_copies
from storage.array_file import map_array
from storage.durable_files import replacing

# Rows of a range unless the config says otherwise. On a core, a block of such ranges is seconds of work. A GPU needs
# larger blocks; a million rows of 512 float16 are 1 GB. Several GPUs cut fewer rows than that among them. There are at
# most 64 ranges; with more items they are larger.
_ROWS_ON_CPU = 1 << 15
_ROWS_ON_GPU = 1 << 20
_MAX_RANGES = 64


def build_neighbors(
    features: FeatureSpec, options: GraphConfig, executor: Executor, rows_per_task: int
) -> dict[str, Any]:
    """Write GRAPH/neighbors/<modality>.npy and .scores.npy. Return the manifest's fields about them.

    A build must continue with the `rows_per_task` and the `chosen_precision` that it began with, because lists from
    blocks with different ranges or different error bounds cannot be merged.
    """
    spec = NeighborSpec(
        features=features,
        rows_per_task=rows_per_task,
        others=options.num_neighbors - options.include_self,
        include_self=options.include_self,
        precision=chosen_precision(options, executor.gpus > 0),
        threads=options.cpus_per_task,
    )
    record_path = spec.folder / "record.json"
    record = read_json(record_path)
    if record is not None:
        return record
    modality = features.modality
    if not (spec.folder / "order.npy").exists():
        # This runs as a task, because the driver of a submitted job may be a small machine.
        progress.begin(f"order of items by {modality} cluster")
        list(executor.run_blocks(functools.partial(order_items, spec), [0]))
    if spec.others:
        if spec.precision == "float16":
            pending = [index for index in range(spec.num_ranges) if not spec.residual_path(index).exists()]
            residuals = executor.run_blocks(functools.partial(find_residual, spec), pending, on_gpu=True)
            list(progress.counted(residuals, f"residuals-{modality}", len(pending)))
        _search(spec, executor)
    pending = [index for index in range(spec.num_ranges) if not spec.finished_path(index).exists()]
    list(executor.run_blocks(functools.partial(finish_range, spec), pending, label=f"finish-{modality}", on_gpu=True))
    progress.begin(f"writing lists of {modality}")
    fallback, searched_in_full = _write_lists(spec)
    searched = len(map_array(spec.folder / "order.npy"))
    record = {
        "certified_fraction": 1 - fallback / max(searched, 1),
        "fallback_rows": fallback,
        "float64_rows": searched_in_full,
        "copies_left_out": map_array(spec.folder / "copies.npy").shape[1],
    }
    write_json(record_path, record)
    for index in range(spec.num_ranges):
        spec.range_path(index).unlink(missing_ok=True)
        spec.finished_path(index).unlink(missing_ok=True)
    return record


def default_rows_per_task(num_items: int, gpus: int) -> int:
    """Return the rows on each side of a block if the config does not say; `gpus` is 0 if blocks run on cores.

    G GPUs get at least G ranges. A block of two ranges then takes each GPU the same time as two blocks of one range
    with itself, so G (G - 1) / 2 of the first and G of the second can be divided evenly.
    """
    rows = _ROWS_ON_CPU
    if gpus == 1:
        rows = _ROWS_ON_GPU
    elif gpus > 1:
        rows = min(_ROWS_ON_GPU, max(_ROWS_ON_CPU, num_row_blocks(gpus, num_items)))
    return max(rows, num_row_blocks(_MAX_RANGES, num_items))


def chosen_precision(options: GraphConfig, uses_gpu: bool) -> Precision:
    """Return the config's precision; if it is "auto", float16 if the cluster has GPUs, else float32.

    A task's own machine does not decide, because all tasks must use the same precision.
    """
    if options.precision != "auto":
        return options.precision
    return "float16" if uses_gpu else "float32"


def _search(spec: NeighborSpec, executor: Executor) -> None:
    """Run steps 2 and 3, or the part of them that an interrupted call has not finished."""
    merged = {index: merged_blocks(spec, index) for index in range(spec.num_ranges)}
    modality = spec.features.modality
    for round_blocks in block_rounds(spec.num_ranges):
        done = {block for block in round_blocks if all(block in merged[index] for index in block)}
        pending = [block for block in round_blocks if block not in done and not spec.block_path(block).exists()]
        if executor.gpus > 1:
            # Blocks of one range with itself take half as long. They run last, so that all GPUs end at about the same
            # time.
            pending.sort(key=lambda block: block[0] == block[1])
        search = functools.partial(search_block, spec)
        list(executor.run_blocks(search, pending, label=f"neighbors-{modality}", on_gpu=True))
        new = {index: [b for b in blocks_of(round_blocks, index) if b not in merged[index]] for index in merged}
        tasks = [(index, blocks) for index, blocks in new.items() if blocks]
        list(executor.run_blocks(functools.partial(merge_range, spec), tasks, label=f"merge-{modality}"))
        for index, blocks in tasks:
            merged[index].update(blocks)
        for block in round_blocks:
            spec.block_path(block).unlink(missing_ok=True)


def _write_lists(spec: NeighborSpec) -> tuple[int, int]:
    """Write all lists in item order. The list of a missing item is the item itself, then padding.

    Memory: a range at a time. Returns the number of rows that the search did not certify, and the number of those
    scored against all items in float64.
    """
    features = spec.features
    folder = features.work.graph / "neighbors"
    shape = (features.num_items, spec.num_neighbors)
    order = map_array(spec.folder / "order.npy")
    fallback = np.zeros(2, dtype=np.int64)
    with (
        replacing(folder / f"{features.modality}.npy") as ids_file,
        replacing(folder / f"{features.modality}.scores.npy") as scores_file,
    ):
        ids = np.lib.format.open_memmap(ids_file, mode="w+", dtype=np.int64, shape=shape)
        scores = np.lib.format.open_memmap(scores_file, mode="w+", dtype=np.float32, shape=shape)
        for first in range(0, shape[0], spec.rows_per_task):
            last = min(first + spec.rows_per_task, shape[0])
            ids[first:last] = -1
            ids[first:last, 0] = np.arange(first, last)
        for index in range(spec.num_ranges):
            with np.load(spec.finished_path(index), allow_pickle=False) as arrays:
                items = order[spec.rows(index)]
                ids[items], scores[items] = arrays["ids"], arrays["scores"]
                fallback += arrays["fallback"]
        copies, originals = (np.asarray(part) for part in map_array(spec.folder / "copies.npy"))
        if len(copies):
            rows, squares = (np.asarray(map_array(path)) for path in (features.injected, features.squares))
            ids[copies], scores[copies] = finish_copies(rows, squares, copies, originals, ids, spec.include_self)
        ids.flush()
        scores.flush()
    return int(fallback[0]), int(fallback[1])
