"""Interest centres: k-means of the raw features of the items that have the modality (MDSRec, C_m).

Lloyd's algorithm runs over blocks of rows and starts from k-means++ on a seeded sample. Blocks have a fixed size and
their sums are added in block order, so the result depends only on the data, the options and the seed. A centre that
loses all its points moves to the point that is furthest from its own centre (ties: lower id). If there are fewer
distinct points than centres, some centres stay empty, and the manifest states their number.

Legend: N items, k centres, d width.
"""

from __future__ import annotations

import functools
import logging
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.schema import GraphConfig
from graph_builder import progress
from graph_builder.executor import Executor
from graph_builder.stages.injection import FeatureSpec
from graph_builder.work_folder import num_row_blocks, read_json, row_range, write_json
from kernels.backend import array_module, to_host
from kernels.kmeans import center_sums, nearest_centers
from storage.array_file import map_array, save_array
from storage.durable_files import replacing

ROWS_PER_TASK = 1 << 14
_SAMPLE_PER_CENTER = 256
_MAX_SAMPLE = 1 << 15

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _BlockStep:
    """One block's share of a Lloyd step."""

    sums: np.ndarray  # float64 [k, d]
    counts: np.ndarray  # int64 [k]
    inertia: float
    furthest: np.ndarray  # int64 [<= k], ids of the items furthest from their centre, in descending order, ties by id
    distances: np.ndarray  # float64 [<= k], squared distances of `furthest`


def build_clusters(spec: FeatureSpec, options: GraphConfig, seed: int, executor: Executor) -> dict[str, Any]:
    """Write GRAPH/clusters/<modality>.npy and .centers.npy. Return the manifest's fields about them.

    An item's label is the nearest of the stored (float32) centres; ties go to the lowest. An interrupted build
    continues after the last finished iteration.
    """
    folder = spec.work.graph / "clusters"
    record_path = spec.work.path / "clusters" / f"{spec.modality}.json"
    record = read_json(record_path)
    if record is not None:
        return record
    centers, iterations, converged = _lloyd(spec, options, seed, executor)
    stored = centers.astype(np.float32)
    inertia, counts = _write_labels(spec, options, stored, executor)
    save_array(folder / f"{spec.modality}.centers.npy", stored)
    empty = int(np.count_nonzero(counts == 0))
    if empty:
        log.warning("%s: %d of %d centres are empty (too few distinct items)", spec.modality, empty, len(stored))
    record = {
        "kmeans_iterations": iterations,
        "kmeans_converged": converged,
        "inertia": inertia,
        "empty_centers": empty,
        "num_centers": len(stored),
    }
    write_json(record_path, record)
    return record


def _lloyd(spec: FeatureSpec, options: GraphConfig, seed: int, executor: Executor) -> tuple[np.ndarray, int, bool]:
    """Return the centres float64 [k, d], the number of steps, and whether the last step changed nothing."""
    start = time.perf_counter()
    checkpoint = spec.work.path / "clusters" / f"{spec.modality}.state.npz"
    if checkpoint.exists():
        with np.load(checkpoint, allow_pickle=False) as state:
            centers, iteration, converged = state["centers"], int(state["iteration"]), bool(state["converged"])
    else:
        centers, iteration, converged = initial_centers(spec, options, seed), 0, False
    blocks = list(range(num_row_blocks(ROWS_PER_TASK, spec.num_items)))
    most = (options.kmeans_iterations - iteration) * len(blocks)
    progress.begin(f"k-means-{spec.modality}", most, is_bound=True)
    while iteration < options.kmeans_iterations and not converged:
        function = functools.partial(_step_block, spec, options.spherical, centers)
        steps = []
        for step in executor.run_blocks(function, blocks, on_gpu=True):
            steps.append(step)
            progress.advance()
        moved = _move(spec, options.spherical, centers, steps)
        iteration, converged, centers = iteration + 1, np.array_equal(moved, centers), moved
        with replacing(checkpoint) as temporary, temporary.open("wb") as file:
            np.savez(file, centers=centers, iteration=iteration, converged=converged)
        log.info("%s: k-means step %d, inertia %.6g", spec.modality, iteration, sum(step.inertia for step in steps))
    executor.seconds[f"k-means-{spec.modality}"] = time.perf_counter() - start
    return centers, iteration, converged


def initial_centers(spec: FeatureSpec, options: GraphConfig, seed: int) -> np.ndarray:
    """Choose the first centres, float64 [k, d], by k-means++ on a sample of the present items.

    Each centre is a point, drawn with a probability proportional to its squared distance to the nearest centre so
    far. If all points are at distance 0, the first point that is not chosen yet is taken.
    """
    # One random stream per modality name, so that adding a modality does not change the other modalities' centres.
    rng = np.random.default_rng([seed, zlib.crc32(spec.modality.encode())])
    present = np.flatnonzero(map_array(spec.present))
    size = max(options.num_centers, min(_SAMPLE_PER_CENTER * options.num_centers, _MAX_SAMPLE))
    sample = np.sort(rng.choice(present, min(size, len(present)), replace=False))
    points = _points(spec, sample, options.spherical)
    taken = np.zeros(len(points), dtype=bool)
    distances = np.full(len(points), np.inf)
    chosen = int(rng.integers(len(points)))
    centers = []
    while True:
        centers.append(points[chosen])
        taken[chosen] = True
        if len(centers) == options.num_centers:
            return np.stack(centers)
        distances = np.minimum(distances, ((points - points[chosen]) ** 2).sum(axis=1))
        running = np.cumsum(distances)
        if running[-1] > 0:
            chosen = int(np.searchsorted(running, rng.random() * running[-1], side="right"))
            chosen = min(chosen, int(np.flatnonzero(distances)[-1]))
        else:
            chosen = int(taken.argmin())


def _step_block(spec: FeatureSpec, spherical: bool, centers: np.ndarray, index: int) -> _BlockStep:
    xp = array_module(spec.backend)
    items = _present_items(spec, index)
    points = xp.asarray(_points(spec, items, spherical))
    nearest, distances = nearest_centers(points, xp.asarray(centers), xp)
    sums, counts = center_sums(points, nearest, len(centers), xp)
    host_distances = to_host(distances)
    far = np.argsort(-host_distances, kind="stable")[: len(centers)]
    return _BlockStep(
        sums=to_host(sums),
        counts=to_host(counts),
        inertia=float(host_distances.sum()),
        furthest=items[far],
        distances=host_distances[far],
    )


def _move(spec: FeatureSpec, spherical: bool, centers: np.ndarray, steps: list[_BlockStep]) -> np.ndarray:
    """Return the next centres: the means of their points (scaled to length 1 if spherical).

    A centre without points moves to the point furthest from its own centre.
    """
    sums, counts = np.zeros_like(centers), np.zeros(len(centers), dtype=np.int64)
    for step in steps:
        sums += step.sums
        counts += step.counts
    moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
    if spherical:
        norms = np.sqrt((moved * moved).sum(axis=1, keepdims=True))
        # If a centre's points add up to 0, their mean has no direction, and the centre stays.
        moved = np.where(norms > 0, moved / np.where(norms > 0, norms, 1.0), centers)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        items = np.concatenate([step.furthest for step in steps])
        distances = np.concatenate([step.distances for step in steps])
        order = np.lexsort((items, -distances))[: len(empty)]
        order = order[distances[order] > 0]
        if len(order):
            moved[empty[: len(order)]] = _points(spec, items[order], spherical)
    return moved


def _label_block(spec: FeatureSpec, spherical: bool, centers: np.ndarray, index: int) -> tuple[np.ndarray, float]:
    xp = array_module(spec.backend)
    rows = row_range(index, ROWS_PER_TASK, spec.num_items)
    items = _present_items(spec, index)
    nearest, distances = nearest_centers(xp.asarray(_points(spec, items, spherical)), xp.asarray(centers), xp)
    labels = np.full(rows.stop - rows.start, -1, dtype=np.int64)
    labels[items - rows.start] = to_host(nearest)
    return labels, float(to_host(distances).sum())


def _write_labels(
    spec: FeatureSpec, options: GraphConfig, centers: np.ndarray, executor: Executor
) -> tuple[float, np.ndarray]:
    """Write the labels int64 [N], -1 where missing. Return the inertia and the size of each cluster."""
    inertia, counts = 0.0, np.zeros(len(centers), dtype=np.int64)
    function = functools.partial(_label_block, spec, options.spherical, centers.astype(np.float64))
    blocks = list(range(num_row_blocks(ROWS_PER_TASK, spec.num_items)))
    with replacing(spec.work.graph / "clusters" / f"{spec.modality}.npy") as temporary:
        written = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int64, shape=(spec.num_items,))
        results = executor.run_blocks(function, blocks, label=f"clusters-{spec.modality}", on_gpu=True)
        for index, (labels, share) in enumerate(results):
            written[row_range(index, ROWS_PER_TASK, spec.num_items)] = labels
            counts += np.bincount(labels[labels >= 0], minlength=len(centers))
            inertia += share
        written.flush()
    return inertia, counts


def _present_items(spec: FeatureSpec, index: int) -> np.ndarray:
    rows = row_range(index, ROWS_PER_TASK, spec.num_items)
    return rows.start + np.flatnonzero(map_array(spec.present)[rows])


def _points(spec: FeatureSpec, items: np.ndarray, spherical: bool) -> np.ndarray:
    """Return the raw features of some present items, float64 [n, d], scaled to length 1 if spherical."""
    points = map_array(spec.features)[items].astype(np.float64)
    return points / np.sqrt((points * points).sum(axis=1, keepdims=True)) if spherical else points
