"""Candidates of a sampled softmax: which items a step scores, and how much each stands for.

Shapes: N items of the catalogue, T training targets, B targets of a global batch, K' distinct candidates.
"""

from __future__ import annotations

import numpy as np

from data.sequences import SequenceArrays, Targets, target_items

_CHUNK = 2**20  # targets counted at a time: 8 MB per temporary array
_STREAM = 0x4E4547  # "NEG": see CandidateSampler


def target_counts(data: SequenceArrays, targets: Targets) -> np.ndarray:
    """How often each item is a training target: int64 [N], sum len(targets).

    Not the popularity of items.parquet, which also counts first interactions; those are nobody's target.
    Reads the training interactions once; memory 8 N bytes and a chunk.

    Args:
        targets: Targets(data, "train").
    """
    assert targets.split == "train", targets.split
    counts = np.zeros(data.num_items, dtype=np.int64)
    for first in range(0, len(targets), _CHUNK):
        index = np.arange(first, min(first + _CHUNK, len(targets)))
        np.add.at(counts, target_items(data, *targets.locate(index)), 1)
    return counts


class CandidateSampler:
    """The candidates of a step, the same on every rank: a pure function of seed, epoch, step and the global batch.

    They are `num_draws` draws with replacement from the mixture

        m_j = (1 - popularity_share) / N + popularity_share * p_j,   p_j = counts_j^popularity_power / sum over items,

    where p_j = 0 for items that are never a target (also at power 0), and, with in_batch, the batch's own
    targets. A candidate that came up n_j times weighs n_j / E_j, where

        E_j = num_draws * m_j + in_batch * (B - 1) * counts_j / (T - 1)

    is how often item j is expected as a negative of a row whose target is another item. For the draws this is
    immediate. A global batch is B of the T training targets, uniform and without replacement (`data.order`), so
    given that one of them is a row's own, with item t, the other B - 1 are uniform without replacement from the
    remaining T - 1; each of these is of item j with chance counts_j / (T - 1), for the row's own was of t != j,
    and expectations add. So for every row and any f, if the loss leaves the row's own target t out,

        E[sum over candidates j != t of n_j / E_j * f(j)] = sum over items j != t of f(j),

    the last sum over items with E_j > 0: items that are never a target are never candidates, and the estimate
    ignores them, if popularity_share is 1 or num_draws 0. A batch of one has no other rows and adds no candidate.

    Popularity is drawn by inverting the cumulative sum of counts^power in float64. For an item that is a target,
    1 <= counts^power <= counts, so the last sum S is at most T. At powers 0 and 1 (and T < 2^53) the sum is exact;
    otherwise rounding moves an item's share by at most 2^-52 S of itself: 2e-6 for ten billion targets, whatever N.
    Even that cancels, as m_j is read from the same rounded sum: the weights match what is drawn but for the grid of
    the uniform numbers, again 2^-52 S. Ids stay int64 from draw to result.

    Random numbers are keyed by [seed, epoch, step, constant]. The constant keeps this stream apart from others
    keyed by seed, epoch and step, and, not being zero, from shorter keys: NumPy pads keys with zeros, so [1, 2] and
    [1, 2, 0] are one stream.

    The arrays are made once, in the constructor, and never written again: loader workers forked afterwards
    share their pages. Memory: 8 N bytes for popularity (popularity_share > 0), and `counts` itself (in_batch).

    Args:
        counts: int64 [N], `target_counts`; None (then give num_items) where neither popularity nor in_batch needs it.
        num_draws: draws of a step, >= 0.
        popularity_share, popularity_power: in [0, 1].
        in_batch: whether the targets of a batch are candidates of its other rows.
        seed: >= 0.
        num_items: N, where counts is None.
    """

    def __init__(
        self,
        counts: np.ndarray | None,
        num_draws: int,
        popularity_share: float,
        popularity_power: float,
        in_batch: bool,
        seed: int,
        num_items: int | None = None,
    ) -> None:
        assert (counts is None) != (num_items is None), "either counts or num_items"
        assert num_draws >= 0, num_draws
        assert 0 <= popularity_share <= 1, popularity_share
        assert 0 <= popularity_power <= 1, popularity_power
        self._num_items = len(counts) if counts is not None else int(num_items or 0)
        self._num_draws = num_draws
        self._share = popularity_share
        self._seed = seed
        self._counts: np.ndarray | None = None
        self._num_targets = 0
        self._cumulative: np.ndarray | None = None
        if in_batch:
            assert counts is not None, "in-batch weights need counts"
            self._counts, self._num_targets = counts, int(counts.sum())
        if popularity_share > 0 and num_draws > 0:
            assert counts is not None, "popularity needs counts"
            self._cumulative = _cumulative_popularity(counts, popularity_power)

    def sample(self, epoch: int, step: int, batch_targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of a step.

        Args:
            batch_targets: int64 [B], item ids of the global batch's targets, in any order.
        Returns:
            ids: int64 [K'], ascending, distinct; K' may be 0.
            log_weights: float32 [K'], log(n_j / E_j), finite.
        """
        rng = np.random.default_rng([self._seed, epoch, step, _STREAM])
        # How many draws take which part of the mixture, then each part: the order of draws does not matter.
        num_popular = rng.binomial(self._num_draws, self._share) if self._num_draws else 0
        drawn = [self._draw_uniform(rng, self._num_draws - num_popular), self._draw_popular(rng, num_popular)]
        num_others = len(batch_targets) - 1
        if self._counts is not None and num_others > 0:
            drawn.append(batch_targets.astype(np.int64, casting="safe"))
        ids, times = np.unique(np.concatenate(drawn), return_counts=True)
        expected = self._num_draws * self._mixture(ids)
        if self._counts is not None and num_others > 0:
            assert self._counts[batch_targets].min() > 0, "a batch target that was not counted"
            expected += num_others * (self._counts[ids] / (self._num_targets - 1))
        return ids, np.log(times / expected).astype(np.float32)

    def _draw_uniform(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.integers(0, self._num_items, size, dtype=np.int64) if size else np.empty(0, np.int64)

    def _draw_popular(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`size` items by popularity, int64, ascending: sorted numbers find their places with fewer cache misses."""
        if self._cumulative is None or not size:
            return np.empty(0, np.int64)
        # A uniform number is at most 1 - 2^-53, so its product with the sum rounds to less than the sum; "right"
        # steps over items with an empty interval.
        where = np.sort(rng.random(size)) * self._cumulative[-1]
        return np.searchsorted(self._cumulative, where, side="right").astype(np.int64)

    def _mixture(self, ids: np.ndarray) -> np.ndarray:
        """m_j of the items, float64, the shape of ids."""
        uniform = np.full(len(ids), (1 - self._share) / self._num_items)
        if self._cumulative is None:
            return uniform
        below = np.where(ids > 0, self._cumulative[ids - 1], 0.0)
        return uniform + self._share * ((self._cumulative[ids] - below) / self._cumulative[-1])


def _cumulative_popularity(counts: np.ndarray, power: float) -> np.ndarray:
    """Running sum of counts^power over the items (0 for a count of 0), float64 [N], read-only."""
    weights = counts.astype(np.float64)
    np.power(weights, power, out=weights, where=weights > 0)  # 0^0 is 1: an untrained item would be popular
    cumulative = np.cumsum(weights, out=weights)
    assert cumulative[-1] > 0, "popularity of a catalogue without targets"
    cumulative.flags.writeable = False
    return cumulative
