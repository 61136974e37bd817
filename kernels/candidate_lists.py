"""Candidate lists: for each row, the items that may still be among its best. The CPU and CUDA scans fill them.

Legend: n rows with a list, C places of a list, H requested neighbours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Places of a list in addition to H. They hold near-ties, and entries added between two compactions.
SPARE_PLACES = 32


class PackedLists(NamedTuple):
    """Lists without empty places. An overflowed list is unusable, so it has no entries."""

    threshold: np.ndarray  # float32 [n]
    margin: np.ndarray  # float32 [n]
    overflowed: np.ndarray  # bool [n]
    offsets: np.ndarray  # int64 [n+1]; list i has the entries offsets[i]..offsets[i+1]
    ids: np.ndarray  # int32
    scores: np.ndarray  # float32


class CandidateLists(NamedTuple):
    """One list per row. List i is the first `used[i]` entries of `ids[i]` and `scores[i]`."""

    # float32 [n]: an item with a lower score cannot be among the best H; -inf until H scores are known
    threshold: np.ndarray
    margin: np.ndarray  # float32 [n]: how far the threshold lies below the H-th best score
    used: np.ndarray  # int32 [n]: number of entries
    ids: np.ndarray  # int32 [n, C]: positions of items
    scores: np.ndarray  # float32 [n, C]: approximate scores
    overflowed: np.ndarray  # bool [n]: the list needed more than C places, so its entries are unusable

    @classmethod
    def empty(cls, margin: np.ndarray, num_best: int, threshold: np.ndarray | None = None) -> CandidateLists:
        """Return empty lists for H = `num_best`.

        Args:
            margin: float32 [n].
            num_best: H.
            threshold: float32 [n], thresholds that earlier scans of other items have reached; null: -inf.
        """
        rows, places = len(margin), num_places(num_best)
        return cls(
            np.full(rows, -np.inf, dtype=np.float32) if threshold is None else threshold.astype(np.float32),
            margin.astype(np.float32),
            np.zeros(rows, dtype=np.int32),
            np.empty((rows, places), dtype=np.int32),
            np.empty((rows, places), dtype=np.float32),
            np.zeros(rows, dtype=np.bool_),
        )

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all entries, list after list: offsets int64 [n+1], ids int32, scores float32."""
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.used, dtype=np.int64)])
        used = np.arange(self.ids.shape[1]) < self.used[:, None]
        return offsets, self.ids[used], self.scores[used]

    def packed(self, xp: Any = np) -> PackedLists:
        """Return the lists without empty places, as arrays of `xp` (the module of this object's arrays)."""
        lengths = xp.where(self.overflowed, 0, self.used)
        offsets = xp.zeros(len(lengths) + 1, dtype=xp.int64)
        offsets[1:] = xp.cumsum(lengths, dtype=xp.int64)
        held = xp.arange(self.ids.shape[1]) < lengths[:, None]
        return PackedLists(self.threshold, self.margin, self.overflowed, offsets, self.ids[held], self.scores[held])


def num_places(num_best: int) -> int:
    """Return C, the places of a list, for H = `num_best`."""
    return num_best + SPARE_PLACES
