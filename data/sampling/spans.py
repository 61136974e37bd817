"""What is trained at once of a user's sequence: windows with a target after each item, or one prefix row per target.

Shapes: U users, S spans asked for, B targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.ragged import ragged_indices
from data.sequences import SequenceArrays, Targets

Unit = Literal["windows", "prefixes"]


@dataclass(frozen=True, kw_only=True)
class Spans:
    """S stretches of users' sequences. Span s sees the items at positions start .. end-1 of its user's
    sequence; its last `num_targets` items predict each the item after it.

    Attributes:
        users, starts, ends, num_targets: int64 [S]; 0 <= start < end, 1 <= num_targets <= end - start.
    """

    users: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    num_targets: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: np.ndarray) -> Spans:
        return Spans(
            users=self.users[index],
            starts=self.starts[index],
            ends=self.ends[index],
            num_targets=self.num_targets[index],
        )

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Users and positions of all targets, int64 [B] each: span after span, earlier targets first."""
        return np.repeat(self.users, self.num_targets), ragged_indices(
            self.ends - self.num_targets + 1, self.num_targets
        )


def spans_before(users: np.ndarray, positions: np.ndarray, max_length: int) -> Spans:
    """The up to `max_length` items before each target (users, positions), int64 [B], and that target alone."""
    ends = np.asarray(positions, dtype=np.int64)
    return Spans(
        users=np.asarray(users, dtype=np.int64),
        starts=np.maximum(0, ends - max_length),
        ends=ends,
        num_targets=np.ones_like(ends),
    )


class TrainingSpans:
    """All spans of the training split, by number, computed when asked for; every target is in exactly one.

    "prefixes": a span per target, of the up to `max_length` items before it, as the paper's authors train.

    "windows": the first window of a user has all targets that see the beginning of the sequence; each later
    one the next max_length - floor(overlap * max_length) targets, and sees `max_length` items up to its last.
    So a target sees what its prefix row would, wherever a sequence has at most max_length + 1 items; beyond,
    at least floor(overlap * max_length) + 1 items, and the window's oldest item has position 0.

    Args:
        data: the sequences.
        max_length: L.
        overlap: in [0, 1), of L.
    """

    def __init__(self, *, data: SequenceArrays, unit: Unit, max_length: int, overlap: float) -> None:
        assert 0 <= overlap < 1, overlap
        self.unit, self._max_length = unit, max_length
        self._targets = Targets(data, "train")
        self.num_targets = len(self._targets)
        self._stride = max_length - int(overlap * max_length)
        if unit == "windows":
            targets = self._targets.per_user()
            later = -(-np.maximum(0, targets - max_length) // self._stride)
            self._ends = np.cumsum((targets > 0) + later, dtype=np.int64)  # windows up to and with each user

    def __len__(self) -> int:
        if self.unit == "prefixes":
            return self.num_targets
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, index: np.ndarray) -> Spans:
        """Spans number `index`, int64 [S], in [0, len)."""
        if self.unit == "prefixes":
            return spans_before(*self._targets.locate(index), self._max_length)
        assert index.size == 0 or (index.min() >= 0 and index.max() < len(self)), "span outside the split"
        users = np.searchsorted(self._ends, index, side="right")  # skips users without a window
        number = index - np.where(users > 0, self._ends[users - 1], 0)
        done = np.where(number > 0, self._max_length + (number - 1) * self._stride, 0)
        size = np.where(number > 0, self._stride, self._max_length)
        ends = np.minimum(done + size, self._targets.per_user(users))
        return Spans(users=users, starts=np.maximum(0, ends - self._max_length), ends=ends, num_targets=ends - done)
