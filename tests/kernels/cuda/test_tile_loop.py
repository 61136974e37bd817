"""The block loop: whatever the tiles, every item that can be among the best is on the list."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from kernels.backend import to_host
from kernels.cuda import tile_loop
from kernels.cuda.tile_loop import DeviceTileLoop, cut, empty_lists, tile_shape

WIDTH = 64  # products of whole numbers divided by it are exact


def whole_units(rng, n):
    return rng.integers(-4, 5, (n, WIDTH)).astype(np.float16)


def on_list(lists, i):
    _, _, count, ids, scores, _ = (to_host(array) for array in lists)
    return dict(zip(ids[i, : count[i]].tolist(), scores[i, : count[i]].tolist(), strict=True))


def check(lists, first_id, scores, ids, margin, num_best):
    """`scores` [n, m] of the n lists' items with all items `ids` [m]."""
    thresholds, overflowed = to_host(lists.threshold), to_host(lists.overflowed)
    for i, row in enumerate(scores):
        others = ids != first_id + i
        best = np.sort(row[others])[::-1]
        threshold = best[num_best - 1] - margin if len(best) >= num_best else -np.inf
        wanted = {int(j): float(s) for j, s in zip(ids[others], row[others], strict=True) if s >= threshold}
        assert not overflowed[i]
        assert on_list(lists, i) == wanted
        assert thresholds[i] == threshold


@pytest.fixture(params=[False, True])
def overlap(request, xp):
    if request.param and xp is np:
        pytest.skip("streams need a GPU")
    return request.param


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    ("n", "tile"), [(1, (4, 8)), (150, (32, 40)), (150, (64, 128)), (150, (256, 256)), (150, (4, 8)), (131, (8, 12))]
)
def test_triangle(xp, overlap, graph, n, tile):
    units = whole_units(np.random.default_rng(n), n)
    margin = 3 / WIDTH
    lists = empty_lists(xp, xp.full(n, margin, dtype=xp.float32), 48)
    loop = DeviceTileLoop(xp=xp, width=WIDTH, num_neighbors=7, tile=tile, overlap=overlap, graph=graph)
    loop.triangle(xp.asarray(units), lists, 1000)
    scores = units.astype(np.float32) @ units.astype(np.float32).T / WIDTH
    check(lists, 1000, scores, 1000 + np.arange(n), margin, 7)


@pytest.mark.parametrize("graph", [False, True])
def test_rectangle_between_triangles_equals_one_triangle(xp, overlap, graph):
    n, m, margin = 110, 130, 2 / WIDTH
    units = whole_units(np.random.default_rng(5), n + m)
    on_device = xp.asarray(units)
    loop = DeviceTileLoop(xp=xp, width=WIDTH, num_neighbors=10, tile=(20, 64), overlap=overlap, graph=graph)
    left, right = (empty_lists(xp, xp.full(k, margin, dtype=xp.float32), 48) for k in (n, m))
    loop.triangle(on_device[:n], left, 0)
    loop.rectangle(on_device[:n], left, 0, on_device[n:], right, n)
    loop.triangle(on_device[n:], right, n)
    scores = units.astype(np.float32) @ units.astype(np.float32).T / WIDTH
    check(left, 0, scores[:n], np.arange(n + m), margin, 10)
    check(right, n, scores[n:], np.arange(n + m), margin, 10)


def test_most_tiles_are_not_queued_by_python(xp, monkeypatch):
    """Of a triangle of 64 panels of 32 tiles at most, and of a rectangle of 64 panels of 32 tiles."""
    if xp is not np:
        pytest.skip("calls are counted in the emulator")
    calls = Counter()
    for name in ("scan_tile", "compact_tile", "seed_thresholds", "multiply_fp16"):
        monkeypatch.setattr(tile_loop, name, lambda *_, name=name: calls.update([name]))
    stream = SimpleNamespace(synchronize=lambda: calls.update(["wait"]))
    monkeypatch.setattr(np.cuda, "get_current_stream", lambda: stream)
    units = np.zeros((512, 8), dtype=np.float16)
    queued = {}
    for graph in (False, True):
        loop = DeviceTileLoop(xp=xp, width=8, num_neighbors=3, tile=(8, 16), graph=graph)
        lists = [empty_lists(xp, xp.zeros(512, dtype=np.float32), 8) for _ in range(2)]
        calls.clear()
        loop.triangle(units, lists[0], 0)
        triangle = dict(calls)
        calls.clear()
        loop.rectangle(units, lists[0], 0, units, lists[1], 512)
        queued[graph] = triangle, dict(calls)
        assert triangle.get("wait", 0) == calls["wait"] == graph  # the graphs exist until they have run
        assert not loop._in_use
    assert queued[False][0]["scan_tile"] == 64 + sum(-(-(63 - k) // 2) for k in range(64))
    assert queued[False][1]["scan_tile"] == 64 * 32
    assert queued[True][0]["scan_tile"] == 8 * (8 + 16) + 4 * 4 + 2 * 8 + 16
    assert queued[True][1]["scan_tile"] == 2 * 32
    assert queued[True][1]["multiply_fp16"] == 2 * 32 + 1
    assert queued[True][1]["seed_thresholds"] == 32 + 2


def test_too_many_ties_overflow_and_harm_no_other_row(xp):
    units = whole_units(np.random.default_rng(1), 120)
    units[40:80] = units[40]
    lists = empty_lists(xp, xp.zeros(120, dtype=xp.float32), 24)
    DeviceTileLoop(xp=xp, width=WIDTH, num_neighbors=5, tile=(32, 64)).triangle(xp.asarray(units), lists, 0)
    overflowed = to_host(lists.overflowed)
    assert overflowed[40:80].all()
    scores = units.astype(np.float32) @ units.astype(np.float32).T / WIDTH
    for i in np.flatnonzero(~overflowed):
        others = np.delete(np.arange(120), i)
        threshold = np.sort(scores[i, others])[-5]
        assert on_list(lists, i) == {j: scores[i, j] for j in others.tolist() if scores[i, j] >= threshold}
    assert (~overflowed).sum() > 40


@pytest.mark.parametrize("multiprocessors", [108, 132, 148])
def test_tile_shape_fills_whole_waves(multiprocessors):
    for buffer_bytes in (12 << 20, 24 << 20, 48 << 20):
        rows, columns = tile_shape(buffer_bytes, multiprocessors)
        assert rows * columns * 4 <= buffer_bytes
        assert rows <= columns
        blocks = (rows // 128) * (columns // 256)
        waves = -(-blocks // multiprocessors)
        whole = min(buffer_bytes // (4 * 128 * 256), waves * multiprocessors)
        assert blocks >= 0.95 * whole


def test_cut_covers_a_range():
    assert cut(3, 10, 4) == [(3, 7), (7, 10)]
    assert cut(5, 5, 4) == []
