"""What a graph build will take, before it runs: seconds, memory and bytes per stage, from ceilings.

Every formula of the prediction is in this file, in the docstring of its stage (`plan_tables` prints them). A
stage's seconds are the sum of its terms, each an amount of work over the rate of one worker
(`ceilings.Ceilings`) and over the workers that have a task: nothing is assumed to overlap. Not in it: the
start of Ray, some milliseconds per task, and idle workers while the last tasks of a stage end, but for
those of the neighbour search.

Legend: N items, d width, s bytes of a raw feature, P directed pairs, nnz entries of O, H neighbours, k
centres, W workers, R rows of a neighbour task's ranges, S ranges, C places of a candidate list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from configs.schema import GraphConfig
from graph_builder.cost.ceilings import Ceilings
from graph_builder.stages.clusters import ROWS_PER_TASK as KMEANS_ROWS
from graph_builder.stages.cooccurrence import ENTRIES_AT_A_TIME, PAIRS_PER_TASK
from graph_builder.stages.neighbors import default_rows_per_task
from graph_builder.stages.triangle import triangle_waves
from graph_builder.work import num_row_blocks
from kernels.candidate_lists import num_places
from kernels.cooccurrence.pair_counts import gap_dtype, item_dtype
from kernels.cosine.score_tiles import TILE_ROWS
from kernels.cosine.threshold_scan import COMPACT_EVERY
from kernels.cuda.tile_loop import BUFFER_BYTES
from kernels.spmm import MAX_GATHERED_ROWS

# float64 passes over a block of points in a k-means step: squares 3, product 1, distances 6, sums 2.
_KMEANS_PASSES = 12
_SAMPLE_PER_CENTER, _MAX_SAMPLE = 256, 1 << 15  # of `clusters.initial_centers`
# Per list in a file of candidates: line and slack float32, overflowed, offset int64. Per candidate: id, score.
_LIST_BYTES, _CANDIDATE_BYTES = 17, 8
# Candidates beyond H that are left to rank: near-ties within twice the rounding error.
_NEAR_TIES = 2
_NPY_EDGE_BYTES = 12  # of an entry of O: column int64, weight float32


@dataclass(frozen=True)
class ModalitySize:
    """d and s of a modality; all N items are taken to have it."""

    width: int
    itemsize: int = 4


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is to be built, and on what.

    Attributes:
        num_items: N. modalities: their sizes.
        num_pairs: pairs of positions within the window, each once (P = twice that), as the manifest's
            pairs_counted, which leaves out pairs of an item with itself.
        longest: the largest gap, which decides the bytes of one.
        options: the knobs of the build.
        workers: cores that run tasks. gpus: GPUs; 0: everything runs on the cores.
    """

    num_items: int
    modalities: Mapping[str, ModalitySize]
    num_pairs: int
    options: GraphConfig
    workers: int = 1
    gpus: int = 0
    longest: int = 50


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's prediction: seconds by term, bytes a process holds, bytes read and written by all tasks."""

    name: str
    num_tasks: int
    terms: Mapping[str, float]
    memory: int
    bytes_moved: int

    @property
    def seconds(self) -> float:
        return sum(self.terms.values())


@dataclass(frozen=True)
class Plan:
    """The stages in the order of the build, and what they were predicted from."""

    request: PlanRequest
    ceilings: Ceilings
    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory(self) -> int:
        return max(stage.memory for stage in self.stages)


def predict(request: PlanRequest, ceilings: Ceilings) -> Plan:
    """The stages of a build; pure arithmetic."""
    stages = [features_stage(name, request, ceilings) for name in request.modalities]
    stages.append(cooccurrence_stage(request, ceilings))
    for name in request.modalities:
        stages += [
            inject_stage(name, request, ceilings),
            clusters_stage(name, request, ceilings),
            neighbors_stage(name, request, ceilings),
        ]
    return Plan(request, ceilings, tuple(stages))


def directed_pairs(lengths: np.ndarray, window: int | None) -> int:
    """P: sum over histories of n items and gaps g up to G = min(window, n - 1) of 2 (n - g)."""
    lengths = np.asarray(lengths, dtype=np.int64)
    gaps = np.maximum(lengths - 1, 0)
    if window is not None:
        gaps = np.minimum(gaps, window)
    return int((2 * gaps * lengths - gaps * (gaps + 1)).sum())


def num_entries(request: PlanRequest) -> int:
    """nnz at most: P, all pairs of items, or max_neighbors per item. Repeated pairs make it smaller."""
    limit = min(2 * request.num_pairs, request.num_items * (request.num_items - 1))
    most = request.options.max_neighbors
    return limit if most is None else min(limit, request.num_items * most)


def features_stage(modality: str, request: PlanRequest, ceilings: Ceilings) -> Stage:
    """Every raw value is looked at once, on a core: N d s bytes. Memory: a block of rows and its flags."""
    shape = request.modalities[modality]
    num_tasks = num_row_blocks(request.options.block_rows, request.num_items)
    moved = request.num_items * shape.width * shape.itemsize
    terms = {"rows": moved / (ceilings.row_gb_per_s * 1e9) / min(_core_tasks(request), num_tasks)}
    block = min(request.options.block_rows, request.num_items)
    return Stage(
        name=f"features-{modality}",
        num_tasks=num_tasks,
        terms=terms,
        memory=block * shape.width * (shape.itemsize + 1),
        bytes_moved=moved,
    )


def cooccurrence_stage(request: PlanRequest, ceilings: Ceilings) -> Stage:
    """P entries are counted, and added up, at mpairs_per_s; written and read once in between.

    An entry is a column and a gap: 4 + 1 bytes up to 2^31 items and gaps of 255. Stored: 12 bytes per entry
    of O and 8 per row. Memory of a task: counting, an entry per directed pair of PAIRS_PER_TASK and 30 bytes
    per event of these; adding up, 8 bytes for each of ENTRIES_AT_A_TIME, and 40 per row, taken as a row per
    entry at most.
    """
    directed = 2 * request.num_pairs
    gap = gap_dtype(max(1, min(request.longest, request.options.window or request.longest)))
    entry = item_dtype(request.num_items).itemsize + gap.itemsize
    stored = num_entries(request) * _NPY_EDGE_BYTES + 8 * request.num_items
    moved = 2 * directed * entry + stored
    num_tasks = max(1, num_row_blocks(PAIRS_PER_TASK, request.num_pairs))
    terms = {
        "pairs": directed / (ceilings.mpairs_per_s * 1e6) / min(_core_tasks(request), num_tasks),
        "files": moved / (ceilings.storage_gb_per_s * 1e9),
    }
    counted = min(PAIRS_PER_TASK, request.num_pairs) * (2 * entry + 30)
    at_a_time = min(ENTRIES_AT_A_TIME, directed)
    added_up = 8 * at_a_time + 40 * min(request.num_items, at_a_time)
    return Stage(
        name="cooccurrence", num_tasks=num_tasks, terms=terms, memory=max(counted, added_up), bytes_moved=moved
    )


def inject_stage(modality: str, request: PlanRequest, ceilings: Ceilings) -> Stage:
    """mu O E + E: per entry of O a row of E is added up. For a GPU a core fetches rows, each once per task at most.

    The files: N d float32 are written as blocks, read, and written joined. Memory of a task:
    12 bytes per gathered value, MAX_GATHERED_ROWS rows at a time, and its block of the result.
    """
    shape = request.modalities[modality]
    nnz = num_entries(request) if request.options.mu else 0
    num_tasks = num_row_blocks(request.options.block_rows, request.num_items)
    written = 3 * request.num_items * shape.width * 4
    gathered = nnz * shape.width * shape.itemsize
    fetched = min(gathered, num_tasks * request.num_items * shape.width * shape.itemsize)
    units = min(_tasks(request), num_tasks)
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
    """Lloyd's steps, and one more for the labels, at most: each 2 N k d flops and 12 passes over N d float64.

    A core reads the rows of every step and makes them float64, for a GPU too. An upper bound: steps stop
    when nothing changes. The start, in one process: 5 passes over the sample per centre. Memory of a
    task: 3 float64 copies of its block.
    """
    shape, options = request.modalities[modality], request.options
    steps = options.kmeans_iterations + 1
    num_tasks = num_row_blocks(KMEANS_ROWS, request.num_items)
    units = min(_tasks(request), num_tasks)
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


def neighbors_stage(modality: str, request: PlanRequest, ceilings: Ceilings) -> Stage:
    """S (S + 1) / 2 blocks of R x R scores in waves; then every candidate is ranked in float64.

    Search. A block makes 2 d R^2 flops and R^2 scores, on the diagonal the tiles on and above it: R (R + T)
    / 2 scores, T = TILE_ROWS. It fetches 2 R rows (the diagonal R) of 4 d bytes. A wave of b blocks takes
    ceil(b / W) times its mean block. With several cores a task, each core multiplies and scans.

    Offers. A new list takes H scores and E = COMPACT_EVERY more before its line rises; by then it has met
    (H + E) / H times as many items. So a list that met m items is offered E ln(n / m) / ln(1 + E / H) of the
    next ones up to n, in random order; a new one H + E of its first tile, and so on from there.

    Candidates. A row whose range has met M others in earlier waves lets about H / M items of a new range
    through (of n + M n items in random order, that share of the new ones is among the best H), and H when
    M is 0. A list costs 17 bytes in a file besides 8 per candidate. Block files are written and read once; after
    each wave the merged list of every range, H candidates a row, is read and written.

    Rank. N (H + 2) dots, of two rows of 4 d bytes each; the lists, 12 bytes an entry, are written as parts, read, and
    written joined.

    Memory. The rows of two ranges, as they come and as they are multiplied (float32, on a GPU float16), two
    lists of C places of 8 bytes, and a tile of scores (on a GPU, the buffer that stays in L2).
    """
    shape, options = request.modalities[modality], request.options
    others = options.num_neighbors - options.include_self
    rows_per_task = options.rows_per_task or default_rows_per_task(request.num_items, request.gpus > 0)
    num_ranges = num_row_blocks(rows_per_task, request.num_items)
    rows = request.num_items / num_ranges
    work = _search_work(num_ranges, rows, shape.width, others, request, ceilings) if others else _Search()
    units = min(_tasks(request), num_ranges)
    ranked = request.num_items * (others + _NEAR_TIES) * 2 * shape.width * 4
    lists = 3 * request.num_items * options.num_neighbors * 12
    terms = {
        "product": work.product,
        "scan": work.scan,
        "offers": work.offers,
        "rows": work.row_seconds,
        "files": (work.file_bytes + lists) / (ceilings.storage_gb_per_s * 1e9),
        "rank": ranked / (ceilings.rank_gb_per_s * 1e9) / units,
    }
    largest = min(rows_per_task, request.num_items) * min(2, num_ranges)
    unit_bytes, tile = (2, BUFFER_BYTES) if request.gpus else (4, 4 * TILE_ROWS**2)
    # One range at a time arrives as float32 before it is scaled.
    arriving = min(rows_per_task, request.num_items) * shape.width * 4
    memory = largest * (shape.width * unit_bytes + 8 * num_places(others) + _LIST_BYTES) + arriving + tile
    moved = work.row_bytes + work.file_bytes + ranked + lists
    return Stage(
        name=f"neighbors-{modality}",
        num_tasks=work.num_blocks + num_ranges,
        terms=terms,
        memory=memory,
        bytes_moved=int(moved),
    )


@dataclass(kw_only=True)
class _Search:
    """Sums over the waves of a neighbour search."""

    num_blocks: int = 0
    product: float = 0.0
    scan: float = 0.0
    offers: float = 0.0
    row_seconds: float = 0.0
    row_bytes: float = 0.0
    file_bytes: float = 0.0


def _search_work(
    num_ranges: int, rows: float, width: int, others: int, request: PlanRequest, ceilings: Ceilings
) -> _Search:
    """The search part of `neighbors_stage`, for ranges of `rows` rows."""
    total = _Search()
    threads = 1 if request.gpus else request.options.cpus_per_task
    met = 0.0  # ranges that a range has met, itself included, on average
    for wave in triangle_waves(num_ranges):
        diagonal = sum(first == second for first, second in wave)
        scores = (len(wave) - diagonal) * rows**2 + diagonal * rows * min(rows, (rows + TILE_ROWS) / 2)
        sides = 2 * len(wave) - diagonal
        row_bytes = sides * rows * width * 4
        # The wave's work over all workers, stretched to whole rounds.
        share = math.ceil(len(wave) / _tasks(request)) / len(wave)
        total.product += share / threads * 2 * width * scores / (ceilings.gemm_tflops * 1e12)
        total.scan += share / threads * scores / (ceilings.scan_gscores_per_s * 1e9)
        offered = sides * rows * _offers_per_row(met, rows, others)
        total.offers += share / threads * offered / (ceilings.moffers_per_s * 1e6)
        total.row_seconds += share * row_bytes / (ceilings.row_gb_per_s * 1e9)
        candidates = others * min(1.0, 1 / met) if met else float(others)
        block_files = sides * rows * (candidates * _CANDIDATE_BYTES + _LIST_BYTES)
        merged = num_ranges * rows * (others * _CANDIDATE_BYTES + _LIST_BYTES)
        # Merged files are read but for the first wave.
        total.file_bytes += 2 * block_files + merged * (2 if met else 1)
        total.row_bytes += row_bytes
        total.num_blocks += len(wave)
        met += sides / num_ranges
    return total


def _offers_per_row(met: float, rows: float, others: int) -> float:
    """What passes a list's line in one block, when its range has met `met` others in earlier waves."""
    per_factor = COMPACT_EVERY / math.log(1 + COMPACT_EVERY / others)
    if met:
        return per_factor * math.log(1 + 1 / met)
    return others + COMPACT_EVERY + per_factor * math.log(max(1.0, rows / TILE_ROWS))


def _core_tasks(request: PlanRequest) -> int:
    """Tasks at a time where each takes cores."""
    return max(1, request.workers // request.options.cpus_per_task)


def _tasks(request: PlanRequest) -> int:
    """Tasks at a time of what runs on GPUs where there are any."""
    return request.gpus or _core_tasks(request)
