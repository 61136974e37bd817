"""Candidate lists on the device: which scores are offered, how thresholds rise, which entries compaction keeps."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.backend import to_host
from kernels.candidate_lists import CandidateLists
from kernels.cuda.launchers import compact_lists, scan_tile, seed_thresholds
from kernels.cuda.tile_loop import empty_lists, part_of
from tests.kernels.cuda import twins

SIZES = [(1, 1), (1, 130), (63, 100), (100, 63), (65, 1000), (200, 129)]


def tile_of(rng, q, b):
    """Scores with ties, in a buffer whose unused columns would beat every threshold."""
    buffer = np.full((q, -(-b // 4) * 4 + 8), np.inf, dtype=np.float32)
    buffer[:, :b] = rng.integers(-50, 51, (q, b)) / np.float32(64)
    return buffer, b


def lists_of(xp, threshold, capacity, guard):
    """Lists for `threshold` between `guard` others that nothing may touch."""
    n = len(threshold) + 2 * guard
    lists = empty_lists(np, np.zeros(n, dtype=np.float32), capacity)
    lists.ids[:], lists.scores[:] = -7, -7
    lists.threshold[guard : n - guard] = threshold
    everything = CandidateLists(*(xp.asarray(array) for array in lists))
    return everything, part_of(everything, (guard, n - guard))


def check_lists(everything, expected, guard, capacity):
    threshold, _, count, ids, scores, _ = (to_host(array) for array in everything)
    inside = slice(guard, guard + len(expected))
    for entries, length, found_ids, found_scores in zip(
        expected, count[inside], ids[inside], scores[inside], strict=True
    ):
        assert length == len(entries)
        held = min(length, capacity)
        found = list(zip(found_ids[:held].tolist(), found_scores[:held].tolist(), strict=True))
        assert len(set(found)) == held
        assert set(found) <= set(entries)
        assert (found_ids[held:] == -7).all()
    outside = np.ones(len(threshold), dtype=bool)
    outside[inside] = False
    assert (ids[outside] == -7).all()
    assert (count[outside] == 0).all()


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize(("q", "b"), SIZES)
def test_scan_offers_scores_that_reach_a_threshold(xp, q, b, two_sided):
    rng = np.random.default_rng(q * b)
    buffer, _ = tile_of(rng, q, b)
    capacity, guard = 12, 3
    for row_threshold, column_threshold in [(0.7, 0.75), (-np.inf, 0.7), (0.7, -np.inf), (2.0, 2.0)]:
        row_thresholds = np.full(q, row_threshold, dtype=np.float32)
        column_thresholds = np.full(b, column_threshold, dtype=np.float32)
        row_thresholds[::5], column_thresholds[::7] = 0.5, np.inf
        every_row, rows = lists_of(xp, row_thresholds, capacity, guard)
        every_column, columns = lists_of(xp, column_thresholds, capacity, guard)
        first_row, first_column = (5, 1000) if two_sided else (40, 30)
        scan_tile(xp.asarray(buffer)[:, :b], rows, first_row, columns if two_sided else None, first_column)
        of_rows, of_columns = twins.offered(
            buffer[:, :b], row_thresholds, first_row, column_thresholds if two_sided else None, first_column
        )
        check_lists(every_row, of_rows, guard, capacity)
        check_lists(every_column, of_columns, guard, capacity)


def test_scan_does_not_depend_on_the_order_of_threads(xp, emulator):
    buffer, _ = tile_of(np.random.default_rng(0), 70, 140)
    results = []
    for seed in range(3):
        emulator.seed = seed
        _, rows = lists_of(xp, np.full(70, 0.6, dtype=np.float32), 64, 0)
        scan_tile(xp.asarray(buffer)[:, :140], rows, 0, None, 0)
        results.append([sorted(to_host(rows.ids)[r, : to_host(rows.used)[r]].tolist()) for r in range(70)])
    assert results[0] == results[1] == results[2]
    assert sum(map(len, results[0])) > 100


@pytest.mark.parametrize("num_neighbors", [1, 10, 64])
@pytest.mark.parametrize(("q", "b"), SIZES)
def test_seeds_are_group_maxima(xp, q, b, num_neighbors):
    rng = np.random.default_rng(q + b)
    buffer, _ = tile_of(rng, q, b)
    tile = buffer[:, :b]
    first_row, first_column = 3, 0
    for of_rows, n, groups in [(True, q, 256), (False, b, 128)]:
        threshold = rng.choice(np.array([-np.inf, 0.3, 5], dtype=np.float32), n)
        margin = rng.random(n, dtype=np.float32) / 100
        every, part = lists_of(xp, threshold, 4, 2)
        part.margin[:] = xp.asarray(margin)
        seed_thresholds(xp.asarray(buffer)[:, :b], part, of_rows, num_neighbors, first_row, first_column)
        values = tile if of_rows else tile.T
        shift = first_row - first_column if of_rows else first_column - first_row
        expected = [
            twins.seeded(values[i], i + shift, threshold[i], margin[i], num_neighbors, groups)
            for i in range(len(threshold))
        ]
        np.testing.assert_array_equal(to_host(every.threshold)[2:-2], expected)
        assert np.isneginf(to_host(every.threshold)[[0, 1, -2, -1]]).all()
        # The kernel's purpose: a threshold is never above the true H-th best minus the margin.
        for i in range(n):
            others = np.sort(np.delete(values[i], [i + shift] if 0 <= i + shift < len(values[i]) else []))
            if len(others) >= num_neighbors:
                assert expected[i] <= max(threshold[i], twins.below(others[-num_neighbors], margin[i]))


@pytest.mark.parametrize(("capacity", "num_neighbors"), [(1, 1), (42, 10), (100, 64), (1000, 10)])
@pytest.mark.parametrize("trigger", [0, 20])
def test_compaction(xp, capacity, num_neighbors, trigger):
    rng = np.random.default_rng(capacity)
    n = 41
    lists = empty_lists(np, np.zeros(n, dtype=np.float32), capacity)
    lists.margin[:] = rng.random(n) / 5
    lists.used[:] = rng.integers(0, capacity + 4, n)
    lists.used[:3] = 0, capacity, capacity + 1
    lists.threshold[:] = rng.choice(np.array([-np.inf, -0.9, 0.25], dtype=np.float32), n)
    lists.ids[:] = rng.permuted(np.broadcast_to(np.arange(capacity), lists.ids.shape), axis=1)
    lists.scores[:] = rng.integers(-9, 10, lists.scores.shape) / np.float32(10)
    lists.scores[:, ::3] *= rng.random(lists.scores[:, ::3].shape, dtype=np.float32)
    lists.scores[::6] = -0.0
    on_device = CandidateLists(*(xp.asarray(array.copy()) for array in lists))
    compact_lists(on_device, num_neighbors, trigger)
    threshold, _, count, ids, scores, overflowed = (to_host(array) for array in on_device)
    for i in range(n):
        own = (lists.threshold[i], lists.used[i], lists.ids[i], lists.scores[i], lists.margin[i])
        expected_threshold, entries, too_many = twins.compacted(*own, num_neighbors, trigger)
        assert threshold[i] == expected_threshold
        assert overflowed[i] == too_many
        if lists.used[i] >= trigger:
            assert count[i] == len(entries)
        held = min(count[i], capacity)
        assert sorted(zip(ids[i, :held].tolist(), scores[i, :held].tolist(), strict=True)) == sorted(entries)


def test_overflow_stays_noted(xp):
    lists = empty_lists(xp, xp.zeros(2, dtype=xp.float32), 4)
    lists.overflowed[0] = True
    compact_lists(lists, 2)
    assert to_host(lists.overflowed).tolist() == [True, False]
