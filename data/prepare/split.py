"""Splits sequences into training, validation and test: leave-one-out per user, or by time for all users.

U users, E interactions; user u owns items[offsets[u]:offsets[u + 1]], oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contracts.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """The rule by which sequences are split into training, validation and test.

    Attributes:
        method: "leave-one-out": the last item is for testing and the one before for validation, but all items of users
            with fewer than 3 are for training. "global-time": the same times for all users.
        valid_from: for global-time, the timestamp at which validation starts, inclusive, in the unit of the data.
        test_from: for global-time, the timestamp at which testing starts, likewise.
        valid_fraction: for global-time without timestamps, the share of all interactions before validation starts.
        test_fraction: for global-time without timestamps, the share of all interactions before testing starts.
    """

    method: Literal["leave-one-out", "global-time"] = "leave-one-out"
    valid_from: int | None = None
    test_from: int | None = None
    valid_fraction: float = 0.8
    test_fraction: float = 0.9

    def check(self) -> None:
        """Raise InputError if the parameters contradict each other."""
        if (self.valid_from is None) != (self.test_from is None):
            raise InputError("split global-time: give both --valid-from and --test-from, or neither")
        if self.valid_from is not None and self.test_from is not None and self.valid_from > self.test_from:
            raise InputError(
                f"split global-time: --valid-from {self.valid_from} is after --test-from {self.test_from}; swap them"
            )
        if not 0 < self.valid_fraction <= self.test_fraction <= 1:
            raise InputError(
                f"split global-time: need 0 < --valid-fraction <= --test-fraction <= 1, "
                f"got {self.valid_fraction} and {self.test_fraction}"
            )


def leave_one_out(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split off each user's last item for testing and the one before for validation.

    All items of users with fewer than 3 are for training.

    Args:
        offsets: int64 [U+1].

    Returns:
        train_end and valid_end, int64 [U] each.
    """
    lengths = np.diff(offsets)
    evaluated = lengths >= 3
    return np.where(evaluated, lengths - 2, lengths), np.where(evaluated, lengths - 1, lengths)


def global_time(
    offsets: np.ndarray, timestamps: np.ndarray, valid_from: int, test_from: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split by time: training before `valid_from`, validation before `test_from`, the rest for testing.

    Args:
        offsets: int64 [U+1].
        timestamps: int64 [E], ascending within a user.
        valid_from: start of validation, inclusive.
        test_from: start of testing, inclusive.

    Returns:
        train_end and valid_end, int64 [U] each; 0 for a user whose sequence starts later.
    """

    def count_before(moment: int) -> np.ndarray:
        running = np.zeros(len(timestamps) + 1, np.int64)
        np.cumsum(timestamps < moment, out=running[1:])
        return running[offsets[1:]] - running[offsets[:-1]]

    return count_before(valid_from), count_before(test_from)


def time_quantiles(parts: Sequence[np.ndarray], valid_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Return the times before which about these shares of all interactions are; interactions at a time are after it.

    Args:
        parts: int64, each sorted; together all timestamps. If they are mapped, few of their pages are read.
        valid_fraction: share of all interactions before the first moment.
        test_fraction: share before the second moment.
    """
    num = sum(map(len, parts))
    ranks = [min(int(np.floor(fraction * num)), num) for fraction in (valid_fraction, test_fraction)]
    # A fraction of 1 means "never": a time after the last interaction.
    last = max(int(part[-1]) for part in parts if len(part))
    valid_from, test_from = (last + 1 if rank == num else _of_rank(parts, rank) for rank in ranks)
    return valid_from, test_from


def _of_rank(parts: Sequence[np.ndarray], rank: int) -> int:
    """Return the value that has index `rank` if all values are sorted, by bisection."""
    filled = [part for part in parts if len(part)]
    low, high = min(int(part[0]) for part in filled), max(int(part[-1]) for part in filled)
    while low < high:
        middle = (low + high) // 2
        if sum(int(np.searchsorted(part, middle, side="right")) for part in filled) > rank:
            high = middle
        else:
            low = middle + 1
    return low
