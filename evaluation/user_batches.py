"""Batches of encoded users; each batch is encoded on one rank and then sent to all.

B: users of a batch, D: width of a concatenated vector, W: ranks, n: users in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from evaluation.collectives import gather_equal, num_ranks


@dataclass(kw_only=True)
class UserBatch:
    """The encoded users of one batch, and the gains that are added to the scores of some pairs of user and item.

    Attributes:
        vectors: [B, D].
        targets: int64 [B]; -1 for a user without a target.
        gain_items: int64 [m], item ids of the pairs, ascending; no pair occurs twice.
        gain_users: int64 [m], rows of the batch that the pairs belong to.
        gains: float32 [m], what is added to the score of each pair; -inf hides the item.
    """

    vectors: Tensor
    targets: np.ndarray
    gain_items: np.ndarray
    gain_users: np.ndarray
    gains: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


def user_batch(
    vectors: Tensor, targets: np.ndarray, items: np.ndarray, users: np.ndarray, gains: np.ndarray
) -> UserBatch:
    """Return a batch with gains; if a pair of user and item occurs more than once, its smallest gain counts.

    Args:
        vectors: [B, D].
        targets: int64 [B]; -1 for a user without a target.
        items: int64 [s], item ids of the pairs, in any order.
        users: int64 [s], their rows of the batch.
        gains: float32 [s].
    """
    rows = max(len(targets), 1)
    keys = items * rows + users
    order = np.argsort(keys, kind="stable")  # fast, because the keys consist of long sorted runs
    keys, gains = keys[order], gains[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(len(keys), 1), dtype=bool), keys[1:] != keys[:-1]]))
    least = np.minimum.reduceat(gains, first) if len(first) else gains
    return UserBatch(
        vectors=vectors, targets=targets, gain_items=keys[first] // rows, gain_users=keys[first] % rows, gains=least
    )


def exchange(mine: Iterable[Tensor], num_users: int, batch_size: int) -> Iterator[Tensor]:
    """Yield the vectors [B, D] of all users, a batch at a time in order, on every rank. A collective.

    Args:
        mine: on rank w the vectors of batches w, w + W, w + 2W, ...; [0, D] after the last batch, so that every rank
            has the same number of them.
        num_users: n.
        batch_size: users of each batch but the last.
    """
    first = 0
    for vectors in mine:
        for batch in _gather(vectors, batch_size):
            size = min(batch_size, num_users - first)
            if size > 0:
                yield batch[:size]
            first += size


def _gather(mine: Tensor, max_rows: int) -> list[Tensor]:
    """Return the rows of every rank, in the order of ranks, each padded to `max_rows`."""
    if num_ranks() == 1:
        return [mine]
    padded = mine.new_zeros(max_rows, *mine.shape[1:])
    padded[: len(mine)] = mine
    return gather_equal(padded)
