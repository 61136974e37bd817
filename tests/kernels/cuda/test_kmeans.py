"""k-means on a device: every sum has the order of the CPU's, so centres, labels and inertia have the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_builder.stages import clusters
from kernels.backend import to_host
from kernels.kmeans import center_sums, nearest_centers, pairwise_sums
from tests.graph_builder.test_clusters import cluster


@pytest.mark.parametrize("width", [*range(1, 20), 63, 127, 128, 129, 136, 300, 384, 1000, 1024, 4097])
def test_columns_are_added_in_the_order_of_numpy(xp: Any, width: int) -> None:
    values = np.random.default_rng(width).standard_normal((5, width)) ** 2
    assert to_host(pairwise_sums(xp.asarray(values))).tobytes() == values.sum(axis=1).tobytes()


@pytest.mark.parametrize("width", [1, 7, 128, 300])
def test_a_step_has_the_bits_of_the_cpu(device: Any, width: int) -> None:
    rng = np.random.default_rng(width)
    # Values of very different sizes, where every other order of additions gives other bits.
    points = rng.standard_normal((203, width)) * 10.0 ** rng.integers(-9, 9, (203, 1))
    centers = np.concatenate([points[:9], np.full((2, width), 1e12), points[:1]])
    nearest, distances = nearest_centers(points, centers)
    sums, counts = center_sums(points, nearest, len(centers))
    on_device = device.asarray(points), device.asarray(centers)
    found = nearest_centers(*on_device, device)
    found_sums, found_counts = center_sums(on_device[0], found[0], len(centers), device)
    np.testing.assert_array_equal(to_host(found[0]), nearest)
    assert to_host(found[1]).tobytes() == distances.tobytes()
    assert distances.tobytes() == ((points - centers[nearest]) ** 2).sum(axis=1).tobytes()
    assert to_host(found_sums).tobytes() == sums.tobytes()
    np.testing.assert_array_equal(to_host(found_counts), counts)
    assert (counts == 0).any()
    assert sums.tobytes() != np.stack([points[nearest == c][::-1].sum(axis=0) for c in range(len(centers))]).tobytes()


@pytest.mark.parametrize("spherical", [False, True])
def test_clusters_have_the_bytes_of_the_cpu(
    device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spherical: bool
) -> None:
    features = np.random.default_rng(3).standard_normal((150, 140)).astype(np.float16)
    features[::11] = 0
    monkeypatch.setattr(clusters, "ROWS_PER_TASK", 64)
    options = {"num_centers": 6, "kmeans_iterations": 4, "spherical": spherical}
    on_cpu = cluster(tmp_path / "cpu", features, **options)
    used = []
    monkeypatch.setattr(clusters, "array_module", lambda _: used.append(device) or device)
    on_device = cluster(tmp_path / "device", features, **options)
    assert used
    assert on_device[0].tobytes() == on_cpu[0].tobytes()
    assert on_device[1].tobytes() == on_cpu[1].tobytes()
    assert on_device[2] == on_cpu[2]
