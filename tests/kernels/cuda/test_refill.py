"""Lists that a tile overflows are offered the tile again; only lists that cannot fit stay overflowed."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.backend import to_host
from kernels.candidate_lists import CandidateLists
from kernels.cuda.launchers import compact_tile, scan_tile, seed_thresholds
from kernels.cuda.tile_loop import empty_lists, part_of
from tests.kernels.cuda import twins

SLACK = 1 / 64
EARLIER = 10_000  # ids of entries that earlier tiles gave


def started(rng, n, capacity, best):
    """Lists that hold some entries of earlier tiles already, none below the threshold."""
    lists = empty_lists(np, np.full(n, SLACK, dtype=np.float32), capacity)
    lists.used[:] = rng.integers(0, min(9, capacity + 1), n)
    lists.ids[:] = EARLIER + np.arange(capacity)
    lists.scores[:] = rng.integers(-best, best + 1, lists.scores.shape) / np.float32(64)
    lists.threshold[::3] = -best / np.float32(64)
    return lists


def check(before, after, offered, num_best):
    """Lists hold all scores at or above a threshold that is not too high; they overflow only where they must."""
    threshold, _, count, ids, scores, overflowed = (to_host(array) for array in after)
    capacity = ids.shape[1]
    for i, new in enumerate(offered):
        held = range(before.used[i])
        entries = [(int(before.ids[i, e]), float(before.scores[i, e])) for e in held] + new
        all_scores = np.sort([score for _, score in entries])
        highest = before.threshold[i]
        if len(entries) >= num_best:
            highest = max(highest, twins.below(all_scores[-num_best], SLACK))
        assert before.threshold[i] <= threshold[i] <= highest
        at_threshold = sorted(entry for entry in entries if entry[1] >= threshold[i])
        if overflowed[i]:
            assert len(at_threshold) > capacity
        else:
            assert sorted(zip(ids[i, : count[i]].tolist(), scores[i, : count[i]].tolist(), strict=True)) == at_threshold
            if len(entries) >= num_best:
                assert threshold[i] == highest


@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
@pytest.mark.parametrize(
    ("q", "b", "capacity", "num_best"), [(70, 300, 20, 10), (33, 1, 3, 1), (50, 90, 12, 12), (40, 600, 100, 64)]
)
def test_a_flood_loses_nothing(xp, order, q, b, capacity, num_best):
    rng = np.random.default_rng(b)
    buffer = np.full((q, -(-b // 4) * 4 + 4), np.inf, dtype=np.float32)
    tile = buffer[:, :b]
    # Mostly distinct, so that few ties reach the threshold.
    tile[:] = (rng.permutation(q * b).reshape(q, b) - q * b // 2) / np.float32(64)
    if order != "random":
        # Down the rows and along the columns: the worst order for a threshold that rises as scores are seen.
        values = np.sort(tile.ravel())[:: 1 if order == "ascending" else -1]
        tile[:] = values.reshape(b, q).T
    before = [started(rng, n, capacity, best=q * b // 2) for n in (q, b)]
    on_device = [CandidateLists(*(xp.asarray(array.copy()) for array in lists)) for lists in before]
    arguments = (xp.asarray(buffer)[:, :b], on_device[0], 100, on_device[1], 2000)
    scan_tile(*arguments)
    compact_tile(*arguments, num_best)
    offered = twins.offered(tile, before[0].threshold, 100, before[1].threshold, 2000)
    for side in range(2):
        check(before[side], on_device[side], offered[side], num_best)
        if capacity > num_best:  # else no place is left for scores within the margin, and lists may stay overflowed
            assert not to_host(on_device[side].overflowed).any()


def test_a_row_is_not_offered_itself_again(xp):
    n = 96
    tile = np.arange(n * n, dtype=np.float32).reshape(n, n)
    lists = empty_lists(xp, xp.zeros(n, dtype=xp.float32), 8)
    arguments = (xp.asarray(tile), lists, 50, None, 50)
    scan_tile(*arguments)
    compact_tile(*arguments, 8)
    ids = to_host(lists.ids)
    for r in range(n):
        assert sorted(ids[r].tolist()) == [50 + c for c in range(n) if c != r][-8:]


def test_ties_that_do_not_fit_stay_overflowed(xp):
    tile = np.zeros((5, 64), dtype=np.float32)
    tile[:, :3] = 1
    tile[4, 20:] = -1
    lists = empty_lists(xp, xp.zeros(5, dtype=xp.float32), 24)
    arguments = (xp.asarray(tile), lists, 100, None, 500)
    scan_tile(*arguments)
    compact_tile(*arguments, 6)
    assert to_host(lists.overflowed).tolist() == [True, True, True, True, False]
    assert to_host(lists.threshold).tolist() == [0.0] * 5
    assert sorted(to_host(lists.ids)[4, :20].tolist()) == list(range(500, 520))


def test_trigger_leaves_short_lists_alone(xp):
    tile = np.arange(40, dtype=np.float32).reshape(1, 40)
    lists = empty_lists(xp, xp.zeros(1, dtype=xp.float32), 64)
    arguments = (xp.asarray(tile), lists, 100, None, 500)
    scan_tile(*arguments)
    compact_tile(*arguments, 5, trigger=41)
    assert to_host(lists.used)[0] == 40
    compact_tile(*arguments, 5, trigger=40)
    assert to_host(lists.used)[0] == 5


@pytest.mark.parametrize("seeded", [True, False])
def test_numbers_on_the_device_choose_the_panel(xp, seeded):
    """Seed, scan and compact with `panel` do to some of the lists what they do to those lists alone."""
    rng = np.random.default_rng(7)
    q, b, capacity, skipped = 37, 150, 24, 60
    tile = xp.asarray(rng.permutation(q * 152).reshape(q, 152).astype(np.float32) / 64)[:, :b]
    lists = started(rng, 3 * q, capacity, best=60)
    lists.threshold[:] = rng.integers(-9, 9, 3 * q)
    lists.threshold[:skipped] = 1e9
    whole, alone = ([xp.asarray(array.copy()) for array in lists] for _ in range(2))
    whole, alone = CandidateLists(*whole), part_of(CandidateLists(*alone), (skipped, skipped + q))
    # Rows are among the columns: each must leave itself out, in the scan and when it is offered again.
    panel = xp.asarray(np.array([1000, skipped], dtype=np.int32))
    for given, first_row, numbers in ((whole, 20, panel), (alone, 1020, None)):
        if seeded:  # else every list is flooded
            seed_thresholds(tile, given, True, 10, first_row, 1000, numbers)
        scan_tile(tile, given, first_row, None, 1000, numbers)
        compact_tile(tile, given, first_row, None, 1000, 10, 12, numbers)
    used = to_host(alone.used)
    assert (used != lists.used[skipped : skipped + q]).all()
    part = slice(skipped, skipped + q)
    for name in ("threshold", "used", "overflowed"):
        np.testing.assert_array_equal(to_host(getattr(whole, name))[part], to_host(getattr(alone, name)))
    for name in ("ids", "scores"):
        found, expected = to_host(getattr(whole, name))[part], to_host(getattr(alone, name))
        for i in range(q):  # in any order
            np.testing.assert_array_equal(np.sort(found[i, : used[i]]), np.sort(expected[i, : used[i]]))
    for found, before in zip(whole, lists, strict=True):
        np.testing.assert_array_equal(np.delete(to_host(found), part, 0), np.delete(before, part, 0))
