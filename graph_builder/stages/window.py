"""Split events into tasks, and compute the share of pairs outside the window, from the histories' lengths alone.

A history of n items has n - g pairs of positions g apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def event_bounds(lengths: np.ndarray, max_gap: int, pairs_per_task: int) -> np.ndarray:
    """Split events into ranges of about `pairs_per_task` pairs: int64 [tasks+1], positions in all histories together.

    Ranges end between users, except that a user with more than `pairs_per_task` pairs gets several ranges.
    """
    gaps = np.minimum(max_gap, np.maximum(lengths - 1, 0))
    pairs = gaps * lengths - gaps * (gaps + 1) // 2
    task = np.maximum(np.cumsum(pairs) - 1, 0) // pairs_per_task
    ends = np.cumsum(lengths)
    between = ends[np.flatnonzero(task[1:] != task[:-1])]
    large = np.flatnonzero(pairs > pairs_per_task)
    chunks = np.minimum(-(-pairs[large] // pairs_per_task), lengths[large])
    # Chunk 0, 1, ... of each large user, as numbers in one array.
    chunk = np.arange(chunks.sum()) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    within = np.repeat(ends[large] - lengths[large], chunks) + chunk * np.repeat(lengths[large], chunks) // np.repeat(
        chunks, chunks
    )
    inner = np.sort(np.concatenate([between, within]))
    total = int(lengths.sum())
    inner = inner[(inner > 0) & (inner < total)]
    inner = inner[np.diff(inner, prepend=0) > 0]
    return np.concatenate([[0], inner, [total]]).astype(np.int64)


def window_summary(lengths: np.ndarray, max_gap: int, distance_weighting: bool) -> dict[str, Any]:
    """Return the manifest's `pairs_beyond_window` and `window_mass_kept`; both count pairs of an item with itself."""
    of_length = np.bincount(lengths)
    # The number of histories longer than g is a sum of 1 over n > g; the number of pairs g apart, a sum of n - g.
    longer = np.cumsum(of_length[::-1])[::-1][1:]
    pairs = np.cumsum(longer[::-1])[::-1][1:]
    mass = pairs / np.arange(1, len(pairs) + 1) if distance_weighting else pairs.astype(np.float64)
    total = float(mass.sum())
    return {
        "pairs_beyond_window": int(pairs[max_gap:].sum()),
        "window_mass_kept": float(mass[:max_gap].sum()) / total if total else 1.0,
    }
