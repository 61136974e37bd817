"""The fused scans of a tile of scores against plain Python over pairs. Whole numbers, so that ties are real."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.rank_counts import count_tile, offer_tile

FIRST = 1000  # id of the first item of a tile


def a_tile(users: int, items: int, levels: int = 4, seed: int = 0):
    rng = np.random.default_rng([seed, users, items])
    scores = rng.integers(-levels, levels + 1, (users, items)).astype(np.float32)
    targets = FIRST + rng.integers(-items, 2 * items, users)  # before the tile, in it, after it
    lines = rng.integers(-levels, levels + 1, users).astype(np.float32)
    inside = np.flatnonzero((targets >= FIRST) & (targets < FIRST + items))
    lines[inside] = scores[inside, targets[inside] - FIRST]
    # Hidden pairs lie around the tile too, and are never a target.
    pairs = {(int(i), int(u)) for i, u in zip(rng.integers(-5, items + 5, 40), rng.integers(0, users, 40), strict=True)}
    pairs = sorted((FIRST + i, u) for i, u in pairs if FIRST + i != targets[u])
    hidden = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return scores, targets, lines, hidden[:, 0].copy(), hidden[:, 1].copy()


def slow_counts(scores, targets, lines, hidden_items, hidden_users):
    hidden = set(zip(hidden_users.tolist(), (hidden_items - FIRST).tolist(), strict=True))
    counts = np.zeros((len(scores), 3), dtype=np.int64)
    for u, row in enumerate(scores):
        for c, score in enumerate(row):
            if (u, c) not in hidden and FIRST + c != targets[u]:
                counts[u] += [score > lines[u], score == lines[u], score == lines[u] and FIRST + c < targets[u]]
    return counts


@pytest.mark.parametrize(("users", "items"), [(1, 1), (3, 63), (5, 100), (4, 1000)])
def test_counts_equal_counting_pair_by_pair(users, items):
    scores, targets, lines, hidden_items, hidden_users = a_tile(users, items)
    expected = slow_counts(scores, targets, lines, hidden_items, hidden_users)
    counts = np.full((users, 3), 7, dtype=np.int64)
    assert count_tile(scores, FIRST, lines, targets, hidden_items, hidden_users, counts)
    np.testing.assert_array_equal(counts - 7, expected)


@pytest.mark.parametrize("best", [1, 2, 7, 300])
def test_lists_equal_sorting_everything(best):
    kept_scores = np.full((6, best), -np.inf, dtype=np.float32)
    kept_items = np.full((6, best), -1, dtype=np.int64)
    scores, _, _, hidden_items, hidden_users = a_tile(6, 150)
    whole = scores.copy()
    for first in range(0, 150, 60):
        tile = np.ascontiguousarray(scores[:, first : first + 60])
        assert offer_tile(tile, FIRST + first, hidden_items, hidden_users, kept_scores, kept_items)
    for u in range(6):
        hidden = set(hidden_items[hidden_users == u].tolist())
        shown = [FIRST + c for c in range(150) if FIRST + c not in hidden]
        expected = sorted(shown, key=lambda i, u=u: (-whole[u, i - FIRST], i))[:best]
        held = kept_items[u] >= 0
        assert sorted(kept_items[u, held].tolist()) == sorted(expected)
        np.testing.assert_array_equal(kept_scores[u, held], whole[u, kept_items[u, held] - FIRST])
        assert kept_scores[u].min() == kept_scores[u, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 17, 99])
def test_a_score_that_is_no_number_is_noticed_even_if_hidden(value, column):
    scores, targets, lines, hidden_items, hidden_users = a_tile(3, 100)
    scores[1, column] = value
    pairs = [(hidden_items, hidden_users), (np.array([FIRST + column]), np.array([1]))]
    for items, users in pairs:
        assert not count_tile(scores.copy(), FIRST, lines, targets, items, users, np.zeros((3, 3), dtype=np.int64))
        best = np.full((3, 4), -np.inf, dtype=np.float32), np.full((3, 4), -1, dtype=np.int64)
        assert not offer_tile(scores.copy(), FIRST, items, users, *best)
