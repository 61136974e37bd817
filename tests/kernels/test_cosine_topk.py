"""Exact neighbours: ids, ties and scores equal the double loop, whatever the tiling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from configs.errors import InputError
from kernels import reference
from kernels.cosine_topk import (
    TopK,
    block_candidates,
    exact_neighbors,
    normalize_rows,
    rounding_bound,
    square_norms,
)


def whole_numbers(num_items: int, width: int, seed: int, largest: int = 3) -> np.ndarray:
    """Rows with duplicates, multiples of one another, and zero rows."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-largest, largest + 1, (num_items, width)).astype(np.float32)
    if num_items > 10:
        features[num_items // 2 : num_items // 2 + 4] = 3 * features[:4]
        features[-3:] = features[1]
        features[5::17] = 0
    return features


def in_blocks(features: np.ndarray, num_neighbors: int, include_self: bool, block_rows: int, shards: int, extra: int):
    edges = np.linspace(0, len(features), shards + 1).astype(int)
    squares = square_norms(features)
    parts = [
        exact_neighbors(features, squares, slice(a, b), num_neighbors, include_self, block_rows, extra=extra)
        for a, b in itertools.pairwise(edges)
        if b > a
    ]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize(
    ("num_items", "width", "num_neighbors"), [(1, 4, 3), (5, 3, 9), (63, 2, 5), (63, 8, 1), (150, 5, 7)]
)
def test_equals_double_loop_for_any_tiling(num_items: int, width: int, num_neighbors: int, include_self: bool) -> None:
    features = whole_numbers(num_items, width, seed=num_items)
    ids, cosines = reference.cosine_topk(features, num_neighbors, include_self)
    for block_rows, shards, extra in [(1, 1, 32), (7, 3, 0), (64, 2, 2), (1000, 1, 32)]:
        found_ids, found_scores, _ = in_blocks(features, num_neighbors, include_self, block_rows, shards, extra)
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_array_equal(found_scores, cosines.astype(np.float32))


def test_equals_vectorised_rule_at_a_thousand_items() -> None:
    features = whole_numbers(1000, 16, seed=3)
    wide = features.astype(np.float64)
    squares = (wide * wide).sum(axis=1)
    dots = wide @ wide.T  # whole numbers: exact in any order
    keys = np.where(squares > 0, dots * np.abs(dots) / np.maximum(squares, 1), -np.inf)
    np.fill_diagonal(keys, -np.inf)
    expected = np.argsort(-keys, axis=1, kind="stable")[:, :10]
    expected[squares == 0] = -1
    expected[squares == 0, 0] = np.flatnonzero(squares == 0)
    for block_rows, shards in [(37, 7), (128, 1), (2048, 2)]:
        ids, _, certified = in_blocks(features, 10, False, block_rows, shards, 32)
        np.testing.assert_array_equal(ids, expected)
        assert certified.mean() > 0.5


def test_bytes_do_not_depend_on_tiling_for_any_floats() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 33)).astype(np.float32)
    features[100:130] = features[:30] * (1 + 1e-7 * rng.standard_normal((30, 33)))  # within float32's rounding
    results = [
        in_blocks(features, 6, True, block, shards, extra) for block, shards, extra in [(300, 1, 32), (11, 4, 0)]
    ]
    for one, other in zip(*[result[:2] for result in results], strict=True):
        assert one.tobytes() == other.tobytes()
    # Few spare candidates leave rows without a proof; the answer is the same.
    assert results[0][2].all()
    assert not results[1][2].all()


def test_mathematical_ties_tie_across_norms() -> None:
    # cos = 1/sqrt(2) for all: dot / norm differs in the last bit between (1, 1) and (3, 3).
    features = np.array([[1, 0], [7, 7], [3, 3], [1, 1], [5, 5]], dtype=np.float32)
    ids, _, _ = in_blocks(features, 4, False, 2, 1, 32)
    assert ids[0].tolist() == [1, 2, 3, 4]


def test_item_is_one_of_its_own_even_among_copies() -> None:
    features = np.ones((50, 3), dtype=np.float32)
    ids, scores, certified = in_blocks(features, 4, True, 8, 3, 2)
    assert (ids == np.arange(50)[:, None]).any(axis=1).all()
    assert ids[49].tolist() == [0, 1, 2, 49]
    assert (scores == 1).all()
    assert not certified.any()


def test_missing_items_are_no_neighbours_and_have_none() -> None:
    features = np.array([[1, 0], [0, 0], [-1, 0], [1, 1]], dtype=np.float32)
    squares = square_norms(features)
    squares[3] = 0  # missing by decree: injection may have filled its row
    ids, scores, _ = exact_neighbors(features, squares, slice(0, 4), 3, True, 2)
    assert ids.tolist() == [[0, 2, -1], [1, -1, -1], [2, 0, -1], [3, -1, -1]]
    np.testing.assert_array_equal(scores, [[1, -1, 0], [0, 0, 0], [1, -1, 0], [0, 0, 0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_refused(bad: float) -> None:
    features = np.ones((4, 2), dtype=np.float32)
    features[2, 1] = bad
    with pytest.raises(InputError, match="row 2: holds NaN or infinity"):
        normalize_rows(features)


@pytest.mark.parametrize("width", [1, 64, 1000])
def test_rounding_stays_under_the_bound(width: int) -> None:
    rng = np.random.default_rng(width)
    features = np.exp(3 * rng.standard_normal((40, width))).astype(np.float32)
    wide = features.astype(np.float64)
    exact = (wide @ wide.T) / np.sqrt((wide * wide).sum(axis=1)[:, None] * (wide * wide).sum(axis=1))
    units = normalize_rows(features)
    error = np.abs((units @ units.T).astype(np.float64) - exact).max()
    assert error < rounding_bound(width)


def test_normalize_keeps_zero_rows() -> None:
    units = normalize_rows(np.array([[0, 0], [3, 4]], dtype=np.float16))
    np.testing.assert_array_equal(units, np.array([[0, 0], [0.6, 0.8]], dtype=np.float32))


def test_block_candidates_leave_out_self_and_missing() -> None:
    units = normalize_rows(np.array([[1, 0], [1, 1], [0, 1]], dtype=np.float32))
    ids, scores = block_candidates(units[:1], units, 7, 7, np.array([True, True, False]), 3)
    assert sorted(ids[0].tolist()) == [-1, -1, 8]
    assert np.isneginf(scores[0][ids[0] < 0]).all()


def test_merge_order_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (3, 40)).astype(np.float64)
    ids = np.stack([rng.permutation(40) for _ in range(3)])
    found = []
    for order in (range(0, 40, 5), reversed(range(0, 40, 5))):
        best = TopK(3, 6, np.float64)
        for first in order:
            best.merge(ids[:, first : first + 5], scores[:, first : first + 5])
        found.append((best.ids, best.scores))
    for row in range(3):
        expected = sorted(zip(-scores[row], ids[row], strict=True))[:6]
        assert found[0][0][row].tolist() == [i for _, i in expected]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
