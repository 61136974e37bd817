"""Chooses the items that a mask replaces, as a pure function of seed, epoch, span and place.

So the choice is the same for any number of ranks and loader processes, and in a run that was stopped and continued.

Shapes: S spans, P items of all spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.sampling.order import splitmix

_WORD = 2**64 - 1
_STREAM = 0x4D41534B  # "MASK": makes these numbers differ from those that order the spans


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The rule by which items are masked.

    A share `last_share` of the spans has a mask at its last item only, as a ranking has. In the others, each item is
    masked with probability `ratio`; if none is, one of them is, each with the same probability.

    Attributes:
        ratio: in [0, 1); 0: one item of a span.
        last_share: in [0, 1].
        seed: the seed of the choices, together with the epoch.
    """

    ratio: float
    last_share: float
    seed: int

    def expected(self, lengths: np.ndarray) -> np.ndarray:
        """Return the expected number of masked items in spans of these lengths (>= 1), float64 of the same shape."""
        n = lengths.astype(np.float64)
        return self.last_share + (1 - self.last_share) * (n * self.ratio + (1 - self.ratio) ** n)

    def draw(self, numbers: np.ndarray, lengths: np.ndarray, epoch: int) -> np.ndarray:
        """Return which items are masked in an epoch, bool [P], one span after the other; at least one of each span.

        Args:
            numbers: int64 [S], the numbers of the spans.
            lengths: int64 [S], >= 1, their numbers of items.
            epoch: the epoch.
        """
        if not len(numbers):
            return np.empty(0, dtype=bool)
        key = splitmix(np.full(1, self.seed & _WORD, dtype=np.uint64) ^ np.uint64(_STREAM))
        key = splitmix(key ^ np.uint64(epoch & _WORD))
        of_spans = splitmix(key ^ numbers.astype(np.uint64))
        ends = np.cumsum(lengths)
        starts = ends - lengths
        place = np.arange(ends[-1]) - np.repeat(starts, lengths) + 1  # 0 is for the span itself
        chance = _uniform(np.repeat(of_spans, lengths) ^ place.astype(np.uint64))
        masked = chance < self.ratio
        masked |= chance == np.repeat(np.minimum.reduceat(chance, starts), lengths)
        only_last = _uniform(of_spans) < self.last_share
        masked[np.repeat(only_last, lengths)] = False
        masked[ends[only_last] - 1] = True
        return masked


def _uniform(keys: np.ndarray) -> np.ndarray:
    """Return a number in [0, 1) for each key, float64 of the same shape; uint64 -> float64."""
    return (splitmix(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53
