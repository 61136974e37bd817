"""Compare the co-occurrence stage of a graph build, including its files, with numba and scipy in memory.

    python -m benchmarks.cooccurrence [--users 1000000] [--events 10000000] [--threads 1]

Histories are synthetic: lengths are 1 + geometric, cut at 50, and items are drawn by Zipf's law (exponent 1). The
project's stage (`ours`) reads them from memory, and writes its work files and the final blocks. The peer expands
pairs with numba, converts COO to CSR with scipy in memory, and writes no files. Both are compiled before they are
timed. They take turns, and the best run of each counts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numba
import numpy as np
import scipy.sparse

from configs.schema import GraphConfig
from graph_builder.row_blocks import CooccurrenceRows
from graph_builder.stages.cooccurrence import PAIRS_PER_TASK, build_cooccurrence
from graph_builder.work_folder import WorkFolder

_MAX_LENGTH = 50
_OPTIONS = GraphConfig(normalization="none")


@dataclass
class Histories:
    """A `graph_builder.build_inputs.GraphSource` in memory."""

    items: np.ndarray
    offsets: np.ndarray
    num_items: int
    path: str = "synthetic"
    fingerprint: str = "synthetic"
    modalities: tuple[str, ...] = ()

    @property
    def train_end(self) -> np.ndarray:
        return np.diff(self.offsets)


class ThreadExecutor:
    """An executor on threads, which records the seconds of each stage and the bytes of the entries' files."""

    gpus = 0

    def __init__(self, pool: ThreadPoolExecutor, folder: Path) -> None:
        self.pool = pool
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.pair_bytes = 0

    def run_blocks(
        self,
        function: Callable[[Any], Any],
        blocks: Sequence[Any],
        *,
        label: str | None = None,
        on_gpu: bool = False,  # noqa: ARG002
    ) -> Iterator[Any]:
        start = time.perf_counter()
        yield from self.pool.map(function, blocks)
        self.seconds[label or "planning"] = time.perf_counter() - start
        if label == "pairs":
            self.pair_bytes = sum(path.stat().st_size for path in (self.folder / "work/pairs").iterdir())


def make_histories(num_users: int, num_events: int, num_items: int, seed: int = 0) -> Histories:
    """Make histories with about `num_events` events. Item ids are ranks of popularity."""
    random = np.random.default_rng(seed)
    lengths = np.minimum(1 + random.geometric(1 / max(num_events / num_users - 1, 1), num_users), _MAX_LENGTH)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shares = np.cumsum(1 / np.arange(1, num_items + 1))
    items = np.searchsorted(shares, random.random(offsets[-1]) * shares[-1])
    return Histories(items, offsets, num_items)


def ours(histories: Histories, folder: Path, pool: ThreadPoolExecutor, pairs_per_task: int) -> dict[str, Any]:
    """Build once into an empty folder. Return the summary, total seconds, seconds by stage, and bytes of work files."""
    shutil.rmtree(folder, ignore_errors=True)
    executor = ThreadExecutor(pool, folder)
    start = time.perf_counter()
    summary = build_cooccurrence(histories, WorkFolder(folder), _OPTIONS, executor, pairs_per_task)
    seconds = time.perf_counter() - start
    stages = executor.seconds | {"sequences, tables and clearing up": seconds - sum(executor.seconds.values())}
    return {"summary": summary, "seconds": seconds, "stages": stages, "pair_bytes": executor.pair_bytes}


def peer(histories: Histories, pool: ThreadPoolExecutor, num_threads: int, dtype: type = np.float32) -> dict[str, Any]:
    """Expand pairs to COO arrays by compiled loops, then sum duplicates with scipy. Return the matrix and seconds."""
    start = time.perf_counter()
    items, offsets = histories.items.astype(np.int32), histories.offsets
    lengths = np.diff(offsets)
    ends = np.concatenate([[0], np.cumsum(lengths * (lengths - 1))])
    rows, columns = np.empty(ends[-1], dtype=np.int32), np.empty(ends[-1], dtype=np.int32)
    weights = np.empty(ends[-1], dtype=dtype)
    edges = np.linspace(0, len(lengths), num_threads + 1).astype(int)
    parts = [(items, offsets[a : b + 1], ends[a], rows, columns, weights) for a, b in itertools.pairwise(edges)]
    written = list(pool.map(lambda part: _expand(*part), parts))
    if num_threads == 1:
        rows, columns, weights = (array[: written[0]] for array in (rows, columns, weights))
    else:
        used = [slice(ends[a], end) for a, end in zip(edges, written, strict=False)]
        rows, columns, weights = (np.concatenate([array[part] for part in used]) for array in (rows, columns, weights))
    expanded = time.perf_counter()
    shape = (histories.num_items, histories.num_items)
    matrix = scipy.sparse.coo_matrix((weights, (rows, columns)), shape=shape).tocsr()
    end = time.perf_counter()
    return {"matrix": matrix, "seconds": end - start, "stages": {"expand": expanded - start, "tocsr": end - expanded}}


@numba.njit(nogil=True, cache=True)
def _expand(
    items: np.ndarray, offsets: np.ndarray, at: int, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray
) -> int:
    """Write both directions of every pair of different items from place `at` on. Return the place after the last."""
    for user in range(len(offsets) - 1):
        for left in range(offsets[user], offsets[user + 1]):
            for right in range(left + 1, offsets[user + 1]):
                if items[left] != items[right]:
                    weight = 1.0 / (right - left)
                    rows[at], columns[at], weights[at] = items[left], items[right], weight
                    rows[at + 1], columns[at + 1], weights[at + 1] = items[right], items[left], weight
                    at += 2
    return at


def digest(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of the final blocks."""
    result = hashlib.sha256()
    for path in sorted((folder / "cooccurrence").iterdir()):
        result.update(path.name.encode())
        result.update(path.read_bytes())
    return result.hexdigest()


def largest_difference(folder: Path, block_rows: int, matrix: Any) -> float | None:
    """Return the largest |a - b| / max(a, b) of two weights; None if the matrices have different entries."""
    num_items = matrix.shape[0]
    indptr, indices, weights = CooccurrenceRows(folder / "cooccurrence", block_rows, num_items).rows(
        np.arange(num_items)
    )
    if not (np.array_equal(indptr, matrix.indptr) and np.array_equal(indices, matrix.indices)):
        return None
    return float((np.abs(weights - matrix.data) / np.maximum(weights, matrix.data)).max(initial=0))


def measure(
    num_users: int = 1_000_000,
    num_events: int = 10_000_000,
    num_items: int = 1_000_000,
    num_threads: int = 1,
    repeats: int = 3,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """Time `repeats` runs of both in turns, and check that the results agree. Files go to a temporary folder."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch, ThreadPoolExecutor(num_threads) as pool:
        graph = Path(scratch) / "graph"
        small = make_histories(50, 500, num_items)
        ours(small, graph, pool, PAIRS_PER_TASK)
        peer(small, pool, num_threads)
        histories = make_histories(num_users, num_events, num_items)
        own, other = [], []
        for _ in range(repeats):
            own.append(ours(histories, graph, pool, PAIRS_PER_TASK))
            other.append(peer(histories, pool, num_threads))
            del other[-1]["matrix"]
        best, best_other = (min(runs, key=lambda run: float(run["seconds"])) for runs in (own, other))
        summary = best["summary"]
        # The peer's float32 sums of popular pairs have errors of several 1e-4, so its float64 sums are compared.
        difference = largest_difference(
            graph, summary["block_rows"], peer(histories, pool, num_threads, np.float64)["matrix"]
        )
        pairs = summary["pairs_counted"]
        digests = {digest(graph)}
        for shards in (1, 2, 7):
            ours(histories, graph, pool, -(-pairs // shards))
            digests.add(digest(graph))
    return {
        "cooccurrence_speedup_over_scipy": best_other["seconds"] / best["seconds"],
        "cooccurrence_bytes_per_pair": best["pair_bytes"] / (2 * pairs),
        "cooccurrence_mpairs_per_second": pairs / best["seconds"] / 1e6,
        "seconds": best["seconds"],
        "seconds_by_stage": best["stages"],
        "seconds_of_all_runs": [run["seconds"] for run in own],
        "scipy_seconds": best_other["seconds"],
        "scipy_seconds_by_stage": best_other["stages"],
        "scipy_seconds_of_all_runs": [run["seconds"] for run in other],
        "threads": {"ours": num_threads, "peer": {"expand": num_threads, "tocsr": 1}},
        "counted": f"best of {repeats} runs each, in turns",
        "num_users": num_users,
        "num_events": len(histories.items),
        "num_items": num_items,
        "pairs_counted": pairs,
        "num_pairs": summary["num_pairs"],
        "same_entries": difference is not None,
        "largest_relative_difference_to_float64": difference,
        "same_bytes_for_1_2_7_shards": len(digests) == 1,
    }


@click.command()
@click.option("--users", default=1_000_000, show_default=True)
@click.option("--events", default=10_000_000, show_default=True)
@click.option("--items", default=1_000_000, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--folder", default=None, help="folder for temporary files; default: the system's temporary folder")
def main(users: int, events: int, items: int, threads: int, repeats: int, folder: str | None) -> None:
    """Print one JSON object."""
    print(json.dumps(measure(users, events, items, threads, repeats, folder)))


if __name__ == "__main__":
    main()
