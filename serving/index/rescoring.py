"""Scores of candidates by the exact rule: inner products or the fusion, plus gains.

There are two ways. `same_digits` gives the scores of the exact ranking to the last digit, but must compute the same
matrix products, so it takes about the time of the exact ranking when candidates lie all over the catalogue. `gathered`
computes the candidates' scores alone: they differ from the ranking's by rounding, which `bounds.py` bounds.

n: users, p: pairs of a user and an item, D: width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.item_blocks import ItemBlocks
from evaluation.ranking import score_pairs
from evaluation.user_batches import UserBatch

# From item ids, int64 [m], ascending and distinct, to their vectors, float32 [m, D].
VectorsOf = Callable[[np.ndarray], Tensor]


@dataclass(kw_only=True)
class GainPairs:
    """The gains of the users of several batches, by user and then item.

    Attributes:
        rows: int64 [m], the pairs' users in 0 .. n - 1.
        items: int64 [m].
        gains: float32 [m].
        lowered: int64 [n], how many items of each user have a gain below 0; they may leave the list.
        greatest: float64 [n], the greatest absolute value of a user's finite gains.
    """

    rows: np.ndarray
    items: np.ndarray
    gains: np.ndarray
    lowered: np.ndarray
    greatest: np.ndarray

    @classmethod
    def of(cls, users: Sequence[UserBatch]) -> GainPairs:
        """Return the gains of these batches."""
        starts = np.cumsum([0, *map(len, users)])
        rows = np.concatenate([u.gain_users + start for u, start in zip(users, starts[:-1], strict=True)])
        items = np.concatenate([u.gain_items for u in users])
        gains = np.concatenate([u.gains for u in users])
        order = np.lexsort((items, rows))
        rows, items, gains = rows[order], items[order], gains[order]
        greatest = np.zeros(starts[-1])
        np.maximum.at(greatest, rows, np.where(np.isfinite(gains), np.abs(gains), 0).astype(np.float64))
        lowered = np.bincount(rows[gains < 0], minlength=starts[-1])
        return cls(rows=rows, items=items, gains=gains, lowered=lowered, greatest=greatest)


def same_digits(users: Sequence[UserBatch], items: ItemBlocks, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the scores of pairs, float32 [p], as `top_items` computes them for the same batches.

    Args:
        users: the batches, which hold users 0 .. n - 1.
        items: the blocks of all items.
        rows: the pairs' users, int64 [p].
        asked: the pairs' items, int64 [p].
    """
    return score_pairs(users, items, rows, asked).cpu().numpy()


def gathered(
    users: Sequence[UserBatch],
    items: ItemBlocks,
    vectors_of: VectorsOf,
    pairs: GainPairs,
    rows: np.ndarray,
    asked: np.ndarray,
) -> np.ndarray:
    """Return the scores of pairs, float32 [p], from the vectors of these items alone.

    Args:
        users: the batches, which hold users 0 .. n - 1.
        items: says how scores are computed (`ItemBlocks.pair_scores`).
        vectors_of: returns item vectors.
        pairs: the gains of these users.
        rows: the pairs' users, int64 [p], ascending; the items of a user ascend.
        asked: the pairs' items, int64 [p].

    Raises:
        FloatingPointError: a score is not finite.
    """
    distinct, places = np.unique(asked, return_inverse=True)
    vectors = vectors_of(distinct)
    of_users = torch.cat([batch.vectors for batch in users]).to(vectors.device)
    scores = np.empty(len(asked), dtype=np.float32)
    ends = np.searchsorted(rows, np.arange(len(of_users) + 1))
    for user in np.unique(rows).tolist():
        mine = slice(ends[user], ends[user + 1])
        own, candidates = of_users[user : user + 1], vectors[torch.from_numpy(places[mine]).to(vectors.device)]
        with torch.no_grad():
            found = own @ candidates.T if items.pair_scores is None else items.pair_scores(own, candidates)
        scores[mine] = found[0].cpu().numpy()
    if not np.isfinite(scores).all():
        raise FloatingPointError("scores of candidates are not finite: the model diverged; use an earlier checkpoint")
    keys, wanted = rows * items.num_items + asked, pairs.rows * items.num_items + pairs.items
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    known = keys[at] == wanted if len(keys) else np.zeros(len(wanted), dtype=bool)
    scores[at[known]] += pairs.gains[known]
    return scores
