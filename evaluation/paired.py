"""Compares two systems on the same targets: the difference of their metrics, its 95% interval and its p-value.

Each system has been trained S times, with the same seeds, and every training has ranked the same targets. A bootstrap
sample draws two things with replacement and independently of each other:

1. S of the S seeds. A seed stands for a training of either system, so both trainings of a seed are drawn together.
2. U of the U users. The same users are drawn for all seeds, because every training ranks the same users. A user is
   drawn with all targets of the split.

The sample's difference is the mean over the drawn seeds of the difference of the metric over the targets of the drawn
users. This is the "pigeonhole bootstrap" (Owen, Annals of Applied Statistics 1(2), 2007). docs/studies.md says when its
intervals are too wide or too narrow.

S: seeds, M: metrics, U: users, K: distinct rows of users, c: targets of a chunk, B: bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics import values_by_rank

# Bootstrap samples of a comparison. The smallest p-value is 2 / (samples + 1).
SAMPLES = 5000
# Counts of drawn rows that are in memory at a time, 16 bytes each.
_MOST_COUNTS = 1 << 22
# Rows of users that are collected before equal ones are counted together.
_MOST_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PairedChunk:
    """The ranks of some targets, which are consecutive in the order of users.

    Attributes:
        begins_user: bool [c], whether a target is the first of its user.
        baseline: int64 [S, c], the rank of each target, from 1, in the baseline's training with each seed.
        other: int64 [S, c], the same for the other system.
    """

    begins_user: np.ndarray
    baseline: np.ndarray
    other: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PairedUsers:
    """What the comparison of two systems reads from the ranks. Users with equal rows are counted together.

    Attributes:
        metrics: names such as "ndcg@10" [M].
        counts: int64 [K], the number of users that have each row; the largest first.
        rows: float64 [K, 1 + S * M]. First the number of the user's targets, then for each seed and metric the sum over
            these targets of the other system's value minus the baseline's.
        totals: float64 [2, S, M], the sums of the values over all targets: the baseline's, the other system's.
    """

    metrics: tuple[str, ...]
    counts: np.ndarray
    rows: np.ndarray
    totals: np.ndarray

    @property
    def num_targets(self) -> int:
        """The number of targets of all users."""
        return int(self.counts @ self.rows[:, 0])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much a system differs from the baseline in one metric. Values are means over seeds.

    Attributes:
        metric: its name, such as "ndcg@10".
        baseline: the baseline's value.
        other: the other system's value.
        difference: `other` minus `baseline`.
        low: lower end of the 95% interval of the difference (bootstrap percentiles).
        high: upper end.
        p: two-sided p-value: twice the share of samples whose difference is 0 or on the rarer side of 0.
    """

    metric: str
    baseline: float
    other: float
    difference: float
    low: float
    high: float
    p: float


def metric_values(metrics: Sequence[str]) -> np.ndarray:
    """Return the value of each rank in each metric, float64 [M, max K + 1]; see `metrics.values_by_rank`."""
    ks = sorted({int(metric.partition("@")[2]) for metric in metrics})
    names, values = values_by_rank(ks)
    return values[[names.index(metric) for metric in metrics]]


def pair_users(chunks: Iterable[PairedChunk], metrics: Sequence[str]) -> PairedUsers:
    """Collect the differences of users from the ranks of all targets, chunk by chunk.

    Memory: that of a chunk, and of the distinct rows. Most users have the same row, in which no training has the target
    among the best K items.

    Args:
        chunks: at least one; together the targets of all users. The first target of the first chunk begins a user.
        metrics: names such as "ndcg@10" [M].
    """
    values = metric_values(metrics)
    collected = _DistinctRows()
    totals: np.ndarray | float = 0.0
    open_user: np.ndarray | None = None  # the row of the last user, who may have further targets in the next chunk
    for chunk in chunks:
        found = np.stack([_values(values, ranks) for ranks in (chunk.baseline, chunk.other)])
        totals = totals + found.sum(-1)
        differences = (found[1] - found[0]).reshape(-1, found.shape[-1]).T
        rows = np.concatenate([np.ones((len(differences), 1)), differences], axis=1)
        begins = chunk.begins_user
        if open_user is not None:
            rows, begins = np.concatenate([open_user, rows]), np.concatenate([[True], begins])
        users = np.add.reduceat(rows, np.flatnonzero(begins), axis=0)
        collected.add(users[:-1])
        open_user = users[-1:]
    assert open_user is not None, "there are no targets"
    collected.add(open_user)
    rows, counts = collected.all()
    order = np.argsort(-counts, kind="stable")  # draws are faster when the most frequent row comes first
    return PairedUsers(metrics=tuple(metrics), counts=counts[order], rows=rows[order], totals=np.asarray(totals))


def compare(users: PairedUsers, samples: int = SAMPLES, seed: int = 0) -> list[Difference]:
    """Return the difference in each metric, with its interval and p-value. The same arguments give the same digits.

    Args:
        users: the differences of all users.
        samples: B. The cost is B * K; memory is bounded.
        seed: the seed of the random draws.
    """
    baseline, other = users.totals.mean(1) / users.num_targets
    difference = _in_samples(users, samples, seed)
    low, high = np.percentile(difference, [2.5, 97.5], axis=0)
    rarer = np.minimum((difference <= 0).sum(0), (difference >= 0).sum(0))
    p = np.minimum(1.0, 2 * (1 + rarer) / (1 + samples))
    columns = (baseline, other, other - baseline, low, high, p)
    return [
        Difference(metric=m, baseline=b, other=o, difference=d, low=lo, high=hi, p=p_value)
        for m, b, o, d, lo, hi, p_value in zip(users.metrics, *(column.tolist() for column in columns), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for the number of comparisons by Holm's method (Scandinavian J. of Statistics, 1979).

    Of m values, the k-th smallest is multiplied by m + 1 - k. It is then at least as large as the corrected values of
    the smaller ones, and at most 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return [float(value) for value in corrected]


def _values(values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the values [S, M, c] of ranks [S, c], from the table of `metric_values`."""
    return values[:, np.minimum(ranks, values.shape[1]) - 1].transpose(1, 0, 2)


def _in_samples(users: PairedUsers, samples: int, seed: int) -> np.ndarray:
    """Return the difference in each bootstrap sample and metric, float64 [B, M]."""
    of_users, of_seeds = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
    num_users, (_, num_seeds, num_metrics) = int(users.counts.sum()), users.totals.shape
    weights = of_seeds.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=samples) / num_seeds
    shares, found = users.counts / num_users, np.empty((samples, num_metrics))
    size = max(1, _MOST_COUNTS // len(shares))
    for first in range(0, samples, size):
        part = slice(first, min(first + size, samples))
        drawn = of_users.multinomial(num_users, shares, size=part.stop - first)
        sums = drawn.astype(np.float64) @ users.rows
        by_seed = (sums[:, 1:] / sums[:, :1]).reshape(-1, num_seeds, num_metrics)
        found[part] = np.einsum("bs,bsm->bm", weights[part], by_seed)
    return found


class _DistinctRows:
    """Counts equal rows. Memory: the distinct rows, and `_MOST_ROWS` others."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._compact = 0  # number of rows after the last count

    def add(self, rows: np.ndarray) -> None:
        self._rows.append(rows)
        self._counts.append(np.ones(len(rows), dtype=np.int64))
        if sum(map(len, self._rows)) > self._compact + _MOST_ROWS:
            self.all()

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct rows and how often each was added, int64."""
        rows, counts = np.ascontiguousarray(np.concatenate(self._rows)), np.concatenate(self._counts)
        keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        totals = np.zeros(len(first), dtype=np.int64)
        np.add.at(totals, inverse.ravel(), counts)
        self._rows, self._counts, self._compact = [rows[first]], [totals], len(first)
        return rows[first], totals
