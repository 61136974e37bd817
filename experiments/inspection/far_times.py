"""Finds a first or last timestamp that is far from all others, such as 2038-01-19, which often means "no time"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_YEAR = 31_557_600  # seconds
_SHARE = 0.5  # of the time between all other timestamps
_LARGEST = 2**31 - 1  # seconds; the largest signed number of 32 bits


@dataclass(frozen=True, kw_only=True)
class FarTime:
    """The earliest or latest plausible timestamp, if it is far from all others: often one that means "no time".

    Attributes:
        value: the timestamp.
        count: how many interactions have it.
        nearest: the plausible timestamp next to it.
    """

    value: int
    count: int
    nearest: int


class FarTimes:
    """Counts the first and last of the timestamps in [first, last], and how near the others come. Memory: none.

    Args:
        first: the earliest plausible timestamp of the dataset.
        last: the latest one.
        per_second: units of the timestamps in a second.
    """

    def __init__(self, first: int, last: int, per_second: int) -> None:
        self._ends, self._counts, self._per_second = (first, last), [0, 0], per_second
        self._inner_first, self._inner_last = last, first  # of the timestamps between the ends, if there are any

    def add(self, times: np.ndarray) -> None:
        """Count a block of timestamps, int64; implausible ones may be among them."""
        first, last = self._ends
        inner = times[(times > first) & (times < last)]
        self._counts[0] += int((times == first).sum())
        self._counts[1] += int((times == last).sum())
        if len(inner):
            self._inner_first = min(self._inner_first, int(inner.min()))
            self._inner_last = max(self._inner_last, int(inner.max()))

    def found(self) -> tuple[FarTime, ...]:
        """Return the ends that are far from all others; none if there are fewer than three different timestamps."""
        low, high = self._inner_first, self._inner_last
        if low > high:
            return ()
        limit = max(_YEAR * self._per_second, _SHARE * (high - low))
        return tuple(
            FarTime(value=end, count=count, nearest=nearest)
            for end, count, nearest in zip(self._ends, self._counts, (low, high), strict=True)
            if abs(end - nearest) >= limit or end == _LARGEST * self._per_second
        )
