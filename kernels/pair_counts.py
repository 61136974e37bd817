"""Counting which items occur together in a sequence, and how far apart (MDSRec Eq. 1).

O_ij = sum over users of 1 / |pos_i - pos_j| over all pairs of a user's training sequence. What is
counted is whole numbers per (i, j, gap), so any split of the users over tasks adds up to the same
counts, and the float sum over gaps is made once, in one order.

A triple (i, j, gap) is one int64 key, (i * N + j) * G + gap - 1, with N items and G the largest gap:
sorted keys are sorted by row, then column, then gap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Keys collected before they are reduced to distinct ones: 8 bytes each, and as much again to sort.
MAX_PENDING_KEYS = 1 << 22


def keys_fit(num_items: int, max_gap: int) -> bool:
    """Whether every (i, j, gap) has its own int64 key."""
    return num_items * num_items * max_gap < 2**63


def count_pairs(
    items: np.ndarray,
    offsets: np.ndarray,
    num_items: int,
    max_gap: int,
    xp: Any = np,
    max_pending: int = MAX_PENDING_KEYS,
) -> tuple[Any, Any]:
    """Distinct keys (int64, ascending) and their counts (int64), both directions of every pair.

    Args:
        items: int64 [T], the sequences one after the other, ids in [0, num_items).
        offsets: int64 [users+1], offsets[0] = 0: where each sequence begins.
        max_gap: G, pairs further apart than this are not counted.

    A pair of an item with itself is dropped: O has a zero diagonal. The loop is over gaps, and only
    the positions that still have a partner at that gap are kept, so the work is the number of pairs.
    """
    assert keys_fit(num_items, max_gap)
    items = xp.asarray(items, dtype=xp.int64)
    offsets = xp.asarray(offsets, dtype=xp.int64)
    following = xp.repeat(offsets[1:], (offsets[1:] - offsets[:-1]).tolist()) - xp.arange(len(items)) - 1
    active = xp.arange(len(items))
    done: list[tuple[Any, Any]] = []
    pending: list[Any] = []
    num_pending = 0
    for gap in range(1, max_gap + 1):
        active = active[following[active] >= gap]
        if not len(active):
            break
        left, right = items[active], items[active + gap]
        differ = left != right
        left, right = left[differ], right[differ]
        pending += [(left * num_items + right) * max_gap + (gap - 1), (right * num_items + left) * max_gap + (gap - 1)]
        num_pending += 2 * len(left)
        if num_pending > max_pending:
            done = [add_counts([*done, _distinct(pending, xp)], xp)]
            pending, num_pending = [], 0
    return add_counts([*done, _distinct(pending, xp)], xp)


def add_counts(parts: list[tuple[Any, Any]], xp: Any = np) -> tuple[Any, Any]:
    """Sums several (keys, counts): distinct keys int64 ascending, counts int64."""
    if len(parts) == 1:
        return parts[0]
    keys = xp.concatenate([part[0] for part in parts])
    counts = xp.concatenate([part[1] for part in parts])
    order = xp.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = xp.flatnonzero(xp.concatenate([xp.ones(min(len(keys), 1), dtype=bool), keys[1:] != keys[:-1]]))
    # Differences of running totals: exact for integers, and the same on both backends.
    totals = xp.concatenate([xp.zeros(1, dtype=xp.int64), xp.cumsum(counts)])
    ends = xp.concatenate([starts[1:], xp.full(min(len(keys), 1), len(keys), dtype=starts.dtype)])
    return keys[starts], totals[ends] - totals[starts]


def pair_weights(
    keys: np.ndarray, counts: np.ndarray, num_items: int, max_gap: int, distance_weighting: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows int64, columns int64 and weights float32 of O's entries, sorted by row, then column.

    A weight is the sum over gaps of count / gap (or of count, without distance weighting), added in
    float64 in ascending gap order and rounded once to float32. `keys` must be distinct and ascending.
    """
    pairs, gaps = np.divmod(keys, max_gap)
    terms = counts / (gaps + 1.0) if distance_weighting else counts.astype(np.float64)
    distinct, entry = np.unique(pairs, return_inverse=True)
    # bincount adds in array order, one by one: np.add.reduceat would pair terms up.
    weights = np.bincount(entry, weights=terms, minlength=len(distinct)).astype(np.float32)
    rows, columns = np.divmod(distinct, num_items)
    return rows, columns, weights


def _distinct(pending: list[Any], xp: Any) -> tuple[Any, Any]:
    if not pending:
        return xp.zeros(0, dtype=xp.int64), xp.zeros(0, dtype=xp.int64)
    keys, counts = xp.unique(xp.concatenate(pending), return_counts=True)
    return keys, counts.astype(xp.int64)
