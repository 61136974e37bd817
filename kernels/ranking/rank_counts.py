"""Count ranks and keep the best items of a tile of scores, in one pass while the tile is in cache.

A tile is float32 [q, b]: the scores of q users for the b consecutive items first .. first + b - 1. To the scores of
some pairs of a user and an item a *gain* is added first. A pair whose gain is -inf is hidden: it is not ranked. The
functions are compiled, use one thread, and release the interpreter lock.

Legend: q users, b items, m pairs of these users with a gain, K places of a list of the best items, G groupings of the
items.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def count_tile(scores, first, target_scores, targets, gain_items, gain_users, gains, labels, own_labels, counts):  # type: ignore[no-untyped-def]
    """Count the tile's items that rank above each user's target or tie with it, and add them to `counts`.

    A grouping gives every item a label, and items with the same label are a group. The items of the target's own group
    are counted too. A tile whose items all have one label costs nothing more, another tile a second look at each row,
    which is in the first-level cache then.

    Args:
        scores: float32 [q, b]; scores of pairs with a gain are overwritten.
        first: id of the tile's first item.
        target_scores: float32 [q], the scores of the users' targets; finite.
        targets: int64 [q], the users' target items; never hidden.
        gain_items: int64 [m], ascending; each pair occurs once.
        gain_users: int64 [m].
        gains: float32 [m], neither NaN nor +inf.
        labels: int32 [G, b], the labels of the items in each grouping.
        own_labels: int32 [q, G], the labels of the targets.
        counts: int64 [q, 1 + G, 3]: items with a higher score than the target, other items with the same score, and
            those of the latter with a smaller id than the target. First among all items, then for each grouping among
            the items of the target's group.

    Returns whether all scores are finite. If not, the counts are meaningless.
    """
    hidden = add_gains(scores, first, gain_items, gain_users, gains)
    is_uniform = np.empty(len(labels), dtype=np.bool_)
    for g in range(len(labels)):
        is_uniform[g] = (labels[g] == labels[g, 0]).all()
    finite = 0
    for r in range(scores.shape[0]):
        above, least, numbers = _count_row(scores[r], target_scores[r])
        finite += numbers
        column = targets[r] - first
        tied, before = least - above, 0
        if column >= scores.shape[1]:
            before = tied
        elif column >= 0:
            tied -= 1
            if tied:
                before = _count_equal(scores[r, :column], target_scores[r])
        counts[r, 0, 0] += above
        counts[r, 0, 1] += tied
        counts[r, 0, 2] += before
        for g in range(len(labels)):
            own, of_group = own_labels[r, g], counts[r, 1 + g]
            if not is_uniform[g]:
                _add_group(scores[r], target_scores[r], labels[g], own, column, tied > 0, of_group)
            elif labels[g, 0] == own:
                of_group[0] += above
                of_group[1] += tied
                of_group[2] += before
    return hidden >= 0 and finite + hidden == scores.size


@numba.njit(nogil=True, cache=True)
def offer_tile(scores, first, gain_items, gain_users, gains, best_scores, best_items):  # type: ignore[no-untyped-def]
    """Update each user's list of the K best items with a tile. Higher scores come first; ties go to the smaller item.

    Tiles must come in ascending order of items, because an item never replaces an item with the same score.

    Args:
        scores: see `count_tile`.
        first: see `count_tile`.
        gain_items: see `count_tile`.
        gain_users: see `count_tile`.
        gains: see `count_tile`.
        best_scores: float32 [q, K], each row a heap with its worst entry first; empty places hold -inf.
        best_items: int64 [q, K], the items of `best_scores`; empty places hold -1.

    Returns whether all scores are finite.
    """
    hidden = add_gains(scores, first, gain_items, gain_users, gains)
    finite = 0
    for r in range(scores.shape[0]):
        above, _, numbers = _count_row(scores[r], best_scores[r, 0])
        finite += numbers
        if above:
            for c in range(scores.shape[1]):
                if scores[r, c] > best_scores[r, 0]:
                    _replace_worst(best_scores[r], best_items[r], scores[r, c], first + c)
    return hidden >= 0 and finite + hidden == scores.size


@numba.njit(nogil=True, cache=True)
def add_gains(scores, first, gain_items, gain_users, gains):  # type: ignore[no-untyped-def]
    """Add the gains of a tile's pairs, in float32. Return the number of hidden pairs, -1 if a score was not finite."""
    begin = np.searchsorted(gain_items, first)
    end = np.searchsorted(gain_items, first + scores.shape[1])
    finite, hidden = True, 0
    for at in range(begin, end):
        r, c = gain_users[at], gain_items[at] - first
        finite &= abs(scores[r, c]) < np.inf
        hidden += int(gains[at] == -np.inf)
        scores[r, c] += gains[at]
    return hidden if finite else -1


@numba.njit(nogil=True, cache=True)
def _count_row(scores, threshold):  # type: ignore[no-untyped-def]
    """Return how many scores are above the threshold, how many at or above it, and how many finite.

    This is a separate function without branches, so that it compiles to vector comparisons. Its counters are cast
    back to 32 bits at every step, because Numba's sum of two int32 is an int64, which halves the speed.
    """
    above, least, finite = np.int32(0), np.int32(0), np.int32(0)
    for c in range(len(scores)):
        above = np.int32(above + np.int32(scores[c] > threshold))
        least = np.int32(least + np.int32(scores[c] >= threshold))
        finite = np.int32(finite + np.int32(abs(scores[c]) < np.inf))
    return np.int64(above), np.int64(least), np.int64(finite)


@numba.njit(nogil=True, cache=True)
def _add_group(scores, threshold, labels, own, column, has_ties, counts):  # type: ignore[no-untyped-def]
    """Add the counts of one user's row among the items with the label `own`, where `column` is the target's column."""
    above = np.int32(0)
    for c in range(len(scores)):
        above = np.int32(above + np.int32((scores[c] > threshold) & (labels[c] == own)))
    counts[0] += above
    if has_ties:  # seldom
        for c in range(len(scores)):
            if scores[c] == threshold and labels[c] == own and c != column:
                counts[1] += 1
                counts[2] += int(c < column)


@numba.njit(nogil=True, cache=True)
def _count_equal(scores, value):  # type: ignore[no-untyped-def]
    equal = 0
    for c in range(len(scores)):
        equal += int(scores[c] == value)
    return equal


@numba.njit(nogil=True, cache=True)
def _replace_worst(scores, items, score, item):  # type: ignore[no-untyped-def]
    """Replace the heap's first entry by a better one, and restore the heap's order."""
    at = 0
    while 2 * at + 1 < len(scores):
        child = 2 * at + 1
        if child + 1 < len(scores) and _is_worse(scores, items, child + 1, child):
            child += 1
        if scores[child] > score or (scores[child] == score and items[child] < item):
            break
        scores[at], items[at] = scores[child], items[child]
        at = child
    scores[at], items[at] = score, item


@numba.njit(nogil=True, cache=True)
def _is_worse(scores, items, a, b):  # type: ignore[no-untyped-def]
    return scores[a] < scores[b] or (scores[a] == scores[b] and items[a] > items[b])
