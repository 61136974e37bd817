"""Divides sequences into spans: windows with a target after each item, or prefix rows with one target each.

Shapes: U users, S requested spans, B targets.
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
    """S stretches of users' sequences.

    Span s sees the items at positions start .. end-1 of its user's sequence. From the state after each of its last
    `num_targets` items, the next item is predicted.

    Attributes:
        users: int64 [S].
        starts: int64 [S], >= 0.
        ends: int64 [S], start < end.
        num_targets: int64 [S], in 1 .. end - start.
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
        """Return users and positions of all targets, int64 [B] each: span after span, earlier targets first."""
        return np.repeat(self.users, self.num_targets), ragged_indices(
            self.ends - self.num_targets + 1, self.num_targets
        )


def spans_before(users: np.ndarray, positions: np.ndarray, max_length: int) -> Spans:
    """Return a span for each target (users, positions), int64 [B]: at most `max_length` items, and this target."""
    ends = np.asarray(positions, dtype=np.int64)
    return Spans(
        users=np.asarray(users, dtype=np.int64),
        starts=np.maximum(0, ends - max_length),
        ends=ends,
        num_targets=np.ones_like(ends),
    )


class TrainingSpans:
    """All spans of the training split, by number, computed on request. Every target is in exactly one span.

    "prefixes": a span for each target, with at most `max_length` items before it, as the paper's authors train.

    "windows": the first window of a user has the first `max_length` targets, which see all items before them. Each
    later window has the next max_length - floor(overlap * max_length) targets, and sees the `max_length` items before
    its last target. So in a sequence of at most max_length + 1 items, a target sees what its prefix row would see. In a
    longer sequence, it sees at least floor(overlap * max_length) + 1 items. The oldest item of a window has position 0.

    Args:
        data: the sequences.
        unit: "windows" or "prefixes".
        max_length: L.
        overlap: share of L by which windows overlap, in [0, 1).
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
            self._ends = np.cumsum((targets > 0) + later, dtype=np.int64)  # windows of each user and all before

    def __len__(self) -> int:
        if self.unit == "prefixes":
            return self.num_targets
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, index: np.ndarray) -> Spans:
        """Return the spans number `index`, int64 [S] in [0, len)."""
        if self.unit == "prefixes":
            return spans_before(*self._targets.locate(index), self._max_length)
        assert index.size == 0 or (index.min() >= 0 and index.max() < len(self)), "span outside the split"
        users = np.searchsorted(self._ends, index, side="right")  # skips users without a window
        number = index - np.where(users > 0, self._ends[users - 1], 0)
        done = np.where(number > 0, self._max_length + (number - 1) * self._stride, 0)
        size = np.where(number > 0, self._stride, self._max_length)
        ends = np.minimum(done + size, self._targets.per_user(users))
        return Spans(users=users, starts=np.maximum(0, ends - self._max_length), ends=ends, num_targets=ends - done)
