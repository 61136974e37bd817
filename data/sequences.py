"""Finds the targets of a split, and the histories before them, in the CSR arrays of sequences.

A *target* is a pair (user, position). It is the item at this 0-based position of the user's whole sequence, which is
predicted from the items before it. Shapes: U users, E interactions, B requested targets, L history positions.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from contracts.rows import Rows
from data.ragged import ragged_indices

# Number of interactions that are processed at a time.
_BLOCK = 1 << 20

Split = Literal["train", "valid", "test", "next"]


class SequenceArrays(Protocol):
    """Every user's sequence, oldest first, and the ends of its splits (implemented by `data.dataset.Dataset`).

    The sequence of user u is items[offsets[u]:offsets[u+1]]. Its first train_end[u] items are for training, the items
    from there to valid_end[u] for validation, the rest for testing.
    """

    @property
    def num_items(self) -> int:
        """The number of items N; items are 0..N-1."""
        ...

    @property
    def num_users(self) -> int:
        """The number of users U; users are 0..U-1."""
        ...

    @property
    def offsets(self) -> np.ndarray:
        """The start of each user's sequence in `items`, int64 [U+1]."""
        ...

    @property
    def items(self) -> Rows:
        """The items of all sequences, int64 [E], in memory or memory-mapped."""
        ...

    @property
    def train_end(self) -> np.ndarray:
        """The position after each user's last training item, int64 [U]."""
        ...

    @property
    def valid_end(self) -> np.ndarray:
        """The position after each user's last validation item, int64 [U]."""
        ...


class Targets:
    """All targets of a split, in order of user and position, stored as two int64 arrays over users.

    These are the positions of a user's targets, where n is the length of the sequence. Position 0 is never a target,
    because it has no history.
        train: 1 .. train_end-1
        valid: max(1, train_end) .. valid_end-1
        test:  max(1, valid_end) .. n-1
        next:  n, the position to recommend for, which has no item yet; none for users without interactions.
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
        self._ends = np.cumsum(np.maximum(0, stop - self._first), dtype=np.int64)  # targets of each user and all before

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def per_user(self, users: np.ndarray | None = None) -> np.ndarray:
        """Return the number of targets of each of these users (None: of all users), int64."""
        if users is None:
            return np.diff(self._ends, prepend=0)
        return self._ends[users] - np.where(users > 0, self._ends[users - 1], 0)

    def before(self, user: int) -> int:
        """Return the number of targets of all users before `user`, which is in [0, U]."""
        return int(self._ends[user - 1]) if user else 0

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return users and positions (>= 1), int64 [B] each, of the targets number `index`, int64 [B] in [0, len)."""
        assert index.size == 0 or (index.min() >= 0 and index.max() < len(self)), "target outside the split"
        users = np.searchsorted(self._ends, index, side="right")  # skips users without a target
        before = np.where(users > 0, self._ends[users - 1], 0)
        return users, self._first[users] + (index - before)


def repeats_history(data: SequenceArrays, users: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return whether the item at each position also occurs earlier in the user's sequence, bool [B].

    Memory: `_BLOCK` interactions, or those of one user if that user has more.

    Args:
        data: the sequences.
        users: int64 [B].
        positions: int64 [B]; 0 <= position < length of the user's sequence.
    """
    distinct, owner = np.unique(users, return_inverse=True)
    lengths = data.offsets[distinct + 1] - data.offsets[distinct]
    ends = np.cumsum(lengths)
    block = (ends - lengths) // _BLOCK  # users that begin in the same block of interactions are processed together
    found = np.zeros(len(users), dtype=bool)
    for number in np.unique(block):
        first, last = np.searchsorted(block, [number, number + 1])
        sizes = lengths[first:last]
        items = np.asarray(data.items[ragged_indices(data.offsets[distinct[first:last]], sizes)])
        owners = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((items, owners))  # stable, so equal items of a user stay in order of time
        same = (items[order][1:] == items[order][:-1]) & (owners[order][1:] == owners[order][:-1])
        repeated = np.zeros(len(items), dtype=bool)
        repeated[order[1:][same]] = True
        own = (owner >= first) & (owner < last)
        found[own] = repeated[(np.cumsum(sizes) - sizes)[owner[own] - first] + positions[own]]
    return found


def gather_histories(
    data: SequenceArrays, users: np.ndarray, positions: np.ndarray, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the latest items before each position, at most `max_length`, without the item at the position.

    Args:
        data: the sequences.
        users: int64 [B].
        positions: int64 [B]; 0 <= position <= length of the user's sequence.
        max_length: largest number of items.

    Returns:
        history: item ids int64 [B, L], oldest first, right-padded with 0; L is the length of the longest history, at
            least 1.
        lengths: int64 [B], number of items without padding; 0 only for position 0.
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
    """Return the item ids at the positions, int64 [B]; -1 for a position at the end of the sequence (split "next")."""
    where = data.offsets[users] + positions
    known = where < data.offsets[users + 1]
    items = np.full(len(users), -1, dtype=np.int64)
    items[known] = data.items[where[known]]
    return items
