"""Groups the sequences of a batch by length, so that there are few groups and little padding."""

from __future__ import annotations

import numpy as np

# The cost of a further group, as a number of padded positions, because a group takes dozens of small operations. It is
# a share of the batch, so that there are never many groups, with a minimum for small batches.
_GROUP_SHARE = 0.01
_GROUP_FLOOR = 24


def group_by_length(lengths: np.ndarray, partial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an order of the sequences, and the sizes of consecutive groups in it.

    Each group has a range of lengths. The ranges minimise the number of padded positions plus a cost per group, by
    dynamic programming over the distinct lengths. Sequences of which all states are requested are never in a group
    with others.

    Args:
        lengths: int64 [S], >= 1.
        partial: bool [S], whether fewer states are requested than the sequence has items.

    Returns:
        order: int64 [S], a permutation: first the sequences with all states, then the others, each by ascending length.
        sizes: int64 [groups], >= 1, with sum S.
    """
    order = np.lexsort((lengths, partial))
    price = max(_GROUP_FLOOR, _GROUP_SHARE * float(lengths.sum()))
    num_whole = len(lengths) - int(np.count_nonzero(partial))
    sizes = [_cut(lengths[order[part]], price) for part in (slice(0, num_whole), slice(num_whole, None))]
    return order, np.concatenate(sizes)


def _cut(ascending: np.ndarray, price: float) -> np.ndarray:
    """Return the sizes of the groups with the least cost, for sequences in ascending order of length."""
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
