"""The rows of a feature file on the device: sent once, used by search and ranking, and left out if they do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.backend import to_host
from kernels.cosine import exact_dots
from kernels.cosine.exact_ranking import rank_candidates
from kernels.cosine.pair_search import DeviceSearch
from kernels.cuda import device_rows
from kernels.cuda.device_rows import DeviceDots, release_rows, rows_on_device


@pytest.fixture
def features(tmp_path):
    rows = np.random.default_rng(0).standard_normal((300, 37)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    yield rows, tmp_path / "rows.npy"
    release_rows()


@pytest.mark.parametrize("fits", [True, False])
def test_ranking_on_the_device_has_the_bytes_of_the_host(xp, features, monkeypatch, fits):
    rows, path = features
    if not fits:
        monkeypatch.setattr(device_rows, "_free_bytes", lambda _: rows.nbytes)
    rng = np.random.default_rng(1)
    squares = exact_dots.row_squares(rows)
    queries = rng.permutation(300)[:90]
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 20, 90))])
    candidates = np.concatenate([rng.permutation(300)[:n] for n in np.diff(offsets)])
    on_host = rank_candidates(rows, squares, queries, offsets, candidates, 5)
    dots = DeviceDots(xp, path)
    monkeypatch.setattr(device_rows, "map_array", lambda _: pytest.fail("the file is read again"))
    on_device = rank_candidates(rows, squares, queries, offsets, candidates, 5, dots=dots)
    for found, expected in zip(on_device, on_host, strict=True):
        assert found.tobytes() == expected.tobytes()


def test_a_file_is_sent_once_and_again_when_it_has_changed(xp, features, monkeypatch):
    rows, path = features
    first = rows_on_device(xp, path)
    np.testing.assert_array_equal(to_host(first), rows)
    assert rows_on_device(xp, path) is first
    np.testing.assert_array_equal(to_host(DeviceSearch(xp, 4).gather(path, np.array([7, 2, 7]))), rows[[7, 2, 7]])
    other = path.with_name("other.npy")
    np.save(other, rows[:5])
    other.replace(path)
    np.testing.assert_array_equal(to_host(rows_on_device(xp, path)), rows[:5])
    assert len(device_rows._held) == 1
    release_rows()
    monkeypatch.setattr(device_rows, "_free_bytes", lambda _: 2 * rows[:5].nbytes - 1)
    assert rows_on_device(xp, path) is None
    np.testing.assert_array_equal(to_host(DeviceSearch(xp, 4).gather(path, np.array([4, 0]))), rows[[4, 0]])
