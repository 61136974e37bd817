"""Where training ends: leave-one-out per user, or one moment for everybody.

U users, E interactions; user u owns items[offsets[u]:offsets[u + 1]], oldest first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from contracts.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How sequences are cut into training, validation and test.

    Attributes:
        method: "leave-one-out" (last item tests, the one before validates; users with fewer than 3
            items only train) or "global-time" (one moment for all users).
        valid_from, test_from: global-time: timestamps at which validation and test start, inclusive,
            in the data's own unit.
        valid_fraction, test_fraction: global-time: the same moments as quantiles of time over all
            interactions, e.g. 0.8 and 0.9. Used where no timestamp is given.
    """

    method: Literal["leave-one-out", "global-time"] = "leave-one-out"
    valid_from: int | None = None
    test_from: int | None = None
    valid_fraction: float = 0.8
    test_fraction: float = 0.9

    def check(self) -> None:
        """Raises InputError where the parameters contradict each other."""
        if (self.valid_from is None) != (self.test_from is None):
            raise InputError("split global-time: give both --valid-from and --test-from, or neither")
        if self.valid_from is not None and self.test_from is not None and self.valid_from > self.test_from:
            raise InputError(
                f"split global-time: --valid-from {self.valid_from} lies after --test-from {self.test_from}; swap them"
            )
        if not 0 < self.valid_fraction <= self.test_fraction <= 1:
            raise InputError(
                f"split global-time: need 0 < --valid-fraction <= --test-fraction <= 1, "
                f"got {self.valid_fraction} and {self.test_fraction}"
            )

    def apply(
        self, offsets: np.ndarray, timestamps: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """train_end int64 [U], valid_end int64 [U], and what the manifest says of the split.

        Raises:
            InputError: contradictory parameters, or global-time without timestamps.
        """
        self.check()
        if self.method == "leave-one-out":
            train_end, valid_end = leave_one_out(offsets)
            return train_end, valid_end, {"method": self.method}
        if timestamps is None:
            raise InputError("split global-time: the data has no timestamps; use --split leave-one-out")
        valid_from, test_from = self.valid_from, self.test_from
        if valid_from is None or test_from is None:
            valid_from, test_from = time_quantiles(timestamps, self.valid_fraction, self.test_fraction)
        train_end, valid_end = global_time(offsets, timestamps, valid_from, test_from)
        if not train_end.any():
            raise InputError(
                f"split global-time: no interaction lies before {valid_from}, so nothing is left to train on; "
                f"timestamps go from {timestamps.min()} to {timestamps.max()}"
            )
        return train_end, valid_end, {**asdict(self), "valid_from": valid_from, "test_from": test_from}


def leave_one_out(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last item tests, the one before validates; users with fewer than 3 items only train.

    Args:
        offsets: int64 [U+1].

    Returns:
        train_end, valid_end: int64 [U].
    """
    lengths = np.diff(offsets)
    evaluated = lengths >= 3
    return np.where(evaluated, lengths - 2, lengths), np.where(evaluated, lengths - 1, lengths)


def global_time(
    offsets: np.ndarray, timestamps: np.ndarray, valid_from: int, test_from: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training is before `valid_from`, validation from there to before `test_from`, test the rest.

    Args:
        offsets: int64 [U+1].
        timestamps: int64 [E], ascending within a user.

    Returns:
        train_end, valid_end: int64 [U]; 0 for a user whose history starts later.
    """

    def count_before(moment: int) -> np.ndarray:
        running = np.zeros(len(timestamps) + 1, np.int64)
        np.cumsum(timestamps < moment, out=running[1:])
        return running[offsets[1:]] - running[offsets[:-1]]

    return count_before(valid_from), count_before(test_from)


def time_quantiles(timestamps: np.ndarray, valid_fraction: float, test_fraction: float) -> tuple[int, int]:
    """The moments before which (about) these shares of all interactions lie; ties fall after them."""
    num = len(timestamps)
    ranks = [min(int(np.floor(fraction * num)), num) for fraction in (valid_fraction, test_fraction)]
    inside = sorted({min(rank, num - 1) for rank in ranks})
    ordered = np.partition(timestamps, inside)
    # A fraction of 1 means "never": a moment after the last interaction.
    valid_from, test_from = (int(ordered[num - 1]) + 1 if rank == num else int(ordered[rank]) for rank in ranks)
    return valid_from, test_from
