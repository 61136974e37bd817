"""Groups of similar length: an order and sizes that pad as little as any cut could, for few groups."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sampling import grouping
from data.sampling.grouping import group_by_length


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
    price = max(grouping._GROUP_FLOOR, grouping._GROUP_SHARE * sum(lengths))
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
