"""Divides sequences into spans: windows with a target after each item, or prefix rows with one target each.

With `masks`, a span also sees the items that are predicted, except for those that a mask replaces.

Shapes: U users, S requested spans, B targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.ragged import offsets_of, ragged_indices
from data.sampling.masks import Masks
from data.sequences import SequenceArrays, Targets

Unit = Literal["windows", "prefixes"]


@dataclass(frozen=True, kw_only=True)
class Spans:
    """S stretches of users' sequences.

    Span s sees the items at positions start .. end-1 of its user's sequence. From the state after each of its last
    `num_targets` items, the next item is predicted. If the spans have masks, it sees the items that are not masked,
    and the `num_targets` masked items are predicted instead.

    Attributes:
        users: int64 [S].
        starts: int64 [S], >= 0.
        ends: int64 [S], start < end.
        num_targets: int64 [S], in 1 .. end - start.
        masked: bool [sum of end - start], for each item of each span, one span after the other, whether a mask replaces
            it; None: the spans have no masks.
    """

    users: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    num_targets: np.ndarray
    masked: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: np.ndarray) -> Spans:
        masked = self.masked
        if masked is not None:
            masked = masked[ragged_indices(offsets_of(self.lengths)[:-1][index], self.lengths[index])]
        return Spans(
            users=self.users[index],
            starts=self.starts[index],
            ends=self.ends[index],
            num_targets=self.num_targets[index],
            masked=masked,
        )

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Return users and positions of all targets, int64 [B] each: span after span, earlier targets first."""
        users = np.repeat(self.users, self.num_targets)
        if self.masked is not None:
            return users, ragged_indices(self.starts, self.lengths)[self.masked]
        return users, ragged_indices(self.ends - self.num_targets + 1, self.num_targets)


def spans_before(users: np.ndarray, positions: np.ndarray, max_length: int) -> Spans:
    """Return a span for each target (users, positions), int64 [B]: at most `max_length` items, and this target."""
    ends = np.asarray(positions, dtype=np.int64)
    return Spans(
        users=np.asarray(users, dtype=np.int64),
        starts=np.maximum(0, ends - max_length),
        ends=ends,
        num_targets=np.ones_like(ends),
    )


@dataclass(frozen=True, kw_only=True)
class SpanRange:
    """Consecutive training spans.

    Attributes:
        first: the number of the first span.
        size: how many spans there are.
        num_targets: how many targets they have; with masks, the expected number.
    """

    first: int
    size: int
    num_targets: float


class TrainingSpans:
    """All spans of the training split, by number, computed on request.

    Every item of a sequence but the first is a target of exactly one span, unless there are masks.

    "prefixes": a span for each target, with at most `max_length` items before it, as the paper's authors train.

    "windows": the first window of a user has the first `max_length` targets, which see all items before them. Each
    later window has the next max_length - floor(overlap * max_length) targets, and sees the `max_length` items before
    its last target. So in a sequence of at most max_length + 1 items, a target sees what its prefix row would see. In a
    longer sequence, it sees at least floor(overlap * max_length) + 1 items. The oldest item of a window has position 0.

    `masks`: each window or prefix row also has the item after its last one, so it has at most max_length + 1 items. In
    every epoch, other items of it are masked, and these are its targets.

    Args:
        data: the sequences.
        unit: "windows" or "prefixes".
        max_length: L.
        overlap: share of L by which windows overlap, in [0, 1).
        masks: chooses the items of each span that are masked; None: there are no masks.

    Attributes:
        num_targets: number of targets in an epoch; with masks, the expected number.
    """

    def __init__(
        self, *, data: SequenceArrays, unit: Unit, max_length: int, overlap: float, masks: Masks | None = None
    ) -> None:
        assert 0 <= overlap < 1, overlap
        self.unit, self._max_length = unit, max_length
        self._masks = masks
        self._targets = Targets(data, "train")
        self.num_targets: float = len(self._targets)
        self._stride = max_length - int(overlap * max_length)
        if unit == "windows":
            targets = self._targets.per_user()
            later = -(-np.maximum(0, targets - max_length) // self._stride)
            self._ends = np.cumsum((targets > 0) + later, dtype=np.int64)  # windows of each user and all before
        if masks is not None:
            self.num_targets = self.of_users(0, data.num_users).num_targets

    def __len__(self) -> int:
        if self.unit == "prefixes":
            return len(self._targets)
        return int(self._ends[-1]) if len(self._ends) else 0

    def of_users(self, first: int, stop: int) -> SpanRange:
        """Return the spans of users first .. stop - 1, whose numbers are consecutive."""
        begin, end = (self._before(user) for user in (first, stop))
        targets: float = self._targets.before(stop) - self._targets.before(first)
        if self._masks is not None:
            counts = self._count_by_length(np.arange(first, stop), end - begin)
            targets = float(counts @ self._masks.expected(np.arange(self._max_length + 1) + 1))
        return SpanRange(first=begin, size=end - begin, num_targets=targets)

    def _before(self, user: int) -> int:
        """Return the number of spans of all users before `user`, which is in [0, U]."""
        if self.unit == "prefixes":
            return self._targets.before(user)
        return int(self._ends[user - 1]) if user else 0

    def locate(self, index: np.ndarray, epoch: int = 0) -> Spans:
        """Return the spans number `index`, int64 [S] in [0, len), with the masks of an epoch if there are masks."""
        spans = self._unmasked(index)
        if self._masks is None:
            return spans
        ends = spans.ends + 1
        masked = self._masks.draw(index, ends - spans.starts, epoch)
        starts = np.cumsum(ends - spans.starts) - (ends - spans.starts)
        num_targets = np.add.reduceat(masked, starts, dtype=np.int64) if len(index) else spans.num_targets
        return Spans(users=spans.users, starts=spans.starts, ends=ends, num_targets=num_targets, masked=masked)

    def _unmasked(self, index: np.ndarray) -> Spans:
        """Return the spans number `index` without masks, which do not see the item after their last one."""
        if self.unit == "prefixes":
            return spans_before(*self._targets.locate(index), self._max_length)
        assert index.size == 0 or (index.min() >= 0 and index.max() < len(self)), "span outside the split"
        users = np.searchsorted(self._ends, index, side="right")  # skips users without a window
        number = index - np.where(users > 0, self._ends[users - 1], 0)
        done = np.where(number > 0, self._max_length + (number - 1) * self._stride, 0)
        size = np.where(number > 0, self._stride, self._max_length)
        ends = np.minimum(done + size, self._targets.per_user(users))
        return Spans(users=users, starts=np.maximum(0, ends - self._max_length), ends=ends, num_targets=ends - done)

    def _count_by_length(self, of_users: np.ndarray, num_spans: int) -> np.ndarray:
        """Return how many of these users' spans see n items without masks, for n = 0 .. max_length, int64 [L + 1]."""
        targets = self._targets.per_user(of_users)
        users = np.bincount(np.minimum(targets, self._max_length), minlength=self._max_length + 1)
        users[0] = 0
        if self.unit == "windows":  # every later window of a user sees max_length items
            users[-1] += num_spans - users.sum()
            return users
        counts = users[::-1].cumsum()[::-1]  # a user with n targets has prefix rows of 1 .. n items
        counts[0] = 0
        counts[-1] = np.maximum(0, targets - self._max_length + 1).sum()
        return counts
