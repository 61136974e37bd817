"""Users to rank items for, encoded a batch on one rank and brought to all.

B: users of a batch, D: width of a concatenated vector, W: ranks, n: users in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(kw_only=True)
class UserBatch:
    """Encoded users of one batch, and what is added to the scores of some items for some of them.

    Attributes:
        vectors: [B, D].
        targets: int64 [B]; -1 where there is none.
        gain_items, gain_users: int64 [m], pairs of an item id and a row of the batch, each once, by ascending item.
        gains: float32 [m], what the score of a pair has more; -inf hides it.
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
    """A batch in which pairs of an item id and a row, int64 [s], gain float32 [s]; of equal pairs the least counts."""
    rows = max(len(targets), 1)
    keys = items * rows + users
    order = np.argsort(keys, kind="stable")  # fast where they come in long sorted runs, as they do
    keys, gains = keys[order], gains[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(len(keys), 1), dtype=bool), keys[1:] != keys[:-1]]))
    least = np.minimum.reduceat(gains, first) if len(first) else gains
    return UserBatch(
        vectors=vectors, targets=targets, gain_items=keys[first] // rows, gain_users=keys[first] % rows, gains=least
    )


def exchange(mine: Iterable[Tensor], num_users: int, batch_size: int) -> Iterator[Tensor]:
    """The vectors [B, D] of all n users, a batch at a time in order, on every rank. A collective.

    Args:
        mine: rank w's batches w, w + W, w + 2W, ... of `batch_size` users; [0, D] past the last, so that every rank
            brings equally many.
    """
    first = 0
    for vectors in mine:
        for piece in _gather(vectors, batch_size):
            size = min(batch_size, num_users - first)
            if size > 0:
                yield piece[:size]
            first += size


def _gather(mine: Tensor, max_rows: int) -> list[Tensor]:
    """Every rank's rows (at most max_rows, padded to them), by rank."""
    if dist.get_world_size() == 1:
        return [mine]
    padded = mine.new_zeros(max_rows, *mine.shape[1:])
    padded[: len(mine)] = mine
    pieces = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, padded)
    return pieces
