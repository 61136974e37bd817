"""Cold items are in no view, centre or draw, whatever the graph says about them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.item_plan import ItemNeeds
from data.sampling.item_planner import ItemPlanner
from data.sampling.negatives import CandidateSampler
from data.sampling.warm_graph import WarmGraph, WarmRows
from tests.distributed.toy import MODALITIES, NUM_ITEMS, ToyGraph, toy_features

COLD = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=NUM_ITEMS - 5, unique=True)
VIEWS = ItemNeeds(views=MODALITIES, centers=MODALITIES)


def cold_mask(items: list[int]) -> np.ndarray:
    cold = np.zeros(NUM_ITEMS, bool)
    cold[items] = True
    return cold


def planner_of(cold: np.ndarray, needs: ItemNeeds) -> ItemPlanner:
    return ItemPlanner(needs=needs, num_items=NUM_ITEMS, graph=WarmGraph(ToyGraph(), cold), features=toy_features())


@settings(max_examples=20, deadline=None)
@given(COLD)
def test_the_plan_of_the_warm_items_has_no_cold_one(items: list[int]) -> None:
    cold = cold_mask(items)
    plan = planner_of(cold, VIEWS).plan(np.flatnonzero(~cold))
    assert plan.union_ids.tolist() == np.flatnonzero(~cold).tolist()
    assert plan.num_roles == len(plan.union_ids)


@settings(max_examples=20, deadline=None)
@given(COLD, st.integers(0, 2**32))
def test_views_and_centers_are_of_warm_items(items: list[int], seed: int) -> None:
    cold = cold_mask(items)
    needs = ItemNeeds(views=MODALITIES, centers=MODALITIES, center_samples=3)
    exact = planner_of(cold, VIEWS).catalogue()
    sampled = planner_of(cold, needs).plan(np.arange(NUM_ITEMS), np.random.default_rng(seed))
    for m in MODALITIES:
        neighbors, view = ToyGraph().neighbors(m), exact.views[m]
        ids = exact.union_ids[view.indices.long()].numpy()
        for item in range(NUM_ITEMS):
            own = slice(int(view.indptr[item]), int(view.indptr[item + 1]))
            warm = [other for other in neighbors[item] if other >= 0 and not cold[other]]
            assert ids[own].tolist() == (warm or [item])  # in the graph's order; without a warm one, the item itself
            np.testing.assert_allclose(view.values[own].numpy(), 1 / len(warm or [item]), rtol=1e-6)
        for plan, rows in ((exact, exact.centers[m]), (sampled, sampled.sampled_centers[m])):
            used = plan.union_ids[rows.indices[rows.values != 0].long()].numpy()
            assert not cold[used].any()
        members = (ToyGraph().clusters(m) >= 0) & ~cold
        sizes = np.bincount(ToyGraph().clusters(m)[members], minlength=4)
        assert exact.centers[m].indptr.diff().tolist() == sizes.tolist()


@settings(max_examples=20, deadline=None)
@given(COLD, st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.booleans())
def test_no_draw_is_cold_and_weights_are_those_of_a_catalogue_without_them(
    items: list[int], seed: int, share: float, in_batch: bool, hard: bool
) -> None:
    """A catalogue that never had the cold items gives the same candidates and weights, under other numbers."""
    cold = cold_mask(items)
    warm = np.flatnonzero(~cold)
    counts = np.where(cold, 0, 1 + np.arange(NUM_ITEMS) % 7)
    neighbors = WarmGraph(ToyGraph(), cold).neighbors("text")
    place = np.cumsum(~cold) - 1  # of each warm item in the smaller catalogue
    small = np.array([[place[other] if other >= 0 else -1 for other in row] for row in neighbors[warm]])
    common = {
        "num_draws": 40, "popularity_share": share, "popularity_power": 0.5, "in_batch": in_batch, "seed": seed,
        "hard_share": 0.4 * hard,
    }  # fmt: skip
    sampler = CandidateSampler(counts=counts, neighbors=[neighbors] if hard else (), warm=warm, **common)  # type: ignore[arg-type]
    smaller = CandidateSampler(counts=counts[warm], neighbors=[small] if hard else (), **common)  # type: ignore[arg-type]
    targets = warm[np.random.default_rng(seed).integers(0, len(warm), 9)]
    ids, log_weights = sampler.sample(1, 2, targets)
    other_ids, other_weights = smaller.sample(1, 2, place[targets])
    assert not cold[ids].any()
    assert ids.tolist() == warm[other_ids].tolist()
    np.testing.assert_allclose(log_weights, other_weights, rtol=1e-5, atol=1e-6)


def test_rows_are_read_like_an_array() -> None:
    rows = WarmRows(np.array([[1, 0, -1], [2, 0, 1], [2, 1, -1], [0, 3, 99]]), np.array([False, False, True, True]))
    expected = [[1, 0, -1], [-1, 0, 1], [-1, 1, -1], [0, -1, 99]]  # 99 is no item: whoever reads it says so
    assert rows.shape == (4, 3)
    assert len(rows) == 4
    assert np.asarray(rows).tolist() == expected
    assert rows[1:3].tolist() == expected[1:3]
    assert rows[np.array([3, 0])].tolist() == [expected[3], expected[0]]
    assert rows[np.array([True, False, False, True])].tolist() == [expected[0], expected[3]]
    alone = WarmRows(np.array([[1, -1], [1, -1]]), np.array([False, True]))
    assert np.asarray(alone).tolist() == [[0, -1], [1, -1]]  # each has itself, because its neighbours are cold
