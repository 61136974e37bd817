"""Candidates of a sampled softmax: which items a step scores, and how much each stands for.

Shapes: N items of the catalogue, T training targets, B targets of a global batch, K' distinct candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts.errors import InputError
from data.sequences import SequenceArrays

_USERS = 2**20  # whose first items are taken off the counts at a time: 8 MB per temporary array
_STREAM = 0x4E4547  # "NEG": see CandidateSampler


def target_counts(data: SequenceArrays, popularity: np.ndarray) -> np.ndarray:
    """How often each item is a training target: int64 [N], sum len(Targets(data, "train")).

    That is its training interactions but for those that begin a sequence, which are nobody's target: one item a
    user is read, not every interaction. Memory 8 N bytes and a chunk.

    Args:
        popularity: int64 [N], training interactions of each item (`data.dataset.Dataset.popularity`).
    Raises:
        InputError: that is not what `popularity` holds.
    """
    counts = popularity.astype(np.int64, casting="safe")
    for start in range(0, data.num_users, _USERS):
        users = slice(start, min(start + _USERS, data.num_users))
        firsts = data.offsets[users][data.train_end[users] > 0]
        np.subtract.at(counts, data.items[firsts], 1)
    num_targets = int(np.maximum(data.train_end - 1, 0).sum())
    if counts.min(initial=0) < 0 or counts.sum() != num_targets:
        raise InputError(
            f"items.parquet: column popularity leaves {counts.sum():,} training targets (fewest of an item: "
            f"{counts.min(initial=0):,}) where sequences.arrow has {num_targets:,}; "
            "prepare the dataset again with jobs/prepare_data.py"
        )
    return counts


class CandidateSampler:
    """The candidates of a step, the same on every rank: a pure function of seed, epoch, step and the global batch.

    They are `num_draws` draws with replacement from the mixture

        m_j = (1 - popularity_share) / N + popularity_share * p_j,   p_j = counts_j^popularity_power / sum over items,

    where p_j = 0 for items that are never a target (also at power 0), and, with in_batch, the batch's own
    targets. A candidate that came up n_j times weighs n_j / E_j, where

        E_j = D_j + I_j,   D_j = num_draws * m_j,   I_j = in_batch * (S - 1) * counts_j / (S_all - 1)

    is how often item j is expected as a negative of a row of whose span j is not a target. For the draws this is
    immediate. A global batch is S of the S_all training spans, uniform and without replacement
    (`data.sampling.order`). So given that one of them is a row's own, each other span, and each of its targets, is
    there with chance (S - 1) / (S_all - 1); all counts_j targets of item j are in other spans, and expectations add.
    The targets W of the row's own span are there for certain, so the loss scores them once with weight 1, whatever
    their n_j, and leaves the row's own target t out. So for every row and any f,

        sum over W - {t} of f(j) + E[sum over candidates j outside W of n_j / E_j * f(j)] = sum over j != t of f(j),

    the last sum over items with E_j > 0: items that are never a target are never candidates, and the estimate
    ignores them, if popularity_share is 1 or num_draws 0. Without in_batch, W is drawn like any other item.

    Hard negatives. A share h = hard_share of the draws is not from m but from q, the neighbours of the batch's
    targets (`_Neighborhoods`); popularity_share is of the rest. q depends on the batch, and more on a row's own
    target than its average over batches tells, so weights made from that average would be wrong for exactly the
    items that are hard for a row. They are made from what is expected given the batch: with D_j' = num_draws *
    ((1 - h) m_j + h q_j) and D_j = num_draws * (1 - h) * m_j, a candidate drawn d_j times and b_j times a target of
    the batch weighs

        d_j / D_j' * D_j / (D_j + I_j) + b_j / (D_j + I_j).

    Given the batch the first term is D_j / (D_j + I_j) on average, and the second I_j / (D_j + I_j) over batches as
    above, so the equation holds for every row and each target; the two shares of 1 must not, and do not, depend on
    the batch (multiple importance sampling, Veach & Guibas 1995). Without hard negatives this is n_j / E_j. Items
    that only hard draws reach (never a target, popularity_share 1) weigh d_j / D_j', and count in the batches with a
    neighbour of theirs.

    Popularity is drawn by inverting the cumulative sum of counts^power in float64. For an item that is a target,
    1 <= counts^power <= counts, so the last sum S is at most T. At powers 0 and 1 (and T < 2^53) the sum is exact;
    otherwise rounding moves an item's share by at most 2^-52 S of itself: 2e-6 for ten billion targets, whatever N.
    Even that cancels, as m_j is read from the same rounded sum: the weights match what is drawn but for the grid of
    the uniform numbers, again 2^-52 S. Ids stay int64 from draw to result.

    Random numbers are keyed by [seed, epoch, step, constant]. The constant keeps this stream apart from others
    keyed by seed, epoch and step, and, not being zero, from shorter keys: NumPy pads keys with zeros, so [1, 2] and
    [1, 2, 0] are one stream.

    The arrays are made once, in the constructor, and never written again: loader workers forked afterwards
    share their pages. Memory: 8 N bytes for popularity (popularity_share > 0), and `counts` itself (in_batch). Hard
    negatives keep nothing: a step reads the neighbours of its targets, as its plan does.

    Args:
        counts: int64 [N], `target_counts`; None (then give num_items) where neither popularity nor in_batch needs it.
        num_draws: draws of a step, >= 0.
        popularity_share, popularity_power: in [0, 1].
        in_batch: whether the targets of a batch are candidates of its other rows.
        seed: >= 0.
        num_items: N, where counts is None.
        hard_share: in [0, 1): the rest of the draws keep every item in reach.
        neighbors: per modality int64 [N, H], in memory or memory-mapped, -1 where there is none (hard_share > 0).
    """

    def __init__(
        self,
        *,
        counts: np.ndarray | None,
        num_draws: int,
        popularity_share: float,
        popularity_power: float,
        in_batch: bool,
        seed: int,
        num_items: int | None = None,
        hard_share: float = 0.0,
        neighbors: Sequence[np.ndarray] = (),
    ) -> None:
        assert (counts is None) != (num_items is None), "either counts or num_items"
        assert num_draws >= 0, num_draws
        assert 0 <= popularity_share <= 1, popularity_share
        assert 0 <= popularity_power <= 1, popularity_power
        assert 0 <= hard_share < 1, hard_share
        assert neighbors or not hard_share, "hard negatives need neighbours"
        self._num_items = len(counts) if counts is not None else int(num_items or 0)
        self._num_draws = num_draws
        self._share = popularity_share
        self._seed = seed
        self._hard_share = hard_share if num_draws else 0.0
        self._neighbors = neighbors
        self.in_batch = in_batch
        self._counts: np.ndarray | None = None
        self._num_targets = 0
        self._cumulative: np.ndarray | None = None
        if in_batch:
            assert counts is not None, "in-batch weights need counts"
            self._counts, self._num_targets = counts, int(counts.sum())
        if popularity_share > 0 and num_draws > 0:
            assert counts is not None, "popularity needs counts"
            self._cumulative = _cumulative_popularity(counts, popularity_power)

    def sample(
        self, epoch: int, step: int, batch_targets: np.ndarray, others: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of a step.

        Args:
            batch_targets: int64 [B], item ids of the global batch's targets, in any order.
            others: (S - 1) / (S_all - 1), the chance of another span to be in the batch; None where every target is
                a span.
        Returns:
            ids: int64 [K'], ascending, distinct; K' may be 0.
            log_weights: float32 [K'], log of the weights above, finite.
        """
        rng = np.random.default_rng([self._seed, epoch, step, _STREAM])
        in_batch = self.in_batch and len(batch_targets) > 1
        targets = np.sort(batch_targets.astype(np.int64, casting="safe"))
        near = _Neighborhoods.of(self._neighbors, targets) if self._hard_share else None
        # How many draws take which part of the mixture, then each part: the order of draws does not matter.
        num_hard = rng.binomial(self._num_draws, self._hard_share) if near else 0
        num_plain = self._num_draws - num_hard
        num_popular = rng.binomial(num_plain, self._share) if num_plain else 0
        parts = [self._draw_uniform(rng, num_plain - num_popular), self._draw_popular(rng, num_popular)]
        if near:
            parts.append(near.draw(rng, num_hard))
        drawn = np.concatenate(parts)
        ids, place = np.unique(np.concatenate([drawn, targets]) if in_batch else drawn, return_inverse=True)
        times_drawn, times_target = (np.bincount(part, minlength=len(ids)) for part in np.split(place, [len(drawn)]))
        draws = times_drawn.astype(np.float64)
        expected = self._num_draws * (1 - self._hard_share) * self._mixture(ids)
        if near:
            given_batch = expected + self._num_draws * self._hard_share * near.chances(ids)
            expected[expected == 0] = 1.0  # only hard draws come here: the weight is draws / given_batch whatever this
            draws *= expected / given_batch
        if self._counts is not None and in_batch:
            assert self._counts[targets].min() > 0, "a batch target that was not counted"
            if others is None:
                others = (len(targets) - 1) / (self._num_targets - 1)
            expected += others * self._counts[ids]
            expected[expected == 0] = 1.0  # targets of the batch's only span, which the loss weighs itself
        return ids, np.log((draws + times_target) / expected).astype(np.float32)

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


@dataclass(frozen=True)
class _Neighborhoods:
    """The neighbours of a batch's targets in each modality, and draws from them.

    A draw takes one of the P pairs (target of the batch, modality) with a neighbour, then one of its neighbours,
    both uniform. An item that is its own neighbour is none here: in its own row it is no negative, and the
    others have it in the batch. Items without a modality have no neighbour in it.

    Attributes:
        items: int64 [n], neighbours of the pairs, end to end.
        degrees: int64 [P], how many each pair has, >= 1.
    """

    items: np.ndarray
    degrees: np.ndarray

    @classmethod
    def of(cls, neighbors: Sequence[np.ndarray], targets: np.ndarray) -> _Neighborhoods:
        """Of targets int64 [B], repeated as often as the batch has them."""
        items, degrees = [], []
        for links in neighbors:
            rows = np.asarray(links[targets], dtype=np.int64)
            real = (rows >= 0) & (rows != targets[:, None])
            items.append(rows[real])
            degrees.append(real.sum(axis=1))
        found = np.concatenate(degrees)
        return cls(np.concatenate(items), found[found > 0])

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`size` neighbours, int64; none where no target of the batch has any."""
        if not len(self.degrees):
            return np.empty(0, np.int64)
        pair = rng.integers(0, len(self.degrees), size)
        starts = np.cumsum(self.degrees) - self.degrees
        return self.items[starts[pair] + rng.integers(0, self.degrees[pair])]

    def chances(self, ids: np.ndarray) -> np.ndarray:
        """q_j of ascending distinct ids: the chance that a draw is item j, float64, the shape of ids."""
        # Item and degree in one number: sorted several times faster than by argsort, and summed in one order anywhere.
        assert self.degrees.max(initial=0) < 2**16, "neighbours of an item"
        keys = np.sort(self.items << 16 | np.repeat(self.degrees, self.degrees))
        items, degrees = keys >> 16, keys & (2**16 - 1)
        running = np.concatenate([[0.0], np.cumsum(1 / (len(self.degrees) * degrees))])
        return running[np.searchsorted(items, ids, side="right")] - running[np.searchsorted(items, ids, side="left")]


def _cumulative_popularity(counts: np.ndarray, power: float) -> np.ndarray:
    """Running sum of counts^power over the items (0 for a count of 0), float64 [N], read-only."""
    weights = counts.astype(np.float64)
    np.power(weights, power, out=weights, where=weights > 0)  # 0^0 is 1: an untrained item would be popular
    cumulative = np.cumsum(weights, out=weights)
    assert cumulative[-1] > 0, "popularity of a catalogue without targets"
    cumulative.flags.writeable = False
    return cumulative
