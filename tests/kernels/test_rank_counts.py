"""The fused scans of a tile of scores against plain Python over pairs. Whole numbers, so that ties are real."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.ranking.rank_counts import count_tile, offer_tile

FIRST = 1000  # id of the first item of a tile


def no_groups(users, items):
    """Return the labels of a tile's items and of the targets if there is no grouping."""
    return np.zeros((0, items), dtype=np.int32), np.zeros((users, 0), dtype=np.int32)


def a_tile(users: int, items: int, levels: int = 4, seed: int = 0):
    rng = np.random.default_rng([seed, users, items])
    scores = rng.integers(-levels, levels + 1, (users, items)).astype(np.float32)
    targets = FIRST + rng.integers(-items, 2 * items, users)  # before the tile, in it, after it
    target_scores = rng.integers(-levels, levels + 1, users).astype(np.float32)
    inside = np.flatnonzero((targets >= FIRST) & (targets < FIRST + items))
    # Pairs that gain lie around the tile too. A third is hidden, but for targets.
    pairs = {(FIRST + int(i), int(u)) for i, u in rng.integers((-5, 0), (items + 5, users), (40, 2))}
    pairs |= {(int(targets[u]), u) for u in range(0, users, 2)}
    gain_items, gain_users = np.array(sorted(pairs), dtype=np.int64).T.copy()
    gains = rng.integers(-levels, levels + 1, len(pairs)).astype(np.float32)
    gains[(rng.random(len(pairs)) < 1 / 3) & (gain_items != targets[gain_users])] = -np.inf
    target_scores[inside] = with_gains(scores, gain_items, gain_users, gains)[inside, targets[inside] - FIRST]
    return scores, targets, target_scores, (gain_items, gain_users, gains)


def zeros():
    return np.zeros((3, 1, 3), dtype=np.int64)


def with_gains(scores, items, users, gains):
    gained = scores.copy()
    for item, user, gain in zip(items, users, gains, strict=True):
        if 0 <= item - FIRST < scores.shape[1]:
            gained[user, item - FIRST] += gain
    return gained


def slow_counts(scores, targets, target_scores, labels, own_labels):
    counts = np.zeros((len(scores), 1 + len(labels), 3), dtype=np.int64)
    for u, row in enumerate(scores):
        for c, score in enumerate(row):
            if FIRST + c != targets[u]:
                higher, tied = score > target_scores[u], score == target_scores[u]
                found = [higher, tied, tied and FIRST + c < targets[u]]
                counts[u, 0] += found
                for g, own in enumerate(own_labels[u]):
                    counts[u, 1 + g] += np.array(found) * (labels[g, c] == own)
    return counts


@pytest.mark.parametrize(("users", "items"), [(1, 1), (3, 63), (5, 100), (4, 1000)])
def test_counts_equal_counting_pair_by_pair(users, items):
    groups = no_groups(users, items)
    scores, targets, target_scores, gains = a_tile(users, items)
    expected = slow_counts(with_gains(scores, *gains), targets, target_scores, *groups)
    counts = np.full((users, 1, 3), 7, dtype=np.int64)
    assert count_tile(scores, FIRST, target_scores, targets, *gains, *groups, counts)
    np.testing.assert_array_equal(counts - 7, expected)


@pytest.mark.parametrize(("users", "items"), [(1, 1), (3, 63), (5, 100), (4, 1000)])
def test_counts_within_groups_equal_counting_pair_by_pair(users, items):
    """Four groupings: random, all items alike, contiguous groups, and a group that no target of the tile is in."""
    rng = np.random.default_rng(items)
    groupings = rng.integers(0, 3, items), np.ones(items), np.arange(items) // 40, np.full(items, 9)
    labels = np.stack(groupings).astype(np.int32)
    scores, targets, target_scores, gains = a_tile(users, items)
    own_labels = rng.integers(0, 2, (users, len(labels))).astype(np.int32)
    for u in np.flatnonzero((targets >= FIRST) & (targets < FIRST + items)):
        own_labels[u] = labels[:, targets[u] - FIRST]
    expected = slow_counts(with_gains(scores, *gains), targets, target_scores, labels, own_labels)
    counts = np.full((users, 1 + len(labels), 3), 7, dtype=np.int64)
    assert count_tile(scores, FIRST, target_scores, targets, *gains, labels, own_labels, counts)
    np.testing.assert_array_equal(counts - 7, expected)
    assert items < 100 or (expected[:, :4].sum(0) > 0).all(), "there is something to count"


@pytest.mark.parametrize("best", [1, 2, 7, 300])
def test_lists_equal_sorting_everything(best):
    kept_scores = np.full((6, best), -np.inf, dtype=np.float32)
    kept_items = np.full((6, best), -1, dtype=np.int64)
    scores, _, _, gains = a_tile(6, 150)
    whole = with_gains(scores, *gains)
    for first in range(0, 150, 60):
        tile = np.ascontiguousarray(scores[:, first : first + 60])
        assert offer_tile(tile, FIRST + first, *gains, kept_scores, kept_items)
    for u in range(6):
        shown = [FIRST + c for c in range(150) if whole[u, c] > -np.inf]
        expected = sorted(shown, key=lambda i, u=u: (-whole[u, i - FIRST], i))[:best]
        held = kept_items[u] >= 0
        assert sorted(kept_items[u, held].tolist()) == sorted(expected)
        np.testing.assert_array_equal(kept_scores[u, held], whole[u, kept_items[u, held] - FIRST])
        assert kept_scores[u].min() == kept_scores[u, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 17, 99])
def test_a_score_that_is_no_number_is_noticed_even_if_hidden(value, column):
    scores, targets, target_scores, gains = a_tile(3, 100)
    scores[1, column] = value
    own = np.array([FIRST + column]), np.array([1])
    for pairs in [gains, *((*own, np.array([gain], dtype=np.float32)) for gain in (-np.inf, 2))]:
        assert not count_tile(scores.copy(), FIRST, target_scores, targets, *pairs, *no_groups(3, 100), zeros())
        best = np.full((3, 4), -np.inf, dtype=np.float32), np.full((3, 4), -1, dtype=np.int64)
        assert not offer_tile(scores.copy(), FIRST, *pairs, *best)


@pytest.mark.parametrize("gain", [np.nan, np.inf])
def test_a_gain_that_is_no_number_is_noticed(gain):
    scores, targets, target_scores, _ = a_tile(3, 100)
    pairs = np.array([FIRST + 17]), np.array([1]), np.array([gain], dtype=np.float32)
    assert not count_tile(scores, FIRST, target_scores, targets, *pairs, *no_groups(3, 100), zeros())
