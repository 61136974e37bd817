"""Ranking metrics as pure functions of 1-based ranks (n: evaluated targets).

With one relevant item per target, Recall@K (= HitRate@K) is 1 where rank <= K, and NDCG@K is
1/log2(rank + 1) where rank <= K, else 0; both are averaged over targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from configs.evaluation_options import METRICS

TieRule = Literal["pessimistic", "optimistic", "id"]


def ranks_from_counts(higher: np.ndarray, tied: np.ndarray, tied_before: np.ndarray, rule: TieRule) -> np.ndarray:
    """1-based ranks, int64 [n].

    Args:
        higher: int64 [n], items scored strictly above the target.
        tied: int64 [n], other items scored exactly as the target.
        tied_before: int64 [n], those of them with a smaller item id.
        rule: "pessimistic" ranks all ties above the target, "optimistic" none, "id" the smaller ids,
            which is the order in which top-K lists are written.
    """
    extra = {"pessimistic": tied, "optimistic": np.zeros_like(tied), "id": tied_before}[rule]
    return 1 + higher + extra


# What a target earns by its 1-based rank (float64 [n]) if the rank is at most K. Beyond K every metric is 0.
_VALUE_OF_RANK: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall": np.ones_like,
    "ndcg": lambda ranks: 1.0 / np.log2(ranks + 1),
}


def values_by_rank(ks: Sequence[int]) -> tuple[list[str], np.ndarray]:
    """Metric names and the value that each rank earns: float64 [metrics, max(ks) + 1].

    Column r-1 is the value of rank r; the last column stands for every rank beyond max(ks) and is 0.
    """
    ranks = np.arange(1, max(ks) + 2, dtype=np.float64)
    names = [f"{name}@{k}" for name in METRICS for k in ks]
    return names, np.stack([np.where(ranks <= k, _VALUE_OF_RANK[name](ranks), 0.0) for name in METRICS for k in ks])


def rank_histogram(ranks: np.ndarray, max_k: int) -> np.ndarray:
    """How many targets have each rank 1..max_k, and (last) any rank beyond: int64 [max_k + 1]."""
    return np.bincount(np.minimum(ranks, max_k + 1) - 1, minlength=max_k + 1)


def ranking_metrics(ranks: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Recall@K and NDCG@K of int64 ranks [n] (1-based); NaN-free: no targets gives an empty dict."""
    if not len(ranks):
        return {}
    names, values = values_by_rank(ks)
    means = values @ rank_histogram(ranks, max(ks)) / len(ranks)
    return dict(zip(names, means.tolist(), strict=True))


def bootstrap_intervals(
    ranks: np.ndarray, ks: Sequence[int], samples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95% percentile intervals of each metric under resampling of targets with replacement.

    Metrics depend on a target only through min(rank, max K + 1), so resampling n targets is one
    multinomial draw over that histogram: cost samples * max K, whatever n is.
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
    """Metrics of each named subset (bool [n]) beside its size; empty subsets are left out."""
    return {
        name: {"targets": int(chosen.sum()), **ranking_metrics(ranks[chosen], ks)}
        for name, chosen in slices.items()
        if chosen.any()
    }


def bucket_masks(label: str, values: np.ndarray, edges: Sequence[int]) -> dict[str, np.ndarray]:
    """Named masks of integer values by half-open buckets: edges (0, 1, 5) give 0, 1-4 and 5+."""
    masks = {}
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        if high is None:
            masks[f"{label} {low}+"] = values >= low
        else:
            span = f"{low}" if high == low + 1 else f"{low}-{high - 1}"
            masks[f"{label} {span}"] = (values >= low) & (values < high)
    return masks
