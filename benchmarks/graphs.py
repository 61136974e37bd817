"""Compare the item-graph kernels on this machine's cores with other libraries: python benchmarks/graphs.py

The first part is the cosine top-H of N x d rows. It is compared with a plain GEMM of the same shape, with faiss.knn,
and with torch mm + topk. The GEMM's time is a lower bound for every method that does not use the symmetry of the
scores; the lower bound for this project's search, which uses it, is half of that. All methods take turns in one run.
The second part is co-occurrence, compared with numba + scipy (benchmarks/cooccurrence.py). The last line is a JSON
object of ratios, which are medians over the rounds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# faiss's wheel ships an OpenBLAS that does not know recent Xeons and falls back to kernels half as fast. Before
# NumPy.
if Path("/proc/cpuinfo").exists() and "avx512f" in Path("/proc/cpuinfo").read_text():
    os.environ.setdefault("OPENBLAS_CORETYPE", "SKYLAKEX")

import click
import faiss
import numpy as np
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import cooccurrence
from kernels.cosine.cosine_topk import cosine_neighbors

_GEMM_ROWS = 2048
# The width of a cluster: an item is its centre plus this times a normal vector of the same length.
_SPREAD = 0.5
_NUM_CLUSTERS = 500


@click.command()
@click.option("--num-items", default=50_000, show_default=True)
@click.option("--width", default=384, show_default=True)
@click.option("--num-neighbors", default=10, show_default=True)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--num-users", default=1_000_000, show_default=True, help="of the co-occurrence benchmark; 0: skip it")
@click.option("--num-events", default=10_000_000, show_default=True)
def main(
    num_items: int, width: int, num_neighbors: int, threads: int, rounds: int, num_users: int, num_events: int
) -> None:
    """Print tables and, on the last line, JSON."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    figures: dict[str, float | bool] = {}
    exact = True
    for kind in ("random", "clustered"):
        features = make_features(kind, num_items, width)
        seconds = time_methods(features, num_neighbors, threads, rounds)
        ratios = {name: float(np.median(times / seconds["torch GEMM"])) for name, times in seconds.items()}
        rows = [[name, float(np.median(times)), ratios[name]] for name, times in seconds.items()]
        title = f"{kind}: N={num_items} d={width} H={num_neighbors}, {threads} threads, median of {rounds}"
        print(title, tabulate(rows, ["method", "seconds", "over GEMM"], floatfmt=".3f"), sep="\n", flush=True)
        figures[f"knn_over_gemm_{kind}"] = ratios["ours"]
        faiss_ratio = float(np.median(seconds["faiss.knn"] / seconds["ours"]))
        figures["faiss_over_knn" if kind == "random" else "faiss_over_knn_clustered"] = faiss_ratio
        different = count_different_rows(features, num_neighbors, threads)
        print(f"{kind}: {different} of {num_items} rows differ from float64\n", flush=True)
        exact &= different == 0
    figures["knn_exact"] = exact
    if num_users:
        one = cooccurrence.measure(num_users=num_users, num_events=num_events, num_threads=1)
        figures["cooccurrence_speedup_one_thread"] = one["cooccurrence_speedup_over_scipy"]
        figures |= cooccurrence.measure(num_users=num_users, num_events=num_events, num_threads=threads)
    print(json.dumps(figures))


def make_features(kind: str, num_items: int, width: int) -> np.ndarray:
    """Return features float32 [N, d]: independent normal values, or clusters in random order."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((num_items, width), dtype=np.float32)
    if kind == "clustered":
        centers = rng.standard_normal((_NUM_CLUSTERS, width), dtype=np.float32)
        features = centers[rng.integers(_NUM_CLUSTERS, size=num_items)] + np.float32(_SPREAD) * features
    return features


def time_methods(features: np.ndarray, num_neighbors: int, threads: int, rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds of each method in each round. Methods take turns, so that a slow minute affects all."""
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    tensor = torch.from_numpy(units)
    scores = torch.empty((_GEMM_ROWS, len(units)))

    def gemm(best: int = 0) -> None:
        # The buffer is reused, because writing N x N scores to new memory takes longer than the products.
        for first in range(0, len(units), _GEMM_ROWS):
            rows = tensor[first : first + _GEMM_ROWS]
            out = torch.mm(rows, tensor.T, out=scores[: len(rows)])
            if best:
                torch.topk(out, best, dim=1)

    methods: dict[str, Callable[[], object]] = {
        "torch GEMM": gemm,
        "ours": lambda: cosine_neighbors(features, num_neighbors, False, threads=threads),
        "faiss.knn": lambda: faiss.knn(units, units, num_neighbors + 1, metric=faiss.METRIC_INNER_PRODUCT),
        "torch mm + topk": lambda: gemm(num_neighbors + 1),
    }
    cosine_neighbors(features[:5000], num_neighbors, False, threads=threads)  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(times) for name, times in seconds.items()}


def count_different_rows(features: np.ndarray, num_neighbors: int, threads: int) -> int:
    """Return the number of rows whose neighbours, in order, differ from those by a float64 product of all pairs."""
    ids = cosine_neighbors(features, num_neighbors, False, threads=threads)[0]
    units = torch.from_numpy(features).double()
    units /= units.norm(dim=1, keepdim=True)
    different = 0
    for first in range(0, len(units), _GEMM_ROWS):
        scores = units[first : first + _GEMM_ROWS] @ units.T
        scores[torch.arange(len(scores)), first + torch.arange(len(scores))] = -2
        expected = torch.topk(scores, num_neighbors, dim=1).indices.numpy()
        different += int((expected != ids[first : first + len(expected)]).any(axis=1).sum())
    return different


if __name__ == "__main__":
    main()
