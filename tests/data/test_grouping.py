"""Groups of similar length: an order and sizes that pad as little as any cut could, for few groups."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sampling.grouping import ON_CPU, divide, group_by_length, grouping_for


def groups_of(lengths: list[int], partial: list[bool]) -> list[list[int]]:
    """The groups as lists of indices."""
    order, sizes = group_by_length(np.array(lengths, dtype=np.int64), np.array(partial, dtype=bool))
    assert order.dtype == sizes.dtype == np.int64
    assert (sizes >= 1).all()
    assert int(sizes.sum()) == len(order) == len(lengths)
    ends = np.cumsum(sizes).tolist()
    return [order[end - size : end].tolist() for end, size in zip(ends, sizes.tolist(), strict=True)]


def cheapest(lengths: list[int], price: float) -> float:
    """The least padded positions plus price per group over all cuts of the lengths in ascending order."""
    ordered, count = sorted(lengths), len(lengths)
    costs = []
    for number in range(count):
        for inner in combinations(range(1, count), number):
            cuts = [0, *inner, count]
            groups = [ordered[begin:end] for begin, end in pairwise(cuts)]
            costs.append(sum(max(group) * len(group) for group in groups) + price * len(groups))
    return min(costs, default=0)


sequences = st.lists(st.tuples(st.one_of(st.integers(1, 60), st.integers(900, 1500)), st.booleans()), max_size=9)


@settings(max_examples=150, deadline=None)
@given(sequences)
def test_groups_are_the_cheapest_cuts_of_whole_and_of_partial_sequences(drawn: list[tuple[int, bool]]) -> None:
    lengths, partial = [length for length, _ in drawn], [is_partial for _, is_partial in drawn]
    groups = groups_of(lengths, partial)
    members = [member for group in groups for member in group]
    assert sorted(members) == list(range(len(lengths)))
    assert members == sorted(members, key=lambda s: (partial[s], lengths[s], s)), "whole first, ascending, stable"
    price = max(ON_CPU.floor, ON_CPU.share * sum(lengths))
    cost = sum(max(lengths[s] for s in group) * len(group) + price for group in groups)
    parts = [[length for length, is_partial in drawn if is_partial == kind] for kind in (False, True)]
    assert cost == pytest.approx(sum(cheapest(part, price) for part in parts), rel=1e-9)
    for group in groups:
        assert len({partial[s] for s in group}) == 1, "whole and partial sequences in one group"


def test_far_lengths_part_and_near_ones_stay() -> None:
    assert groups_of([50, 3, 50, 4, 3], [False] * 5) == [[1, 4, 3], [0, 2]]
    assert groups_of([50, 3, 50, 4, 3], [False, True, True, False, False]) == [[4, 3], [0], [1], [2]]
    assert groups_of([8, 7, 6, 5], [False] * 4) == [[3, 2, 1, 0]]
    assert groups_of([], []) == []
    assert groups_of([9], [True]) == [[0]]


@pytest.mark.parametrize("mix", ["geometric to 50", "50 to 124", "windows of 50"])
def test_next_to_no_padding_in_realistic_batches(mix: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        geometric = np.minimum(rng.geometric(0.12, 250), 50)
        lengths = np.sort(rng.integers(50, 125, 250)) if mix == "50 to 124" else geometric
        partial = (rng.random(250) < 0.5) & (lengths == 50) if mix == "windows of 50" else np.zeros(250, dtype=bool)
        groups = groups_of(lengths.tolist(), partial.tolist())
        padded = sum(int(lengths[group].max()) * len(group) for group in groups)
        assert 1 - lengths.sum() / padded < 0.15
        assert len(groups) <= 16, "another group is dozens of small operations more"


@pytest.mark.parametrize("longest", [1, 5, 8, 50, 64, 200, 201, 1000])
def test_on_a_gpu_groups_have_at_most_eight_lengths(longest: int) -> None:
    lengths = np.arange(1, longest + 1)
    padded = grouping_for("cuda", longest).padded(lengths)
    assert (padded >= lengths).all()
    assert len(set(padded.tolist())) <= 8
    assert set(padded[padded % 8 != 0].tolist()) <= {longest}
    assert padded[-1] == longest, "positions are learned up to the longest input"
    assert grouping_for("cpu", longest) is ON_CPU


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=30), st.booleans())
def test_on_a_gpu_every_requested_state_is_computed(drawn: list[tuple[int, int]], masked: bool) -> None:
    lengths = np.array([length for length, _ in drawn], dtype=np.int64)
    states = np.array([min(pair) for pair in drawn], dtype=np.int64)
    found = divide(lengths, states, masked, grouping_for("cuda", 200))
    assert sorted(found.order.tolist()) == list(range(len(lengths)))
    for members, length, count in zip(
        np.split(found.order, np.cumsum(found.sizes)[:-1]), found.lengths, found.states, strict=True
    ):
        assert lengths[members].max(initial=0) <= length <= 200
        assert states[members].max(initial=0) <= count <= length
        most = int(states[members].max())
        assert count == length or count < most + 32
        assert count == length or 2 * most <= length, "all states are computed if more than half of them are needed"
        if (states[members] == 1).all():
            assert count == 1, "prefix rows"


def test_on_a_gpu_there_are_few_groups() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.6, 1.0, 75).astype(np.int64), 1, 200)
    states = np.where(lengths == 200, 100, lengths)
    found = divide(lengths, states, False, grouping_for("cuda", 200))
    assert len(found.sizes) <= 2
    assert found.lengths.tolist() == found.states.tolist()
    assert len(divide(lengths, states, False, ON_CPU).sizes) > 5
