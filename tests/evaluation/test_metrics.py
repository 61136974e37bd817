"""Metrics against their definitions, written out per target."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics import (
    bootstrap_intervals,
    bucket_masks,
    chance_metrics,
    ranking_metrics,
    ranks_from_counts,
    sliced_metrics,
)
from evaluation.metrics_table import metrics_table, slice_rows


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.sampled_from([(1,), (10, 20, 50), (5, 3)]))
def test_metrics_equal_their_definition(ranks, ks):
    found = ranking_metrics(np.array(ranks), ks)
    for k in ks:
        assert found[f"recall@{k}"] == pytest.approx(sum(r <= k for r in ranks) / len(ranks), abs=1e-12)
        dcg = sum(1 / np.log2(r + 1) for r in ranks if r <= k)
        assert found[f"ndcg@{k}"] == pytest.approx(dcg / len(ranks), abs=1e-12)


def test_rank_k_counts_as_a_hit_and_k_plus_one_does_not():
    assert ranking_metrics(np.array([10]), (10,))["recall@10"] == 1.0
    assert ranking_metrics(np.array([11]), (10,))["recall@10"] == 0.0


@pytest.mark.parametrize("num_items", [1, 3, 10, 11, 500])
def test_chance_is_the_mean_over_all_ranks_that_a_target_can_have(num_items):
    found = chance_metrics(num_items, (2, 10))
    assert found == pytest.approx(ranking_metrics(np.arange(1, num_items + 1), (2, 10)))
    assert found["recall@10"] == pytest.approx(min(1, 10 / num_items))


def test_a_slice_within_a_group_is_followed_by_chance():
    within = {"targets": 1234, "candidates": 50, "recall@10": 0.25, "chance": {"recall@10": 0.2}}
    rows = slice_rows(
        "test", {"target cold": {"targets": 1234, "recall@10": 0.0}, "target cold, among cold items": within}
    )
    assert list(rows) == [
        "test, target cold (1,234 targets)",
        "test, target cold, among cold items (1,234 targets, 50 items)",
        "test, target cold, among cold items: by chance",
    ]
    assert metrics_table(rows, ("recall@10",)).splitlines()[-1].split()[-1] == "0.2000"


def test_tie_rules():
    higher, tied, before = np.array([2, 0]), np.array([3, 0]), np.array([1, 0])
    assert ranks_from_counts(higher, tied, before, "optimistic").tolist() == [3, 1]
    assert ranks_from_counts(higher, tied, before, "pessimistic").tolist() == [6, 1]
    assert ranks_from_counts(higher, tied, before, "id").tolist() == [4, 1]


def test_bootstrap_covers_the_mean_and_narrows_with_targets():
    random = np.random.default_rng(0)
    few, many = random.integers(1, 100, 200), random.integers(1, 100, 20000)
    widths = []
    for ranks in (few, many):
        low, high = bootstrap_intervals(ranks, (10,), samples=500)["recall@10"]
        assert low <= ranking_metrics(ranks, (10,))["recall@10"] <= high
        widths.append(high - low)
    # The half width of a 95% interval is 1.96 sqrt(p(1-p)/n), so 100 times the targets is a tenth of the width.
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.25)


def test_bootstrap_matches_resampling_one_by_one():
    ranks = np.random.default_rng(1).integers(1, 40, 300)
    low, high = bootstrap_intervals(ranks, (10,), samples=4000)["ndcg@10"]
    random = np.random.default_rng(2)
    plain = [ranking_metrics(random.choice(ranks, len(ranks)), (10,))["ndcg@10"] for _ in range(4000)]
    expected = np.percentile(plain, [2.5, 97.5])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.004)


def test_buckets_partition_the_targets():
    values = np.array([0, 1, 4, 5, 19, 20, 1000])
    masks = bucket_masks("popularity", values, (0, 1, 5, 20))
    assert list(masks) == ["popularity 0", "popularity 1-4", "popularity 5-19", "popularity 20+"]
    assert [int(mask.sum()) for mask in masks.values()] == [1, 2, 2, 2]
    assert (np.stack(list(masks.values())).sum(0) == 1).all()


def test_slices_leave_out_the_empty_and_weigh_to_the_whole():
    ranks = np.array([1, 5, 30, 11])
    slices = {
        "a": np.array([True, True, False, False]),
        "b": np.array([False, False, True, True]),
        "c": np.zeros(4, bool),
    }
    found = sliced_metrics(ranks, slices, (10,))
    assert set(found) == {"a", "b"}
    whole = sum(found[s]["targets"] * found[s]["recall@10"] for s in found) / 4
    assert whole == ranking_metrics(ranks, (10,))["recall@10"]


def test_no_targets_gives_no_metrics():
    assert ranking_metrics(np.zeros(0, np.int64), (10,)) == {}
    assert bootstrap_intervals(np.zeros(0, np.int64), (10,), 10) == {}
