"""Ranking metrics, their intervals and slices, as pure functions of 1-based ranks.

A list has one relevant item, the target. Recall@K (= HitRate@K) is 1 if rank <= K, else 0. NDCG@K is 1/log2(rank + 1)
if rank <= K, else 0. Both are averaged over the n evaluated targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from configs.evaluation_options import METRICS

TieRule = Literal["pessimistic", "optimistic", "id"]


def ranks_from_counts(higher: np.ndarray, tied: np.ndarray, tied_before: np.ndarray, rule: TieRule) -> np.ndarray:
    """Return 1-based ranks, int64 [n].

    Args:
        higher: int64 [n], number of items with a higher score than the target.
        tied: int64 [n], number of other items with the target's score.
        tied_before: int64 [n], number of tied items with a smaller id than the target.
        rule: which tied items rank above the target. "pessimistic": all; "optimistic": none; "id": those with a
            smaller id, which is also the order of top-K lists.
    """
    extra = {"pessimistic": tied, "optimistic": np.zeros_like(tied), "id": tied_before}[rule]
    return 1 + higher + extra


# The value of a target by its 1-based rank (float64 [n]), if the rank is at most K. Otherwise every metric is 0.
_VALUE_OF_RANK: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall": np.ones_like,
    "ndcg": lambda ranks: 1.0 / np.log2(ranks + 1),
}


def values_by_rank(ks: Sequence[int]) -> tuple[list[str], np.ndarray]:
    """Return the names of the metrics, and the value of each rank as float64 [metrics, max(ks) + 1].

    Column r-1 has the value of rank r. The last column stands for every rank above max(ks) and is 0.
    """
    ranks = np.arange(1, max(ks) + 2, dtype=np.float64)
    names = [f"{name}@{k}" for name in METRICS for k in ks]
    return names, np.stack([np.where(ranks <= k, _VALUE_OF_RANK[name](ranks), 0.0) for name in METRICS for k in ks])


def rank_histogram(ranks: np.ndarray, max_k: int) -> np.ndarray:
    """Return the number of targets with each rank 1..max_k and, in the last entry, above max_k: int64 [max_k + 1]."""
    return np.bincount(np.minimum(ranks, max_k + 1) - 1, minlength=max_k + 1)


def ranking_metrics(ranks: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Return the metrics, such as "recall@10", of 1-based ranks int64 [n]; an empty dict if there are no targets."""
    if not len(ranks):
        return {}
    names, values = values_by_rank(ks)
    means = values @ rank_histogram(ranks, max(ks)) / len(ranks)
    return dict(zip(names, means.tolist(), strict=True))


def chance_metrics(num_items: int, ks: Sequence[int]) -> dict[str, float]:
    """Return the expected metrics of a ranking of n items in random order: recall@K is K / n, and at most 1."""
    names, values = values_by_rank(ks)
    return dict(zip(names, (values[:, :num_items].sum(1) / num_items).tolist(), strict=True))


def bootstrap_intervals(
    ranks: np.ndarray, ks: Sequence[int], samples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95% bootstrap percentile interval of each metric, resampling targets with replacement.

    Metrics depend on a target only through min(rank, max K + 1). So resampling n targets is one multinomial draw over
    the histogram of this number, and the cost is samples * max K, independent of n.
    """
    if not len(ranks) or not samples:
        return {}
    names, values = values_by_rank(ks)
    histogram = rank_histogram(ranks, max(ks))
    draws = np.random.default_rng(seed).multinomial(len(ranks), histogram / len(ranks), size=samples)
    low, high = np.percentile(draws @ values.T / len(ranks), [2.5, 97.5], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def sliced_metrics(
    ranks: np.ndarray, slices: Mapping[str, np.ndarray], ks: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Return the metrics and the size of each named subset (bool [n]); empty subsets are left out."""
    return {
        name: {"targets": int(chosen.sum()), **ranking_metrics(ranks[chosen], ks)}
        for name, chosen in slices.items()
        if chosen.any()
    }


def bucket_masks(label: str, values: np.ndarray, edges: Sequence[int]) -> dict[str, np.ndarray]:
    """Return named masks of integer values by half-open buckets: edges (0, 1, 5) give 0, 1-4 and 5+."""
    masks = {}
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        if high is None:
            masks[f"{label} {low}+"] = values >= low
        else:
            span = f"{low}" if high == low + 1 else f"{low}-{high - 1}"
            masks[f"{label} {span}"] = (values >= low) & (values < high)
    return masks
