"""Predict the time, memory and bytes of each stage of a graph build except the neighbour search.

The docstrings state the formulas. `plan` has their legend. The neighbour search is in `neighbor_search`.
"""

from __future__ import annotations

from graph_builder.cost.ceilings import Ceilings
from graph_builder.cost.request import PlanRequest, Stage
from graph_builder.stages.clusters import ROWS_PER_TASK as KMEANS_ROWS
from graph_builder.stages.cooccurrence import ENTRIES_AT_A_TIME, PAIRS_PER_TASK
from graph_builder.work_folder import num_row_blocks
from kernels.cooccurrence.pair_counts import gap_dtype, item_dtype
from kernels.spmm import MAX_GATHERED_ROWS

# float64 passes over a block of points in a k-means step: squares 3, product 1, distances 6, sums 2.
_KMEANS_PASSES = 12
_SAMPLE_PER_CENTER, _MAX_SAMPLE = 256, 1 << 15  # the sample of `clusters.initial_centers`
_NPY_EDGE_BYTES = 12  # bytes of an entry of O: column int64, weight float32


def features_stage(modality: str, request: PlanRequest, ceilings: Ceilings) -> Stage:
    """Predict the pass over the raw features: N d s bytes, on cores. Memory: a block of rows, and a flag per value."""
    shape = request.modalities[modality]
    num_tasks = num_row_blocks(request.options.block_rows, request.num_items)
    moved = request.num_items * shape.width * shape.itemsize
    terms = {"rows": moved / (ceilings.row_gb_per_s * 1e9) / min(request.core_tasks, num_tasks)}
    block = min(request.options.block_rows, request.num_items)
    return Stage(
        name=f"features-{modality}",
        num_tasks=num_tasks,
        terms=terms,
        memory=block * shape.width * (shape.itemsize + 1),
        bytes_moved=moved,
    )


def num_entries(request: PlanRequest) -> int:
    """Return an upper bound of nnz: the least of P, all pairs of items, and max_neighbors per item.

    Pairs that occur several times make nnz smaller.
    """
    limit = min(2 * request.num_pairs, request.num_items * (request.num_items - 1))
    most = request.options.max_neighbors
    return limit if most is None else min(limit, request.num_items * most)


def cooccurrence_stage(request: PlanRequest, ceilings: Ceilings) -> Stage:
    """Predict co-occurrence: P entries are counted and added up at mpairs_per_s, and written and read once in between.

    An entry is a column and a gap: 4 + 1 bytes for at most 2^31 items and gaps of at most 255. O takes 12 bytes per
    entry and 8 per row. Memory of a task that counts: an entry per directed pair of PAIRS_PER_TASK, and 30 bytes per
    pair. Memory of a task that adds up: 8 bytes for each of ENTRIES_AT_A_TIME, and 40 per row, with at most one row
    per entry.
    """
    directed = 2 * request.num_pairs
    gap = gap_dtype(max(1, min(request.longest, request.options.window or request.longest)))
    entry = item_dtype(request.num_items).itemsize + gap.itemsize
    stored = num_entries(request) * _NPY_EDGE_BYTES + 8 * request.num_items
    moved = 2 * directed * entry + stored
    num_tasks = max(1, num_row_blocks(PAIRS_PER_TASK, request.num_pairs))
    terms = {
        "pairs": directed / (ceilings.mpairs_per_s * 1e6) / min(request.core_tasks, num_tasks),
        "files": moved / (ceilings.storage_gb_per_s * 1e9),
    }
    counted = min(PAIRS_PER_TASK, request.num_pairs) * (2 * entry + 30)
    at_a_time = min(ENTRIES_AT_A_TIME, directed)
    added_up = 8 * at_a_time + 40 * min(request.num_items, at_a_time)
    return Stage(
        name="cooccurrence", num_tasks=num_tasks, terms=terms, memory=max(counted, added_up), bytes_moved=moved
    )


def inject_stage(modality: str, request: PlanRequest, ceilings: Ceilings) -> Stage:
    """Predict injection, mu O E + E: a row of E is added up per entry of O.

    For a GPU, a core reads the rows, each at most once per task. Files: N d float32 are written as blocks, read, and
    written joined. Memory of a task: 12 bytes per gathered value, for MAX_GATHERED_ROWS rows at a time, and its block
    of the result.
    """
    shape = request.modalities[modality]
    nnz = num_entries(request) if request.options.mu else 0
    num_tasks = num_row_blocks(request.options.block_rows, request.num_items)
    written = 3 * request.num_items * shape.width * 4
    gathered = nnz * shape.width * shape.itemsize
    fetched = min(gathered, num_tasks * request.num_items * shape.width * shape.itemsize)
    units = min(request.tasks, num_tasks)
    terms = {
        "rows": fetched / (ceilings.row_gb_per_s * 1e9) / units if request.gpus else 0.0,
        "sums": gathered / (ceilings.inject_gb_per_s * 1e9) / units,
        "files": written / (ceilings.storage_gb_per_s * 1e9),
    }
    block = min(request.options.block_rows, request.num_items)
    memory = (12 * min(MAX_GATHERED_ROWS, nnz) + 8 * block) * shape.width
    return Stage(
        name=f"inject-{modality}",
        num_tasks=num_tasks,
        terms=terms,
        memory=memory,
        bytes_moved=fetched + gathered + written,
    )


def clusters_stage(modality: str, request: PlanRequest, ceilings: Ceilings) -> Stage:
    """Predict k-means: each of Lloyd's steps, and a last one for the labels, takes 2 N k d flops and 12 passes.

    A pass reads or writes N d float64. In every step a core reads the rows and converts them to float64, for a GPU
    too. The number of steps is an upper bound, because k-means stops when nothing changes. The choice of the first
    centres runs in one process and makes 5 passes over the sample per centre. Memory of a task: 3 float64 copies of
    its block.
    """
    shape, options = request.modalities[modality], request.options
    steps = options.kmeans_iterations + 1
    num_tasks = num_row_blocks(KMEANS_ROWS, request.num_items)
    units = min(request.tasks, num_tasks)
    values = request.num_items * shape.width
    moved = steps * values * 8 * _KMEANS_PASSES
    sample = min(request.num_items, _SAMPLE_PER_CENTER * options.num_centers, _MAX_SAMPLE)
    terms = {
        "rows": steps * values * 8 / (ceilings.row_gb_per_s * 1e9) / units,
        "product": steps * 2 * values * options.num_centers / (ceilings.float64_gemm_tflops * 1e12) / units,
        "memory": moved / (ceilings.memory_gb_per_s * 1e9) / units,
        "start": options.num_centers * sample * shape.width * 8 * 5 / (ceilings.memory_gb_per_s * 1e9),
    }
    memory = 3 * 8 * min(KMEANS_ROWS, request.num_items) * shape.width
    return Stage(
        name=f"clusters-{modality}",
        num_tasks=num_tasks * steps,
        terms=terms,
        memory=memory,
        bytes_moved=moved + steps * values * shape.itemsize,
    )
