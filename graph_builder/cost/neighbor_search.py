"""Predict the time, memory and bytes of a modality's neighbour search. `plan` has the legend of the formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graph_builder.cost.ceilings import Ceilings
from graph_builder.cost.request import PlanRequest, Stage
from graph_builder.stages.neighbors import default_rows_per_task
from graph_builder.stages.triangle import block_rounds
from graph_builder.work_folder import num_row_blocks
from kernels.candidate_lists import num_places
from kernels.cosine.score_tiles import TILE_ROWS
from kernels.cosine.threshold_scan import COMPACT_EVERY
from kernels.cuda.tile_loop import BUFFER_BYTES

# Bytes in a file. A candidate list: threshold and margin float32, overflowed bool, offset int64. A candidate: id
# int32, score float32.
_LIST_BYTES, _CANDIDATE_BYTES = 17, 8
# Candidates of a row in addition to H that are ranked: near-ties within twice the rounding error.
_NEAR_TIES = 2


def neighbors_stage(modality: str, request: PlanRequest, ceilings: Ceilings) -> Stage:
    """Predict the search of S (S + 1) / 2 blocks of R x R scores in rounds, and the ranking of candidates in float64.

    Search. A block computes R^2 scores with 2 d R^2 flops. A block on the diagonal computes only the tiles on and
    above the diagonal: R (R + T) / 2 scores, with T = TILE_ROWS. A block reads 2 R rows of 4 d bytes, on the diagonal
    R rows. A round of b blocks takes ceil(b / W) times the mean time of its blocks. If a task has several cores, each
    of them multiplies and scans.

    Offers. The threshold of a list rises after every E = COMPACT_EVERY additions. When a full list of H has taken E
    more, it has been compared with (H + E) / H times as many items. So a list that has been compared with m items
    takes E ln(n / m) / ln(1 + E / H) scores until it has been compared with n, in random order. A new list takes H +
    E scores of its first tile, and continues from there by the same formula.

    Candidates. If a row's range has been compared with M others in earlier rounds, the row keeps about H / M items of
    a new range: of n + M n items in random order, that share of the new items is among the best H. If M is 0 it keeps
    H. In a file, a list takes 17 bytes, and 8 per candidate. Block files are written and read once. After each round
    the merged lists of every range, with H candidates a row, are read and written.

    Rank. N (H + 2) dot products of two rows of 4 d bytes each. The final lists take 12 bytes an entry. They are
    written per range, read, and written joined.

    Memory. The rows of two ranges as they are multiplied (float32, on a GPU float16), and of one as read (float32);
    for each row a list of C places of 8 bytes; and a tile of scores (on a GPU, the buffer that stays in L2).
    """
    shape, options = request.modalities[modality], request.options
    others = options.num_neighbors - options.include_self
    rows_per_task = options.rows_per_task or default_rows_per_task(request.num_items, request.gpus)
    num_ranges = num_row_blocks(rows_per_task, request.num_items)
    rows = request.num_items / num_ranges
    work = _search_work(num_ranges, rows, shape.width, others, request, ceilings) if others else _Search()
    units = min(request.tasks, num_ranges)
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
    # One range at a time is read as float32 before it is scaled.
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
    """Sums over all rounds of a neighbour search."""

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
    """Predict the search part of `neighbors_stage`, for ranges of `rows` rows."""
    total = _Search()
    threads = 1 if request.gpus else request.options.cpus_per_task
    met = 0.0  # with how many ranges, itself included, a range has been compared, on average
    for round_blocks in block_rounds(num_ranges):
        diagonal = sum(first == second for first, second in round_blocks)
        scores = (len(round_blocks) - diagonal) * rows**2 + diagonal * rows * min(rows, (rows + TILE_ROWS) / 2)
        sides = 2 * len(round_blocks) - diagonal
        row_bytes = sides * rows * width * 4
        # The share of the round's work that the busiest worker does: workers take whole blocks.
        share = math.ceil(len(round_blocks) / request.tasks) / len(round_blocks)
        total.product += share / threads * 2 * width * scores / (ceilings.gemm_tflops * 1e12)
        total.scan += share / threads * scores / (ceilings.scan_gscores_per_s * 1e9)
        offered = sides * rows * _offers_per_row(met, rows, others)
        total.offers += share / threads * offered / (ceilings.moffers_per_s * 1e6)
        total.row_seconds += share * row_bytes / (ceilings.row_gb_per_s * 1e9)
        candidates = others * min(1.0, 1 / met) if met else float(others)
        block_files = sides * rows * (candidates * _CANDIDATE_BYTES + _LIST_BYTES)
        merged = num_ranges * rows * (others * _CANDIDATE_BYTES + _LIST_BYTES)
        # In the first round there are no merged files to read.
        total.file_bytes += 2 * block_files + merged * (2 if met else 1)
        total.row_bytes += row_bytes
        total.num_blocks += len(round_blocks)
        met += sides / num_ranges
    return total


def _offers_per_row(met: float, rows: float, others: int) -> float:
    """Return the scores that a list takes in one block, if its range has been compared with `met` others before."""
    per_factor = COMPACT_EVERY / math.log(1 + COMPACT_EVERY / others)
    if met:
        return per_factor * math.log(1 + 1 / met)
    return others + COMPACT_EVERY + per_factor * math.log(max(1.0, rows / TILE_ROWS))
