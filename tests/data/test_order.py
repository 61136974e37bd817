"""The order of training: every span once per epoch, the same global batches in every world, shared out evenly."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sampling.order import balanced_share, global_batch, shuffled, steps_per_epoch

sizes = st.one_of(st.sampled_from([1, 2, 3, 4, 5, 63, 64, 65, 1000]), st.integers(1, 3000))
seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=100, deadline=None)
@given(sizes, seeds, st.integers(0, 1000))
def test_an_epoch_is_a_bijection(size: int, seed: int, epoch: int) -> None:
    order = shuffled(np.arange(size), size, seed, epoch)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(size))


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 700), seeds)
def test_batches_follow_one_another_and_end_with_the_epoch(size: int, batch: int, seed: int) -> None:
    steps = steps_per_epoch(size, batch)
    slots = [global_batch(step, size, batch) for step in range(steps)]
    assert np.array_equal(np.concatenate(slots), np.arange(size))
    assert {len(part) for part in slots[:-1]} <= {batch}
    assert all(part.dtype == np.int64 for part in slots)
    whole = shuffled(np.arange(size), size, seed, 0)
    for part in (slots[0], slots[steps // 2], slots[-1]):
        assert np.array_equal(whole[part], shuffled(part, size, seed, 0))
    for outside in (-1, steps):
        with pytest.raises(AssertionError):
            global_batch(outside, size, batch)


costs = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 1000)), max_size=150)


@settings(max_examples=150, deadline=None)
@given(costs, st.one_of(st.integers(1, 6), st.integers(1, 64)))
def test_ranks_share_a_batch_out_evenly(parts: list[int], world: int) -> None:
    given_costs = np.array(parts, dtype=np.int64)
    shares = [balanced_share(given_costs, rank, world) for rank in range(world)]
    assert given_costs.tolist() == parts
    assert all(np.array_equal(share, balanced_share(given_costs, rank, world)) for rank, share in enumerate(shares))
    assert all((np.diff(share) > 0).all() and share.dtype == np.int64 for share in shares)
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(len(parts)))
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    totals = [int(given_costs[share].sum()) for share in shares]
    assert max(totals) - min(totals) <= max(parts, default=0)


def test_parts_are_dealt_forth_and_back() -> None:
    shares = [balanced_share(np.array([1, 9, 5, 8, 7, 3]), rank, 2).tolist() for rank in range(2)]
    assert shares == [[1, 2, 5], [0, 3, 4]]  # costs 9 5 3 and 1 8 7: dealt 9 | 8 7 | 5 3 | 1
    assert [balanced_share(np.full(7, 4), rank, 3).tolist() for rank in range(3)] == [[0, 5, 6], [1, 4], [2, 3]]
    # Ties go by index, whatever sort a rank's machine would prefer.
    shares = [balanced_share(1 + np.arange(60) % 2, rank, 30).tolist() for rank in range(30)]
    assert shares == [sorted([2 * rank + 1, 58 - 2 * rank]) for rank in range(30)]
    for rank, world in ((2, 2), (-1, 2)):
        with pytest.raises(AssertionError):
            balanced_share(np.ones(3), rank, world)


@pytest.mark.parametrize("size", [1, 63, 1000])
@pytest.mark.parametrize("world", [1, 3, 64])
def test_a_whole_epoch_trains_each_span_once(size: int, world: int) -> None:
    trained = []
    for step in range(steps_per_epoch(size, 48)):
        spans = shuffled(global_batch(step, size, 48), size, 7, 2)
        trained += [spans[balanced_share(1 + spans % 50, rank, world)] for rank in range(world)]
    assert np.array_equal(np.sort(np.concatenate(trained)), np.arange(size))


@pytest.mark.parametrize(("size", "batch", "steps"), [(1, 512, 1), (512, 512, 1), (513, 512, 2), (0, 512, 0)])
def test_steps_round_up(size: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(size, batch) == steps


def test_a_smaller_call_sees_the_same_order() -> None:
    whole = shuffled(np.arange(1000), 1000, 3, 4)
    assert np.array_equal(shuffled(np.array([[999, 0], [5, 5]]), 1000, 3, 4), whole[[[999, 0], [5, 5]]])
    assert shuffled(np.empty(0, dtype=np.int64), 1000, 3, 4).shape == (0,)


def test_seed_and_epoch_both_change_the_order() -> None:
    orders = {tuple(shuffled(np.arange(100), 100, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25  # in particular (seed 1, epoch 2) is not (seed 2, epoch 1)


@pytest.mark.parametrize("size", [2**31 + 1, 10**12 + 39, 2**62])
def test_huge_sizes_stay_in_range_and_apart(size: int) -> None:
    slots = np.unique(np.concatenate([np.arange(5000), size - 1 - np.arange(5000), np.arange(5000) * (size // 5001)]))
    order = shuffled(slots, size, 11, 0)
    assert order.min() >= 0
    assert order.max() < size
    assert len(np.unique(order)) == len(slots)
    assert abs(order.astype(float).mean() / size - 0.5) < 0.02


# Upper 0.1% points of chi-square; the seeds are fixed, so these tests do not flicker.
@pytest.mark.parametrize(("size", "limit"), [(3, 13.8), (5, 18.5), (10, 27.9), (63, 103.4)])
def test_the_first_slot_is_uniform_over_seeds(size: int, limit: float) -> None:
    seen = np.bincount([shuffled(np.zeros(1, np.int64), size, seed, 0)[0] for seed in range(3000)], minlength=size)
    expected = 3000 / size
    assert ((seen - expected) ** 2 / expected).sum() < limit


def test_all_orders_of_four_are_equally_likely() -> None:
    seen = Counter(tuple(shuffled(np.arange(4), 4, 0, epoch).tolist()) for epoch in range(4800))
    assert sum((seen[order] - 200) ** 2 / 200 for order in permutations(range(4))) < 49.7


def test_neighbouring_slots_are_unrelated() -> None:
    size = 100_003
    order = shuffled(np.arange(size), size, 5, 1).astype(float)
    again = shuffled(np.arange(size), size, 5, 2).astype(float)
    for other in (np.arange(size), np.roll(order, 1), np.roll(order, 2), again):
        assert abs(np.corrcoef(order, other)[0, 1]) < 0.015  # about 5 standard deviations of a random order
