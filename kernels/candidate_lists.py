"""Lists of the items that may still be among a row's best, as arrays that the CPU and CUDA scans fill.

Legend: n rows with a list, C places of a list, H neighbours asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Places of a list beyond H: room for near-ties, and for what turns up between two compactions.
SPARE_PLACES = 32


class CandidateLists(NamedTuple):
    """One list per row: `used[i]` entries of `ids[i]` and `scores[i]`, positions of items and approximate scores."""

    line: np.ndarray  # float32 [n]: scores below it cannot matter; -inf until H are known
    slack: np.ndarray  # float32 [n]: distance of the line below the H-th best score
    used: np.ndarray  # int32 [n]: entries on the list
    ids: np.ndarray  # int32 [n, C]
    scores: np.ndarray  # float32 [n, C]
    overflowed: np.ndarray  # bool [n]

    @classmethod
    def empty(cls, slack: np.ndarray, num_best: int, line: np.ndarray | None = None) -> CandidateLists:
        """Empty lists for `num_best` = H; `line` carries over what earlier scans of other items have shown."""
        rows, places = len(slack), num_places(num_best)
        return cls(
            np.full(rows, -np.inf, dtype=np.float32) if line is None else line.astype(np.float32),
            slack.astype(np.float32),
            np.zeros(rows, dtype=np.int32),
            np.empty((rows, places), dtype=np.int32),
            np.empty((rows, places), dtype=np.float32),
            np.zeros(rows, dtype=np.bool_),
        )

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All entries, list after list: offsets int64 [n+1], ids int32, scores float32."""
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.used, dtype=np.int64)])
        used = np.arange(self.ids.shape[1]) < self.used[:, None]
        return offsets, self.ids[used], self.scores[used]


def num_places(num_best: int) -> int:
    """C for lists of the best `num_best`."""
    return num_best + SPARE_PLACES
