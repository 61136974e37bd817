"""Measure the rates at which a machine does the operations of a graph build; known rates can be given instead.

A worker is a Ray task: one core, or one GPU. Each measurement runs alone, on one thread, and the best of a few runs
is taken. If a machine's cores share a memory bus, the rates are therefore upper bounds when all cores are busy.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import InputError

_REPEATS = 3
_WIDTH = 256


def _rate(help: str) -> Any:
    return field(metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The rates of one worker, except that the rate of storage is for all workers together."""

    gemm_tflops: float = _rate("products of candidate scores: float32 on a core, float16 on a GPU")
    float64_gemm_tflops: float = _rate("products of k-means, float64")
    scan_gscores_per_s: float = _rate("10^9 scores compared with thresholds of candidate lists, from cache")
    moffers_per_s: float = _rate("10^6 scores that reach a threshold and are put on a candidate list")
    memory_gb_per_s: float = _rate("whole arrays read and written by NumPy or CuPy, GB/s")
    row_gb_per_s: float = _rate("feature rows read in random order, GB/s of a core (which also reads them for a GPU)")
    inject_gb_per_s: float = _rate(
        "rows of co-occurring items added up in float64, GB/s (on a core, reading them included)"
    )
    rank_gb_per_s: float = _rate("rows of candidates multiplied in float64, GB/s")
    mpairs_per_s: float = _rate("10^6 directed pairs counted and added up, always on a core")
    storage_gb_per_s: float = _rate("files written or read again, GB/s, all workers together")


# Assumed rates of an H200, not measured: 790 TFLOP/s of fp16 and 4.3 TB/s, as in the design; float64 at nine tenths
# of the data sheet's 67 TFLOP/s. Two rates are guesses: scores are scanned in L2 as fast as memory delivers 4 bytes
# each, and 10^9 scores a second are put on lists.
H200 = {
    "gemm_tflops": 790.0,
    "float64_gemm_tflops": 60.0,
    "scan_gscores_per_s": 1075.0,
    "moffers_per_s": 1000.0,
    "memory_gb_per_s": 4300.0,
    "inject_gb_per_s": 4300.0,
    "rank_gb_per_s": 4300.0,
}


def measure_ceilings(folder: Path | None = None, skip: Mapping[str, Any] | None = None) -> Ceilings:
    """Measure this machine with the build's own kernels. This takes seconds, and longer if kernels must be compiled.

    Args:
        folder: storage is measured with a temporary file of 64 MB in this folder; null: the system's temporary
            folder. The page cache takes part, as in a build whose files fit into memory.
        skip: rates that are not measured, with their values.

    Raises:
        InputError: the folder cannot be written to.
    """
    known = dict(skip or {})
    for rate in fields(Ceilings):
        if known.get(rate.name) is None:
            known[rate.name] = _storage(folder) if rate.name == "storage_gb_per_s" else _MEASUREMENTS[rate.name]()
    return Ceilings(**known)


def _best_seconds(work: Callable[[], Any]) -> float:
    work()  # compiles, touches pages
    seconds = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _gemm() -> float:
    """Measure torch's float32 product on one thread, tile after tile, as `kernels.cosine.score_tiles` calls it."""
    import torch

    from kernels.cosine.score_tiles import TILE_ROWS

    num_tiles = 4
    rows, out = torch.randn(num_tiles * TILE_ROWS, _WIDTH), torch.empty(TILE_ROWS, TILE_ROWS)

    def multiply() -> None:
        for columns in rows.split(TILE_ROWS):
            torch.addmm(out, rows[:TILE_ROWS], columns.T, beta=0, out=out)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = _best_seconds(multiply)
    finally:
        torch.set_num_threads(before)
    return num_tiles * 2 * TILE_ROWS**2 * _WIDTH / seconds / 1e12


def _float64_gemm() -> float:
    """Measure NumPy's float64 product of points with few centres. Its BLAS may use several threads, as in a task."""
    points, centers = np.ones((1 << 14, _WIDTH)), np.ones((16, _WIDTH))
    return 2 * len(points) * len(centers) * _WIDTH / _best_seconds(lambda: points @ centers.T) / 1e12


def _scan() -> float:
    """Measure the scan of scores none of which reaches a threshold."""
    from kernels.cosine.score_tiles import TILE_ROWS

    return TILE_ROWS**2 / _scan_seconds(np.inf)[0] / 1e9


def _offers() -> float:
    """Measure additions to lists that start empty: scores added, divided by the seconds beyond those of the scan."""
    seconds, offered = _scan_seconds(-np.inf)
    return offered / max(seconds - _scan_seconds(np.inf)[0], 1e-9) / 1e6


def _scan_seconds(threshold: float) -> tuple[float, int]:
    """Return the seconds of scanning a tile of random scores for new lists with H = 10, and how many scores were added.

    Args:
        threshold: the first threshold of every list.
    """
    from kernels.candidate_lists import CandidateLists
    from kernels.cosine.score_tiles import TILE_ROWS
    from kernels.cosine.threshold_scan import scan_both

    scores = np.random.default_rng(0).standard_normal((TILE_ROWS, TILE_ROWS), dtype=np.float32)
    margin = np.zeros(TILE_ROWS, dtype=np.float32)
    offered = 0

    def scan() -> None:
        nonlocal offered
        rows, columns = (CandidateLists.empty(margin, 10, np.full(TILE_ROWS, threshold, np.float32)) for _ in range(2))
        scan_both(scores, rows, 0, 0, columns, 0, TILE_ROWS, 10)
        offered = int(rows.used.sum() + columns.used.sum())

    return _best_seconds(scan), offered


def _memory() -> float:
    """Measure with a new array for the result, as in k-means, because new pages take longer than the memory bus."""
    values = np.ones((1 << 14, _WIDTH))
    return 2 * values.nbytes / _best_seconds(lambda: values * values) / 1e9


def _rows() -> float:
    rows = np.ones((1 << 16, _WIDTH), dtype=np.float32)
    items = np.random.default_rng(0).permutation(len(rows))
    return rows.nbytes / _best_seconds(lambda: rows[items]) / 1e9


def _inject() -> float:
    from kernels.spmm import injected_rows

    rows = np.ones((1 << 16, _WIDTH), dtype=np.float32)
    num_rows, entries = 512, 64
    indptr = np.arange(num_rows + 1, dtype=np.int64) * entries
    columns = np.random.default_rng(0).integers(0, len(rows), num_rows * entries)
    weights = np.ones(len(columns), dtype=np.float32)
    seconds = _best_seconds(lambda: injected_rows(indptr, columns, weights, rows, slice(0, num_rows), 1.0))
    return len(columns) * _WIDTH * 4 / seconds / 1e9


def _rank() -> float:
    from kernels.cosine.exact_dots import pair_dots

    rows = np.ones((1 << 16, _WIDTH), dtype=np.float32)
    left, right = np.random.default_rng(0).integers(0, len(rows), (2, 1 << 15))
    return 2 * len(left) * _WIDTH * 4 / _best_seconds(lambda: pair_dots(rows, left, rows, right)) / 1e9


def _pairs() -> float:
    from kernels.cooccurrence.pair_counts import RowSums, bucket_pairs, row_lengths

    num_users, length, num_items = 1 << 16, 12, 1 << 20
    # A few items are popular, as in real interactions.
    items = (num_items * np.random.default_rng(0).random(num_users * length) ** 3).astype(np.int32)
    offsets = np.arange(num_users + 1, dtype=np.int64) * length

    def count() -> None:
        entries = bucket_pairs(items, offsets, length)
        rows = range(num_items)
        sums = RowSums(
            first_row=0,
            lengths=row_lengths(rows, [(entries.rows, entries.starts)]),
            num_items=num_items,
            max_gap=length,
            block_rows=num_items,
        )
        sums.place(entries)
        for _ in sums.sums(True):
            pass

    return num_users * length * (length - 1) / _best_seconds(count) / 1e6


def _storage(folder: Path | None) -> float:
    """Measure bytes written and read again, divided by the seconds of both."""
    content = np.zeros(1 << 26, dtype=np.uint8)

    def copy() -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(content.data)
            file.seek(0)
            while file.read(1 << 22):
                pass

    try:
        return 2 * content.nbytes / _best_seconds(copy) / 1e9
    except OSError as error:
        raise InputError(
            f"{folder or tempfile.gettempdir()}: cannot be written ({error.strerror}); give --storage-gb-per-s instead"
        ) from None


_MEASUREMENTS: dict[str, Callable[[], float]] = {
    "gemm_tflops": _gemm,
    "float64_gemm_tflops": _float64_gemm,
    "scan_gscores_per_s": _scan,
    "moffers_per_s": _offers,
    "memory_gb_per_s": _memory,
    "row_gb_per_s": _rows,
    "inject_gb_per_s": _inject,
    "rank_gb_per_s": _rank,
    "mpairs_per_s": _pairs,
}
