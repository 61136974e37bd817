"""Measure the item-graph kernels on one GPU, and in the same run a lower bound of the time of each.

    python -m benchmarks.graphs_gpu [--seconds 240]

1. Whether the buffer stays in L2: a GEMM and a scan through one small buffer, and through 4 GB of buffers.
2. Candidates of the cosine search, 1M x 384 and 10M x 512: as many blocks as --seconds allow. The time of all blocks
   is extrapolated from the share of pairs that is done. For comparison: the float16 GEMM of all N^2 pairs, and
   torch.mm + torch.topk. If all blocks were done, the lists of some rows are checked against all scores of these
   rows.
   1M x 384 is also searched by one call, with each tile queued by itself and with recorded panels.
3. Exact ranking, injection and co-occurrence pairs: bytes (or pairs) per second. For comparison: a device copy.

Kernels are timed by CUDA events around the work of one stream, after a warm-up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from contracts.errors import InputError
from kernels.backend import array_module, to_host
from kernels.cosine.cosine_topk import error_bounds, list_margin
from kernels.cuda.gemm import multiply_fp16
from kernels.cuda.launchers import bucket_pairs, compact_lists, injected_rows, pair_dots, scan_tile, unit_rows
from kernels.cuda.tile_loop import BUFFER_BYTES, DeviceTileLoop, cut, empty_lists, part_of, tile_shape

NUM_NEIGHBORS = 10
CAPACITY = 96
BLOCK_ROWS = 1 << 16
ROTATING_BYTES = 4 << 30
VARIANTS = {
    "one_stream": {"overlap": False, "graph": False},
    "graph": {"overlap": False, "graph": True},
    "graph_overlapped": {"overlap": True, "graph": True},
}


def seconds_of(cupy: Any, work: Callable[[], object], repeats: int = 1) -> float:
    """Return the seconds of one call, measured by CUDA events after one call that is not timed."""
    work()
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    stream = cupy.cuda.get_current_stream()
    start.record(stream)
    for _ in range(repeats):
        work()
    end.record(stream)
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / 1000 / repeats


def make_items(cupy: Any, num_items: int, width: int, keep: bool) -> tuple[Any, Any, Any]:
    """Make items as noise around 4096 centres, in random order.

    Returns unit rows float16, margins float32 and, if `keep`, the float32 rows.
    """
    random = cupy.random.default_rng(0)
    centers = random.standard_normal((4096, width), dtype=cupy.float32)
    units = cupy.empty((num_items, -(-width // 8) * 8), dtype=cupy.float16)
    residuals = np.empty(num_items, dtype=np.float32)
    features = cupy.empty((num_items, width), dtype=cupy.float32) if keep else None
    for first, last in cut(0, num_items, 1 << 18):
        rows = random.standard_normal((last - first, width), dtype=cupy.float32)
        rows += centers[random.integers(0, len(centers), last - first)]
        squares = (rows.astype(cupy.float64) ** 2).sum(axis=1)
        units[first:last], part = unit_rows(rows, squares)
        residuals[first:last] = to_host(part)
        if features is not None:
            features[first:last] = rows
    bounds = error_bounds(residuals, float(residuals.max()), width, "float16")
    return units, cupy.asarray(list_margin(bounds)), features


def l2_reuse(cupy: Any, tile: tuple[int, int], width: int) -> dict[str, float]:
    """Measure the same GEMM and scan of one tile through one buffer, and through 4 GB of buffers."""
    random = cupy.random.default_rng(1)
    rows, columns = (random.standard_normal((n, width), dtype=cupy.float32).astype(cupy.float16) for n in tile)
    lists = empty_lists(cupy, cupy.zeros(tile[0] + tile[1], dtype=cupy.float32), CAPACITY)
    lists.threshold[:] = 1e30  # no score reaches it, so only the scan is measured
    both = part_of(lists, (0, tile[0])), part_of(lists, (tile[0], tile[0] + tile[1]))
    buffers = [cupy.empty(tile, dtype=cupy.float32) for _ in range(ROTATING_BYTES // (4 * tile[0] * tile[1]))]
    result = {}
    for name, used in (("one_buffer", buffers[:1]), ("rotating_4_gb", buffers)):

        def gemm(used: list[Any] = used) -> None:
            for step in range(len(buffers)):
                multiply_fp16(rows, columns, used[step % len(used)], width)

        def both_steps(used: list[Any] = used) -> None:
            for step in range(len(buffers)):
                multiply_fp16(rows, columns, used[step % len(used)], width)
                scan_tile(used[step % len(used)], both[0], 0, both[1], 1 << 20)

        flops = 2.0 * tile[0] * tile[1] * width * len(buffers)
        result[f"gemm_tflops_{name}"] = flops / seconds_of(cupy, gemm, 3) / 1e12
        result[f"gemm_and_scan_tflops_{name}"] = flops / seconds_of(cupy, both_steps, 3) / 1e12
    return result


def full_gemm_seconds(cupy: Any, units: Any, width: int) -> float:
    """Return the seconds of the float16 GEMM of all N^2 pairs, extrapolated from one of 16384 x 16384."""
    part = units[: min(len(units), 1 << 14)]
    out = cupy.empty((len(part), len(part)), dtype=cupy.float32)
    once = seconds_of(cupy, lambda: multiply_fp16(part, part, out, width), 5)
    return once * (len(units) / len(part)) ** 2


def torch_topk_seconds(units: Any) -> float | None:
    """Return the seconds of torch.mm + torch.topk over all N^2 pairs, extrapolated from 4096 x 65536.

    Returns None if torch has no CUDA.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    keys = torch.from_dlpack(units[:BLOCK_ROWS])
    queries = keys[:4096]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    for _ in range(2):  # the first warms up
        events[0].record()
        for _ in range(5):
            torch.topk(queries @ keys.T, NUM_NEIGHBORS, dim=1)
        events[1].record()
        torch.cuda.synchronize()
    once = events[0].elapsed_time(events[1]) / 1000 / 5
    return once * len(units) ** 2 / (len(queries) * len(keys))


def search(
    cupy: Any, units: Any, margin: Any, width: int, tile: tuple[int, int], variant: dict[str, bool], limit: float
) -> dict:
    """Search blocks of the triangle, those nearest to the diagonal first, until `limit` seconds have passed."""
    num_items = len(units)
    blocks = cut(0, num_items, BLOCK_ROWS)
    order = [(i, i + shift) for shift in range(len(blocks)) for i in range(len(blocks) - shift)]
    loop = DeviceTileLoop(xp=cupy, width=width, num_neighbors=NUM_NEIGHBORS, tile=tile, **variant)
    warm = empty_lists(cupy, margin[: tile[1]], CAPACITY)
    loop.triangle(units[: tile[1]], warm, 0)
    lists = empty_lists(cupy, margin, CAPACITY)
    cupy.cuda.Device().synchronize()
    started, pairs, done = time.perf_counter(), 0, 0
    for i, j in order:
        rows, columns = (units[slice(*blocks[k])] for k in (i, j))
        if i == j:
            loop.triangle(rows, part_of(lists, blocks[i]), blocks[i][0])
            pairs += len(rows) * (len(rows) - 1) // 2
        else:
            parts = (part_of(lists, blocks[i]), blocks[i][0], columns, part_of(lists, blocks[j]), blocks[j][0])
            loop.rectangle(rows, *parts)
            pairs += len(rows) * len(columns)
        cupy.cuda.Device().synchronize()
        done += 1
        if time.perf_counter() - started > limit:
            break
    seconds = time.perf_counter() - started
    share = pairs / (num_items * (num_items - 1) / 2)
    compact_lists(lists, NUM_NEIGHBORS)
    complete = done == len(order)
    return {
        "seconds": seconds,
        "share_of_pairs": share,
        "seconds_of_all_pairs": seconds / share,
        "certified_fraction": float(1 - lists.overflowed.mean()),
        "entries_per_list": float(lists.used.mean()),
        "best_items_listed": listed(cupy, units, lists, width) if complete else None,
        "lists": lists,
    }


def whole_triangle(
    cupy: Any, units: Any, margin: Any, width: int, tile: tuple[int, int], graph: bool
) -> dict[str, Any]:
    """Search all pairs by one call, as a build on one GPU does up to 2^20 rows."""
    loop = DeviceTileLoop(xp=cupy, width=width, num_neighbors=NUM_NEIGHBORS, tile=tile, graph=graph)
    lists = empty_lists(cupy, margin, CAPACITY)
    cupy.cuda.Device().synchronize()
    started = time.perf_counter()
    loop.triangle(units, lists, 0)
    cupy.cuda.Device().synchronize()
    seconds = time.perf_counter() - started
    return {
        "seconds_of_all_pairs": seconds,
        "certified_fraction": float(1 - lists.overflowed.mean()),
        "best_items_listed": listed(cupy, units, lists, width),
    }


def listed(cupy: Any, units: Any, lists: Any, width: int) -> float:
    """Return the share of the best items of 64 rows, by all their scores, that is on the rows' lists; 1 is correct."""
    rows = cupy.linspace(0, len(units) - 1, 64).astype(cupy.int64)
    scores = cupy.empty((len(rows), -(-len(units) // 4) * 4), dtype=cupy.float32)[:, : len(units)]
    multiply_fp16(cupy.ascontiguousarray(units[rows]), units, scores, width)
    scores[cupy.arange(len(rows)), rows] = -cupy.inf
    best = to_host(cupy.argsort(-scores, axis=1)[:, :NUM_NEIGHBORS])
    ids, counts, overflowed = (to_host(array[rows]) for array in (lists.ids, lists.used, lists.overflowed))
    found = [np.isin(best[k], ids[k, : counts[k]]).mean() if not overflowed[k] else 1.0 for k in range(len(best))]
    return float(np.mean(found))


def rerank(cupy: Any, features: Any, lists: Any) -> dict[str, float]:
    """Measure the float64 dot products of the candidates of up to 200 000 rows."""
    counts = to_host(lists.used[:200_000])
    left = cupy.asarray(np.repeat(np.arange(len(counts)), counts))
    held = cupy.arange(lists.ids.shape[1])[None, :] < lists.used[: len(counts), None]
    right = lists.ids[: len(counts)][held].astype(cupy.int64)
    seconds = seconds_of(cupy, lambda: pair_dots(features, left, features, right), 3)
    return {"pairs_per_second": len(left) / seconds, "gb_per_second": len(left) * features.shape[1] * 8 / seconds / 1e9}


def others(cupy: Any) -> dict[str, float]:
    """Measure injection of 1M x 384 with 20 entries a row, pairs of 1M sequences of 10 items, and a device copy."""
    random = cupy.random.default_rng(2)
    n, width, entries = 1_000_000, 384, 20
    features = random.standard_normal((n, width), dtype=cupy.float32).astype(cupy.float16)
    indptr = cupy.arange(n + 1, dtype=cupy.int64) * entries
    columns = random.integers(0, n, n * entries)
    weights = random.random(n * entries, dtype=cupy.float32)
    other = cupy.empty_like(features)
    copy = seconds_of(cupy, lambda: cupy.copyto(other, features), 5)
    inject = seconds_of(cupy, lambda: injected_rows(indptr, columns, weights, features, features, 0.5), 3)
    items = random.integers(0, n, 10 * n).astype(cupy.int32)
    offsets = cupy.arange(n + 1, dtype=cupy.int64) * 10
    expand = seconds_of(cupy, lambda: bucket_pairs(items, offsets, 50))
    return {
        "copy_gb_per_second": 2 * features.nbytes / copy / 1e9,
        "injected_gathered_gb_per_second": n * entries * width * 2 / inject / 1e9,
        "cooccurrence_pairs_per_second": 90.0 * n / expand,
    }


def measure(cupy: Any, seconds: float) -> dict[str, Any]:
    device = cupy.cuda.Device()
    tile = tile_shape(BUFFER_BYTES, device.attributes["MultiProcessorCount"])
    gpu = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    result: dict[str, Any] = {"gpu": gpu, "tile": tile, "l2": {d: l2_reuse(cupy, tile, d) for d in (384, 512)}}
    for num_items, width in ((1_000_000, 384), (10_000_000, 512)):
        units, margin, features = make_items(cupy, num_items, width, keep=num_items <= 1_000_000)
        gemm = full_gemm_seconds(cupy, units, width)
        found: dict[str, Any] = {"gemm_seconds": gemm, "torch_topk_seconds": torch_topk_seconds(units)}
        for name, variant in VARIANTS.items():
            run = search(cupy, units, margin, width, tile, variant, seconds / 6)
            lists = run.pop("lists")
            run["seconds_over_gemm"] = run["seconds_of_all_pairs"] / gemm
            found[name] = run
            click.echo(f"{num_items} x {width}, {name}: {run}")
            if features is not None and name == "one_stream":
                found["rerank"] = rerank(cupy, features, lists)
            del lists
        if features is not None:
            for name, graph in (("whole_one_by_one", False), ("whole_recorded", True)):
                found[name] = whole_triangle(cupy, units, margin, width, tile, graph)
                found[name]["seconds_over_gemm"] = found[name]["seconds_of_all_pairs"] / gemm
                click.echo(f"{num_items} x {width}, {name}: {found[name]}")
        result[f"{num_items}x{width}"] = found
        del units, margin, features
        cupy.get_default_memory_pool().free_all_blocks()
    result["others"] = others(cupy)
    return result


@click.command()
@click.option(
    "--seconds", default=240.0, show_default=True, help="Seconds of all searches together; the rest takes about 60."
)
def main(seconds: float) -> None:
    """Measure on this machine's GPU; JSON on the last line."""
    try:
        cupy = array_module("cuda")
    except InputError as error:
        click.echo(f"nothing was measured: {error}")
        return
    click.echo(json.dumps(measure(cupy, seconds)))


if __name__ == "__main__":
    main()
