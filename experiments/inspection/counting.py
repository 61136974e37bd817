"""Counts values block by block, so that quantiles of any number of values need little memory."""

from __future__ import annotations

import numpy as np

from experiments.inspection.facts import Spread

_PERCENTS = (25, 50, 75, 90, 99)
# Bits of a float64 that are cut off: the sign, the exponent and 6 bits of the fraction stay, so that the values of a
# bin differ by less than 2%, and whole numbers below 128 have a bin each.
_CUT_BITS = 46


class ValueCounts:
    """How often each value occurs. Memory: the number of distinct values.

    U users with E interactions have at most sqrt(2 E) distinct lengths, which is 45,000 for a billion interactions.
    """

    def __init__(self) -> None:
        self.values = np.zeros(0, np.int64)
        self.counts = np.zeros(0, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count a block of values, int64."""
        found, counts = np.unique(values, return_counts=True)
        merged, places = np.unique(np.concatenate([self.values, found]), return_inverse=True)
        total = np.zeros(len(merged), np.int64)
        np.add.at(total, places, np.concatenate([self.counts, counts]))
        self.values, self.counts = merged, total

    def spread(self) -> Spread:
        """Return the exact spread; at least one value was counted."""
        mean = float(self.values.astype(np.float64) @ self.counts / self.counts.sum())
        return _spread(self.values, self.counts, mean)


class MagnitudeCounts:
    """How often values of about the same size occur. Values are floats >= 0. Memory: 1 MiB."""

    def __init__(self) -> None:
        self.total = 0.0
        self.least, self.most = np.inf, 0.0
        self._counts = np.zeros(1 << (64 - _CUT_BITS - 1), np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count a block of values, float64."""
        if not len(values):
            return
        self._counts += np.bincount(values.view(np.int64) >> _CUT_BITS, minlength=len(self._counts))
        self.total += float(values.sum())
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))

    def spread(self) -> Spread | None:
        """Return the spread; its quantiles are too low by less than 2%. None: nothing was counted."""
        bins = np.flatnonzero(self._counts)
        if not len(bins):
            return None
        lowest = np.maximum((bins << _CUT_BITS).view(np.float64), self.least)
        counts = self._counts[bins]
        found = _spread(lowest, counts, self.total / float(counts.sum()))
        return Spread(**(vars(found) | {"least": self.least, "most": self.most}))


def spread_of(ascending: np.ndarray) -> Spread:
    """Return the exact spread of values in ascending order, at least one."""
    return _spread(ascending, None, float(ascending.mean(dtype=np.float64)))


def _spread(values: np.ndarray, counts: np.ndarray | None, mean: float) -> Spread:
    """Return the spread of ascending values with these counts; None: each value counts once."""
    ends = None if counts is None else np.cumsum(counts)
    total = len(values) if ends is None else int(ends[-1])
    ranks = [-(-total * percent // 100) - 1 for percent in _PERCENTS]  # the smallest value at or above the share
    rows = ranks if ends is None else np.searchsorted(ends, ranks, side="right")
    p25, median, p75, p90, p99 = (values[row].item() for row in rows)
    return Spread(
        least=values[0].item(), p25=p25, median=median, p75=p75, p90=p90, p99=p99, most=values[-1].item(), mean=mean
    )
