"""Draws the candidates of a sampled softmax, and computes their weights.

Shapes: N items of the catalogue, T training targets, B targets of a global batch, K' distinct candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts.errors import InputError
from contracts.rows import Rows
from data.sequences import SequenceArrays

_USERS = 2**20  # users that are processed at a time in target_counts: 8 MB per temporary array
_STREAM = 0x4E4547  # "NEG": see CandidateSampler


def target_counts(data: SequenceArrays, popularity: np.ndarray) -> np.ndarray:
    """Return how often each item is a training target: int64 [N], with sum len(Targets(data, "train")).

    This is the number of its training interactions that are not the first of a sequence, because a first item is never
    a target. So only one item per user is read. Memory: 8 N bytes and a chunk.

    Args:
        data: the sequences.
        popularity: int64 [N], number of training interactions of each item (`data.dataset.Dataset.popularity`).

    Raises:
        InputError: `popularity` contradicts the sequences.
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
    """Draws the candidates of a step, as a pure function of seed, epoch, step and the global batch.

    So candidates are the same on every rank. They are `num_draws` draws with replacement from the mixture

        m_j = (1 - popularity_share) / N + popularity_share * p_j,   p_j = counts_j^popularity_power / sum over items,

    where p_j = 0 for items that are never a target (also at power 0), and, with in_batch, also the targets of the
    batch. A candidate that occurs n_j times has the weight n_j / E_j, where

        E_j = D_j + I_j,   D_j = num_draws * m_j,   I_j = in_batch * (S - 1) * counts_j / (S_all - 1)

    is the expected number of times that item j occurs as a negative of a row, if j is not a target of the row's span.
    D_j is the part of the draws. I_j is the part of the batch: a global batch is S of the S_all training spans, drawn
    uniformly without replacement (`data.sampling.order`). Given that one of them is the row's span, each other span,
    with each of its targets, is in the batch with probability (S - 1) / (S_all - 1). All counts_j targets of item j
    are in other spans, and expectations add up. The targets W of the row's own span are in the batch with certainty.
    So the loss counts each of them once with weight 1, for any n_j, except for the row's own target t. Therefore, for
    every row and any function f,

        sum over W - {t} of f(j) + E[sum over candidates j outside W of n_j / E_j * f(j)] = sum over j != t of f(j),

    where the last sum is over items with E_j > 0. If popularity_share is 1 or num_draws is 0, items that are never a
    target are never candidates, and the estimate ignores them. Without in_batch, the items of W are drawn like all
    others.

    Hard negatives. A share h = hard_share of the draws is drawn from q instead of m, where q is a distribution over the
    neighbours of the batch's targets (`_Neighborhoods`); popularity_share is a share of the other draws. q depends on
    the batch, and given a row, q differs from its average over all batches, because the row's own target is in the
    batch. Weights from the average would therefore be wrong for the very items that are hard for the row. So weights
    use expectations given the batch. With D_j' = num_draws * ((1 - h) m_j + h q_j) and D_j = num_draws * (1 - h) * m_j,
    a candidate that was drawn d_j times, and is b_j times a target of the batch, has the weight

        d_j / D_j' * D_j / (D_j + I_j) + b_j / (D_j + I_j).

    Given the batch, the expectation of the first term is D_j / (D_j + I_j). Over batches, that of the second is
    I_j / (D_j + I_j), as above. They add up to 1, so the equation holds for every row and target. This requires that
    the two shares do not depend on the batch, which is the case (multiple importance sampling, Veach & Guibas 1995).
    Without hard negatives the weight is n_j / E_j. Items that only hard draws can reach (never a target,
    popularity_share 1) have the weight d_j / D_j', and count only in batches whose targets they are neighbours of.

    Draws by popularity invert the cumulative sum of counts^power in float64. For an item that is a target,
    1 <= counts^power <= counts, so the last entry S of the sum is at most T. At powers 0 and 1 (and T < 2^53) the sum
    is exact. Otherwise rounding changes an item's share by at most 2^-52 S times the share, which is 2e-6 for ten
    billion targets and any N. This cancels, because m_j is computed from the same rounded sum. What remains is the grid
    of the uniform numbers, again 2^-52 S. Ids are int64 from draw to result.

    Random numbers have the key [seed, epoch, step, constant]. The constant makes this stream differ from others with
    the same seed, epoch and step. It is not zero, because NumPy pads keys with zeros, so that [1, 2] and [1, 2, 0] give
    the same stream.

    The arrays are made in the constructor and never written again, so loader workers that are forked later share their
    memory. Memory: 8 N bytes for popularity (popularity_share > 0), and `counts` itself (in_batch). Hard negatives keep
    nothing in memory: a step reads the neighbours of its targets, as its plan does.

    Args:
        counts: int64 [N], from `target_counts`; None if neither popularity nor in_batch needs it.
        num_draws: number of draws of a step, >= 0.
        popularity_share: share of draws by popularity, in [0, 1].
        popularity_power: power of the counts, in [0, 1].
        in_batch: whether the targets of a batch are candidates of its other rows.
        seed: >= 0.
        num_items: N; given if and only if `counts` is None.
        hard_share: share of hard negatives, in [0, 1); it is below 1, so that other draws can reach every item.
        neighbors: per modality int64 [N, H], in memory or memory-mapped, padded with -1; needed if hard_share > 0.
        warm: int64, ascending, the items that may be candidates, if others are held out of training: uniform draws are
            draws of these, and N above is their number. The others have counts of 0 and are in no `neighbors`.
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
        neighbors: Sequence[Rows] = (),
        warm: np.ndarray | None = None,
    ) -> None:
        assert (counts is None) != (num_items is None), "either counts or num_items"
        assert num_draws >= 0, num_draws
        assert 0 <= popularity_share <= 1, popularity_share
        assert 0 <= popularity_power <= 1, popularity_power
        assert 0 <= hard_share < 1, hard_share
        assert neighbors or not hard_share, "hard negatives need neighbours"
        self._num_items = len(counts) if counts is not None else int(num_items or 0)
        self._warm = warm
        if warm is not None:
            assert counts is None or counts.sum() == counts[warm].sum(), "a cold item is a target"
            self._num_items = len(warm)
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
        self,
        epoch: int,
        step: int,
        batch_targets: np.ndarray,
        others: float | None = None,
        domain: range | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the candidates of a step and their weights.

        Args:
            epoch: the epoch.
            step: the step in the epoch.
            batch_targets: int64 [B], item ids of the global batch's targets, in any order.
            others: (S - 1) / (S_all - 1), the probability that another span is in the batch; None if each span has
                one target.
            domain: the items that the targets of the batch can be, if steps train one domain; None: all. S_all is then
                the number of the domain's spans, and I_j is 0 for items of other domains.

        Returns:
            ids: int64 [K'], ascending, distinct; K' may be 0.
            log_weights: float32 [K'], log of the weights above, finite.
        """
        rng = np.random.default_rng([self._seed, epoch, step, _STREAM])
        in_batch = self.in_batch and len(batch_targets) > 1
        targets = np.sort(batch_targets.astype(np.int64, casting="safe"))
        near = _Neighborhoods.of(self._neighbors, targets) if self._hard_share else None
        # First the number of draws from each part of the mixture, then the draws: their order does not matter.
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
            expected[expected == 0] = 1.0  # only hard draws reach these items; any value gives draws / given_batch
            draws *= expected / given_batch
        if self._counts is not None and in_batch:
            assert self._counts[targets].min() > 0, "a target of the batch is not in the counts"
            if others is None:
                others = (len(targets) - 1) / (self._num_targets - 1)
            in_domain = 1 if domain is None else (ids >= domain.start) & (ids < domain.stop)
            expected += others * self._counts[ids] * in_domain
            expected[expected == 0] = 1.0  # targets of the batch's only span, whose weights the loss sets
        return ids, np.log((draws + times_target) / expected).astype(np.float32)

    def _draw_uniform(self, rng: np.random.Generator, size: int) -> np.ndarray:
        drawn = rng.integers(0, self._num_items, size, dtype=np.int64) if size else np.empty(0, np.int64)
        return drawn if self._warm is None else self._warm[drawn]

    def _draw_popular(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw `size` items by popularity, int64, ascending; a search of sorted numbers has fewer cache misses."""
        if self._cumulative is None or not size:
            return np.empty(0, np.int64)
        # A uniform number is at most 1 - 2^-53, so its product with the sum is less than the sum also after rounding.
        # "right" skips items with an empty interval.
        where = np.sort(rng.random(size)) * self._cumulative[-1]
        return np.searchsorted(self._cumulative, where, side="right").astype(np.int64)

    def _mixture(self, ids: np.ndarray) -> np.ndarray:
        """Return m_j of the items, float64, of the shape of ids."""
        uniform = np.full(len(ids), (1 - self._share) / self._num_items)
        if self._cumulative is None:
            return uniform
        below = np.where(ids > 0, self._cumulative[ids - 1], 0.0)
        return uniform + self._share * ((self._cumulative[ids] - below) / self._cumulative[-1])


@dataclass(frozen=True)
class _Neighborhoods:
    """The neighbours of a batch's targets in each modality, and draws from them.

    A draw takes one of the P pairs (target of the batch, modality) that have a neighbour, and then one of its
    neighbours, both uniformly. An item does not count as its own neighbour here: it is not a negative in its own row,
    and other rows have it as a target of the batch. An item without a modality has no neighbours in it.

    Attributes:
        items: int64 [n], neighbours of the pairs, one pair after the other.
        degrees: int64 [P], number of neighbours of each pair, >= 1.
    """

    items: np.ndarray
    degrees: np.ndarray

    @classmethod
    def of(cls, neighbors: Sequence[Rows], targets: np.ndarray) -> _Neighborhoods:
        """Collect the neighbours of the targets, int64 [B], in which an item occurs as often as in the batch."""
        items, degrees = [], []
        for links in neighbors:
            rows = np.asarray(links[targets], dtype=np.int64)
            real = (rows >= 0) & (rows != targets[:, None])
            items.append(rows[real])
            degrees.append(real.sum(axis=1))
        found = np.concatenate(degrees)
        return cls(np.concatenate(items), found[found > 0])

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw `size` neighbours, int64; none if no target of the batch has any."""
        if not len(self.degrees):
            return np.empty(0, np.int64)
        pair = rng.integers(0, len(self.degrees), size)
        starts = np.cumsum(self.degrees) - self.degrees
        return self.items[starts[pair] + rng.integers(0, self.degrees[pair])]

    def chances(self, ids: np.ndarray) -> np.ndarray:
        """Return q_j of ascending distinct ids, the probability that a draw is item j: float64, of the shape of ids."""
        # Item and degree in one number sort several times faster than with argsort, and the order of sums is fixed.
        assert self.degrees.max(initial=0) < 2**16, "neighbours of an item"
        keys = np.sort(self.items << 16 | np.repeat(self.degrees, self.degrees))
        items, degrees = keys >> 16, keys & (2**16 - 1)
        running = np.concatenate([[0.0], np.cumsum(1 / (len(self.degrees) * degrees))])
        return running[np.searchsorted(items, ids, side="right")] - running[np.searchsorted(items, ids, side="left")]


def _cumulative_popularity(counts: np.ndarray, power: float) -> np.ndarray:
    """Return the cumulative sum of counts^power over the items (0 for a count of 0), float64 [N], read-only."""
    weights = counts.astype(np.float64)
    np.power(weights, power, out=weights, where=weights > 0)  # 0^0 would be 1, so an untrained item would be drawn
    cumulative = np.cumsum(weights, out=weights)
    assert cumulative[-1] > 0, "popularity of a catalogue without targets"
    cumulative.flags.writeable = False
    return cumulative
