"""Pair counting equals the double loop, and leaves no trace of how it was split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import reference
from kernels.pair_counts import add_counts, count_pairs, keys_fit, pair_weights

NUM_ITEMS = 9


def flat(sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, sequences)])
    return np.array([item for sequence in sequences for item in sequence], dtype=np.int64), offsets


def dense(keys: np.ndarray, counts: np.ndarray, max_gap: int, distance_weighting: bool) -> np.ndarray:
    rows, columns, weights = pair_weights(keys, counts, NUM_ITEMS, max_gap, distance_weighting)
    assert weights.dtype == np.float32
    assert (np.diff(rows * NUM_ITEMS + columns) > 0).all()
    matrix = np.zeros((NUM_ITEMS, NUM_ITEMS), dtype=np.float32)
    matrix[rows, columns] = weights
    return matrix


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=12), max_size=8),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.sampled_from([1, 10, 1 << 20]),
)
def test_equals_double_loop(
    sequences: list[list[int]], window: int | None, distance_weighting: bool, max_pending: int
) -> None:
    max_gap = window or max([len(s) for s in sequences] + [1])
    keys, counts = count_pairs(*flat(sequences), NUM_ITEMS, max_gap, max_pending=max_pending)
    matrix = dense(keys, counts, max_gap, distance_weighting)
    expected = reference.cooccurrence(sequences, NUM_ITEMS, window, distance_weighting)
    np.testing.assert_array_equal(matrix, expected.astype(np.float32))
    np.testing.assert_array_equal(matrix, matrix.T)
    assert not matrix.diagonal().any()


@pytest.mark.parametrize("shards", [2, 7])
def test_shards_add_up_to_the_same_bytes(shards: int) -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, NUM_ITEMS, rng.integers(0, 15)).tolist() for _ in range(40)]
    whole = count_pairs(*flat(sequences), NUM_ITEMS, 14)
    parts = [count_pairs(*flat(sequences[shard::shards]), NUM_ITEMS, 14) for shard in range(shards)]
    for one, other in zip(whole, add_counts(parts), strict=True):
        assert one.dtype == other.dtype == np.int64
        assert one.tobytes() == other.tobytes()


def test_no_sequences() -> None:
    keys, counts = count_pairs(*flat([]), NUM_ITEMS, 1)
    assert len(keys) == len(counts) == 0
    assert not dense(*add_counts([(keys, counts)] * 2), 1, True).any()


def test_keys_stop_fitting_at_63_bits() -> None:
    assert keys_fit(2**31, 1)
    assert not keys_fit(2**31, 2)
