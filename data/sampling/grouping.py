"""Which sequences of a batch are padded together: few groups, and few pads."""

from __future__ import annotations

import numpy as np

# What another group costs, in padded positions: a group of its own is dozens of small operations more. A share of
# the batch, so that many groups are never worth it, and a floor for small batches.
_GROUP_SHARE = 0.01
_GROUP_FLOOR = 24


def group_by_length(lengths: np.ndarray, partial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order of the sequences, and the sizes of the groups that follow one another in it.

    Groups hold ranges of lengths that minimise the padded positions plus a price per group, by dynamic
    programming over the distinct lengths. Sequences that are asked for all their states, and those that
    are not, are never in one group.

    Args:
        lengths: int64 [S], >= 1.
        partial: bool [S], asked for fewer states than it has items.
    Returns:
        order: int64 [S], a permutation: whole sequences first, each part by ascending length, stable.
        sizes: int64 [groups], >= 1, summing to S.
    """
    order = np.lexsort((lengths, partial))
    price = max(_GROUP_FLOOR, _GROUP_SHARE * float(lengths.sum()))
    num_whole = len(lengths) - int(np.count_nonzero(partial))
    sizes = [_cut(lengths[order[part]], price) for part in (slice(0, num_whole), slice(num_whole, None))]
    return order, np.concatenate(sizes)


def _cut(ascending: np.ndarray, price: float) -> np.ndarray:
    """Sizes of the cheapest groups of sequences in ascending order of length."""
    distinct, counts = np.unique(ascending, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    cost, cut_before = np.zeros(len(distinct) + 1), np.zeros(len(distinct) + 1, dtype=np.int64)
    for last in range(1, len(distinct) + 1):
        candidates = cost[:last] + distinct[last - 1] * (below[last] - below[:last]) + price
        cut_before[last] = np.argmin(candidates)
        cost[last] = candidates[cut_before[last]]
    ends = []
    end = len(distinct)
    while end > 0:
        ends.append(below[end])
        end = int(cut_before[end])
    return np.diff(np.asarray([0, *ends[::-1]], dtype=np.int64))
