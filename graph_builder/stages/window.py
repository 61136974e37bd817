"""What follows from the lengths of histories alone: how pairs are dealt out, and what a window leaves out.

A history of n items has n - g pairs of positions g apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def event_bounds(lengths: np.ndarray, max_gap: int, pairs_per_task: int) -> np.ndarray:
    """Events split into ranges of about `pairs_per_task` pairs: int64 [tasks+1], positions in all histories.

    Ranges end between users, but that a user with more pairs than that gets several ranges.
    """
    gaps = np.minimum(max_gap, np.maximum(lengths - 1, 0))
    pairs = gaps * lengths - gaps * (gaps + 1) // 2
    task = np.maximum(np.cumsum(pairs) - 1, 0) // pairs_per_task
    ends = np.cumsum(lengths)
    between = ends[np.flatnonzero(task[1:] != task[:-1])]
    large = np.flatnonzero(pairs > pairs_per_task)
    pieces = np.minimum(-(-pairs[large] // pairs_per_task), lengths[large])
    # Piece 0, 1, ... of each large user, as numbers in one array.
    piece = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    within = np.repeat(ends[large] - lengths[large], pieces) + piece * np.repeat(lengths[large], pieces) // np.repeat(
        pieces, pieces
    )
    inner = np.sort(np.concatenate([between, within]))
    total = int(lengths.sum())
    inner = inner[(inner > 0) & (inner < total)]
    inner = inner[np.diff(inner, prepend=0) > 0]
    return np.concatenate([[0], inner, [total]]).astype(np.int64)


def window_summary(lengths: np.ndarray, max_gap: int, distance_weighting: bool) -> dict[str, Any]:
    """`pairs_beyond_window` and `window_mass_kept` of the manifest, pairs of an item with itself included."""
    of_length = np.bincount(lengths)
    # Histories longer than g, and from those the pairs g apart: sums over all n > g of 1, and of n - g.
    longer = np.cumsum(of_length[::-1])[::-1][1:]
    pairs = np.cumsum(longer[::-1])[::-1][1:]
    mass = pairs / np.arange(1, len(pairs) + 1) if distance_weighting else pairs.astype(np.float64)
    total = float(mass.sum())
    return {
        "pairs_beyond_window": int(pairs[max_gap:].sum()),
        "window_mass_kept": float(mass[:max_gap].sum()) / total if total else 1.0,
    }
