"""The GPU's search, dots and pair buckets in their places: a graph with the bytes of the CPU's."""

from __future__ import annotations

import numpy as np
import pytest

from configs.schema import GraphConfig
from graph_builder.executor import SerialExecutor
from graph_builder.stages import neighbor_tasks
from graph_builder.stages.neighbors import build_neighbors
from kernels.backend import to_host
from kernels.cooccurrence import pair_counts
from kernels.cosine.cosine_topk import cosine_neighbors, square_norms
from kernels.cosine.pair_search import DeviceSearch, HostSearch, RangeRows
from kernels.cuda import device_rows
from kernels.cuda import launchers as cuda_kernels
from tests.graph_builder.test_neighbors import built, hard_features, specification


@pytest.mark.long
@pytest.mark.parametrize("held", [True, False])
def test_graph_from_device_tasks_has_the_bytes_of_the_cpu(xp, tmp_path, monkeypatch, held):
    search = DeviceSearch(xp, multiprocessors=4, graph=held)
    monkeypatch.setattr(neighbor_tasks, "find_search", lambda *_: search)
    monkeypatch.setattr(neighbor_tasks, "find_dots", lambda _, path: device_rows.DeviceDots(xp, path))
    if not held:
        monkeypatch.setattr(device_rows, "_free_bytes", lambda _: 0)
    features = hard_features()
    options = GraphConfig(num_neighbors=6, precision="float16")
    record = build_neighbors(specification(tmp_path, features), options, SerialExecutor(), 180)
    ids, scores, _ = cosine_neighbors(features, 6)
    np.testing.assert_array_equal(built(tmp_path)[0], ids)
    assert built(tmp_path)[1].tobytes() == scores.tobytes()
    assert record["fallback_rows"] > 0


def test_sides_are_those_of_the_host(xp):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 20)).astype(np.float32)
    squares = square_norms(rows)
    host, device = HostSearch("float16"), DeviceSearch(xp, 4)
    largest = device.largest_residual(rows, squares)
    assert abs(largest - host.largest_residual(rows, squares)) < 1e-6
    threshold = np.linspace(-1, 1, 40).astype(np.float32)
    part = RangeRows(rows, squares, 7, threshold)
    one, other = host.side(part, 3, largest), device.side(part, 3, largest)
    np.testing.assert_array_equal(to_host(other.units)[:, :20], one.units)
    np.testing.assert_array_equal(to_host(other.lists.threshold), threshold)
    np.testing.assert_allclose(to_host(other.lists.margin), one.lists.margin, rtol=1e-3)
    assert device.largest_residual(rows[:0], squares[:0]) == 0


def test_pairs_of_host_arrays(xp):
    items = np.random.default_rng(1).integers(0, 9, 60).astype(np.int32)
    offsets = np.array([0, 25, 25, 60])
    found = cuda_kernels.host_bucket_pairs(xp, items, offsets, 4, (10, 50))
    expected = pair_counts.bucket_pairs(items, offsets, 4, (10, 50))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.starts, expected.starts)
    for begin, end in zip(found.starts[:-1], found.starts[1:], strict=True):
        pairs = [sorted(zip(e.columns[begin:end], e.gaps[begin:end], strict=True)) for e in (found, expected)]
        assert pairs[0] == pairs[1]
