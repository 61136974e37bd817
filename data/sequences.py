"""Targets of a split and the histories before them, straight from the CSR of sequences.

A *target* is (user, position): the item at a 0-based position of the user's whole sequence, predicted
from the items before it. Shapes: U users, E interactions, B targets asked for, L history positions.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from data.ragged import ragged_indices

# Interactions looked at together.
_BLOCK = 1 << 20

Split = Literal["train", "valid", "test", "next"]


class SequenceArrays(Protocol):
    """Every user's sequence, oldest first, and where its splits end (implemented by `data.dataset.Dataset`).

    The sequence of user u is items[offsets[u]:offsets[u+1]]; its first train_end[u] items train, those
    from there to valid_end[u] validate, the rest test.
    """

    @property
    def num_items(self) -> int:
        """N; items are 0..N-1."""
        ...

    @property
    def num_users(self) -> int:
        """U; users are 0..U-1."""
        ...

    @property
    def offsets(self) -> np.ndarray:
        """int64 [U+1]."""
        ...

    @property
    def items(self) -> np.ndarray:
        """int64 [E], in memory or memory-mapped."""
        ...

    @property
    def train_end(self) -> np.ndarray:
        """int64 [U], position after the last training item."""
        ...

    @property
    def valid_end(self) -> np.ndarray:
        """int64 [U], position after the last validation item."""
        ...


class Targets:
    """All targets of a split, in order of user and position, as two int64 arrays over users; no list of targets.

    Positions of a user's targets, with n the length of the sequence (position 0 has no history, so it
    is nobody's target):
        train: 1 .. train_end-1
        valid: max(1, train_end) .. valid_end-1
        test:  max(1, valid_end) .. n-1
        next:  n, what to recommend next: there is no target item. Users without interactions have none.
    """

    def __init__(self, data: SequenceArrays, split: Split) -> None:
        lengths = np.diff(data.offsets)
        bounds = {
            "train": (np.ones_like(lengths), data.train_end),
            "valid": (data.train_end, data.valid_end),
            "test": (data.valid_end, lengths),
            "next": (lengths, lengths + 1),
        }
        start, stop = bounds[split]
        self.split: Split = split
        self._first = np.maximum(1, np.asarray(start, dtype=np.int64))
        self._ends = np.cumsum(np.maximum(0, stop - self._first), dtype=np.int64)  # targets up to and with each user

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def per_user(self, users: np.ndarray | None = None) -> np.ndarray:
        """How many targets each of these users has, or each of all, int64."""
        if users is None:
            return np.diff(self._ends, prepend=0)
        return self._ends[users] - np.where(users > 0, self._ends[users - 1], 0)

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets number `index` (int64 [B], in [0, len)) as users int64 [B] and positions int64 [B], >= 1."""
        assert index.size == 0 or (index.min() >= 0 and index.max() < len(self)), "target outside the split"
        users = np.searchsorted(self._ends, index, side="right")  # skips users without a target
        before = np.where(users > 0, self._ends[users - 1], 0)
        return users, self._first[users] + (index - before)


def repeats_history(data: SequenceArrays, users: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Whether the item at each position is also somewhere before it in the user's sequence, bool [B].

    Args:
        users, positions: int64 [B]; 0 <= position < length of the user's sequence.
    Memory: the interactions of `_BLOCK` or of one user, whichever are more.
    """
    distinct, owner = np.unique(users, return_inverse=True)
    lengths = data.offsets[distinct + 1] - data.offsets[distinct]
    ends = np.cumsum(lengths)
    block = (ends - lengths) // _BLOCK  # users that begin in the same block of interactions are looked at together
    found = np.zeros(len(users), dtype=bool)
    for number in np.unique(block):
        first, last = np.searchsorted(block, [number, number + 1])
        sizes = lengths[first:last]
        items = np.asarray(data.items[ragged_indices(data.offsets[distinct[first:last]], sizes)])
        owners = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((items, owners))  # stable: equal items of a user stay in the order of time
        same = (items[order][1:] == items[order][:-1]) & (owners[order][1:] == owners[order][:-1])
        repeated = np.zeros(len(items), dtype=bool)
        repeated[order[1:][same]] = True
        own = (owner >= first) & (owner < last)
        found[own] = repeated[(np.cumsum(sizes) - sizes)[owner[own] - first] + positions[own]]
    return found


def gather_histories(
    data: SequenceArrays, users: np.ndarray, positions: np.ndarray, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The up to `max_length` items before each position, never the item at it.

    Args:
        users, positions: int64 [B]; 0 <= position <= length of the user's sequence.
    Returns:
        history: item ids int64 [B, L], oldest first, right-padded with 0; L is the longest of the
            batch, at least 1.
        lengths: int64 [B], how many are real; 0 only where the position is 0.
    """
    assert max_length >= 1, max_length
    lengths = np.minimum(positions, max_length)
    columns = np.arange(lengths.max(initial=1))
    real = columns < lengths[:, None]
    first = data.offsets[users] + positions - lengths
    history = np.zeros(real.shape, dtype=np.int64)
    history[real] = data.items[(first[:, None] + columns)[real]]
    return history, lengths


def target_items(data: SequenceArrays, users: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Item ids at the positions, int64 [B]; -1 where the position is the end of the sequence (split "next")."""
    where = data.offsets[users] + positions
    known = where < data.offsets[users + 1]
    items = np.full(len(users), -1, dtype=np.int64)
    items[known] = data.items[where[known]]
    return items
