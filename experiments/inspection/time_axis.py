"""Tells the unit of timestamps, and counts interactions by day, month or year.

A unit that the manifest does not state is told by the size of the numbers: a moment between 1980 and 2100 is a number
of ten digits in seconds, of thirteen in milliseconds, and so on, and these ranges do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from experiments.inspection.blocks import blocks
from experiments.inspection.facts import Bar
from experiments.inspection.far_times import FarTimes
from experiments.inspection.stated import stated

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
MAGNITUDES = (*PER_SECOND, "other")
_MOST_BARS = 62
_PARTS = 40  # bars without dates


def _seconds(moment: str) -> int:
    return int(np.datetime64(moment, "s").astype(np.int64))


_EARLY, _LATE = _seconds("1980"), _seconds("2100")
_FIRST_BAR, _LAST_BAR = _seconds("1900"), _seconds("2100")
# For each unit the first timestamp that is plausible and the first that is not any more, in one ascending row.
_BOUNDS = np.array([limit * factor for factor in PER_SECOND.values() for limit in (_EARLY, _LATE)])


@dataclass(kw_only=True)
class TimeAxis:
    """The periods of a dataset's time, and the interactions that were counted in each; `TimeFacts` explains the rest.

    Attributes:
        edges: int64 [B+1], the timestamps at which the periods begin, and the end of the last.
        labels: the names of the B periods.
        counts: int64 [B+2], interactions before the first, in each, and after the last.
        far: finds timestamps that are far from all others; None: no timestamp is plausible in the unit.
    """

    unit: str | None
    is_stated: bool
    first: int
    last: int
    last_training: int | None
    by_magnitude: np.ndarray
    period: str
    edges: np.ndarray
    labels: list[str]
    counts: np.ndarray
    far: FarTimes | None

    def add(self, times: np.ndarray) -> None:
        """Count the interactions of a block."""
        self.counts += np.bincount(np.searchsorted(self.edges, times, side="right"), minlength=len(self.counts))
        if self.far is not None:
            self.far.add(times)

    def bars(self) -> tuple[Bar, ...]:
        return tuple(
            Bar(label=label, count=int(count)) for label, count in zip(self.labels, self.counts[1:-1], strict=True)
        )

    @property
    def num_outside(self) -> int:
        return int(self.counts[0] + self.counts[-1])


def time_axis(data: Dataset, size: int) -> TimeAxis | None:
    """Return the axis for a dataset's timestamps, without counts; None: the dataset has no timestamps."""
    if data.timestamps is None:
        return None
    firsts, lasts, trained = [], [], []
    for begin in range(0, data.num_users, size):
        offsets = data.offsets[begin : begin + size + 1]
        ends = data.train_end[begin : begin + size]
        # Times ascend within a user.
        firsts.append(data.timestamps[offsets[:-1]].min())
        lasts.append(data.timestamps[offsets[1:] - 1].max())
        trained += [data.timestamps[(offsets[:-1] + ends - 1)[ends > 0]].max()] if ends.any() else []
    first, last = int(min(firsts)), int(max(lasts))
    by_magnitude, ranges = _by_magnitude(data, first, last, size)
    unit = stated(data.manifest, "source").get("timestamp_unit")
    is_stated = isinstance(unit, str) and unit in PER_SECOND
    if not is_stated:
        most = int(by_magnitude.argmax())
        is_clear = MAGNITUDES[most] != "other" and 2 * by_magnitude[most] > data.num_interactions
        unit = MAGNITUDES[most] if is_clear else None
    begin, end = first, last
    if unit in ranges:
        count = by_magnitude[MAGNITUDES.index(unit)]
        # Placeholders, or times in another unit, would stretch the picture so that nothing is seen.
        if 2 * count > data.num_interactions:
            begin, end = ranges[unit]
    period, edges, labels = _periods(begin, end, unit)
    return TimeAxis(
        unit=unit,
        is_stated=is_stated,
        first=first,
        last=last,
        last_training=int(max(trained)) if trained else None,
        by_magnitude=by_magnitude,
        period=period,
        edges=edges,
        labels=labels,
        counts=np.zeros(len(edges) + 1, np.int64),
        far=FarTimes(*ranges[unit], PER_SECOND[unit]) if unit in ranges else None,
    )


def _by_magnitude(data: Dataset, first: int, last: int, size: int) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """Return how many timestamps fit each of `MAGNITUDES`, int64 [5], and the first and last that fit each unit."""
    assert data.timestamps is not None
    num = len(_BOUNDS) + 1
    counts, limits = np.zeros(num, np.int64), np.iinfo(np.int64)
    lows, highs = np.full(num, limits.max), np.full(num, limits.min)
    ends = np.searchsorted(_BOUNDS, [first, last], side="right")
    if ends[0] == ends[1]:  # no need to read them
        counts[ends[0]], lows[ends[0]], highs[ends[0]] = data.num_interactions, first, last
    else:
        for block in blocks(data.offsets, size):
            times = data.timestamps[block.start : block.stop]
            kinds = np.searchsorted(_BOUNDS, times, side="right")
            counts += np.bincount(kinds, minlength=num)
            np.minimum.at(lows, kinds, times)
            np.maximum.at(highs, kinds, times)
    ranges = {
        unit: (int(lows[kind]), int(highs[kind]))
        for kind, unit in zip(range(1, num, 2), PER_SECOND, strict=True)
        if counts[kind]
    }
    return np.append(counts[1::2], counts[::2].sum()), ranges


def _periods(first: int, last: int, unit: str | None) -> tuple[str, np.ndarray, list[str]]:
    """Return the kind of period, the edges in the unit, and the labels."""
    if unit is not None:
        factor = PER_SECOND[unit]
        begin, end = max(first // factor, _FIRST_BAR), min(last // factor, _LAST_BAR - 1)
        if begin <= end:
            for period, code in (("day", "D"), ("month", "M"), ("year", "Y")):
                low, high = (np.datetime64(moment, "s").astype(f"datetime64[{code}]") for moment in (begin, end))
                starts = np.arange(low, high + 2)
                if len(starts) - 1 <= _MOST_BARS or code == "Y":
                    edges = starts.astype("datetime64[s]").astype(np.int64) * factor
                    return period, edges, [str(start) for start in starts[:-1]]
    # Python's numbers, since the range may exceed int64.
    step = max(1, -(-(last - first + 1) // _PARTS))
    lows = list(range(first, last + 1, step))
    return "part", np.array([*lows, min(lows[-1] + step, np.iinfo(np.int64).max)]), [str(low) for low in lows]
