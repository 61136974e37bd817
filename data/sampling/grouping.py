"""Groups the sequences of a batch by length, so that there are few groups and little padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The rule by which sequences are grouped, which depends on what a group costs on the device that trains.

    Attributes:
        share: cost of a further group as a number of padded positions, as a share of the batch's positions. So there
            are never many groups.
        floor: the least cost of a further group, for small batches.
        joins: whether a group may have sequences of which all states are requested beside others. All states of such a
            group are computed if one of its sequences requests more than half of the places.
        multiple: group lengths are multiples of it, up to `longest`; 1: each is the length of a sequence.
        longest: largest length of a group; None: there is no limit, and `multiple` is 1.
    """

    share: float
    floor: float
    joins: bool = False
    multiple: int = 1
    longest: int | None = None

    def padded(self, lengths: np.ndarray) -> np.ndarray:
        """Return the length of a group whose longest sequence has this length, int64; of any shape."""
        if self.longest is None:
            return lengths
        return np.minimum(-(-lengths // self.multiple) * self.multiple, np.maximum(self.longest, lengths))


# On CPU a group takes dozens of small operators, which cost little beside the positions that they compute.
ON_CPU = Grouping(share=0.01, floor=24)
_MOST_LENGTHS = 8


def grouping_for(device_type: str, longest: int) -> Grouping:
    """Return the rule for a type of device, such as "cpu".

    A GPU launches about 150 kernels for a group, in the time in which it computes thousands of positions. So a batch of
    windows has one or two groups, and one of prefix rows, which has fifty times as many positions, has more. Lengths of
    groups are at most 8 different ones, each a multiple of 8 but the largest.

    Args:
        device_type: the type of the device that trains.
        longest: the largest number of items of a sequence.
    """
    if device_type == "cpu":
        return ON_CPU
    multiple = 8 * max(1, -(-longest // (8 * _MOST_LENGTHS)))
    return Grouping(share=0.0, floor=3000, joins=True, multiple=multiple, longest=longest)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of a batch.

    Attributes:
        order: int64 [S], a permutation of the sequences; groups are consecutive in it.
        sizes: int64 [groups], >= 1, with sum S.
        lengths: int64 [groups], the length that the sequences of a group are padded to.
        states: int64 [groups], the number of states that are computed of each sequence.
    """

    order: np.ndarray
    sizes: np.ndarray
    lengths: np.ndarray
    states: np.ndarray


def divide(lengths: np.ndarray, num_states: np.ndarray, masked: bool, grouping: Grouping) -> Groups:
    """Return the groups of a batch.

    Args:
        lengths: int64 [S], >= 1, numbers of items.
        num_states: int64 [S], >= 1, numbers of requested states, or of masks.
        masked: whether there are masks. Their number divides no groups, because only the last layer of a tower has
            fewer states with fewer masks.
        grouping: the rule.
    """
    partial = (num_states < lengths) & (not masked) & (not grouping.joins)
    padded = grouping.padded(lengths)
    order, sizes = group_by_length(padded, partial, grouping)
    firsts = np.cumsum(sizes) - sizes
    longest = np.maximum.reduceat(padded[order], firsts)
    states = np.maximum.reduceat(num_states[order], firsts)
    if grouping.joins:
        several = np.where(2 * states > longest, longest, np.minimum(grouping.padded(states), longest))
        states = np.where(states > 1, several, 1)
    return Groups(order=order, sizes=sizes, lengths=longest, states=states)


def group_by_length(
    lengths: np.ndarray, partial: np.ndarray, grouping: Grouping = ON_CPU
) -> tuple[np.ndarray, np.ndarray]:
    """Return an order of the sequences, and the sizes of consecutive groups in it.

    Each group has a range of lengths. The ranges minimise the number of padded positions plus a cost per group, by
    dynamic programming over the distinct lengths. Sequences of which all states are requested are never in a group
    with others.

    Args:
        lengths: int64 [S], >= 1.
        partial: bool [S], whether fewer states are requested than the sequence has items.
        grouping: the rule, of which the cost is used.

    Returns:
        order: int64 [S], a permutation: first the sequences with all states, then the others, each by ascending length.
        sizes: int64 [groups], >= 1, with sum S.
    """
    order = np.lexsort((lengths, partial))
    price = max(grouping.floor, grouping.share * float(lengths.sum()))
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
