"""What ranking wants of a tile of scores, taken in one pass while the tile is in cache.

A tile float32 [q, b] is q users' scores of the b consecutive items first .. first + b - 1. Some pairs of a user and an
item *gain* something first; one that gains -inf is hidden and takes no part. Compiled, one thread, without the
interpreter lock.

Legend: q users, b items, m pairs of these users that gain, K places of a list of the best.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def count_tile(scores, first, lines, targets, gain_items, gain_users, gains, counts):  # type: ignore[no-untyped-def]
    """Add to counts int64 [q, 3]: items above the user's line, others tied, and those of them before the target.

    Args:
        scores: float32 [q, b]; those that gain are overwritten.
        lines: float32 [q], each target's score, finite. targets: int64 [q], their items; never hidden.
        gain_items, gain_users: int64 [m], each pair once, by ascending item. gains: float32 [m], not NaN, not +inf.

    Returns whether all scores are finite; if not, the counts mean nothing.
    """
    hidden = add_gains(scores, first, gain_items, gain_users, gains)
    finite = 0
    for r in range(scores.shape[0]):
        above, least, numbers = _count_row(scores[r], lines[r])
        finite += numbers
        column = targets[r] - first
        tied, before = least - above, 0
        if column >= scores.shape[1]:
            before = tied
        elif column >= 0:
            tied -= 1
            if tied:
                before = _count_equal(scores[r, :column], lines[r])
        counts[r, 0] += above
        counts[r, 1] += tied
        counts[r, 2] += before
    return hidden >= 0 and finite + hidden == scores.size


@numba.njit(nogil=True, cache=True)
def offer_tile(scores, first, gain_items, gain_users, gains, best_scores, best_items):  # type: ignore[no-untyped-def]
    """Offer a tile to each user's list of the best, by score, then by smaller item.

    Args:
        scores, gain_items, gain_users, gains: as in `count_tile`.
        best_scores: float32 [q, K], best_items: int64 [q, K]: each row a heap with its worst entry first; empty places
            hold -inf and -1. Tiles must come by ascending items: an item never displaces one that it ties with.

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
    """Add what pairs of a tile gain, each in float32. Returns how many are hidden, -1 if one's score was not finite."""
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
def _count_row(scores, line):  # type: ignore[no-untyped-def]
    """How many scores are above the line, at or above it, and finite.

    A function of its own, without branches, and with counters cast back to 32 bits at every step: compiled to vector
    compares of as many scores at a time as fit. Numba's own sum of two int32 is an int64, which halves the speed.
    """
    above, least, finite = np.int32(0), np.int32(0), np.int32(0)
    for c in range(len(scores)):
        above = np.int32(above + np.int32(scores[c] > line))
        least = np.int32(least + np.int32(scores[c] >= line))
        finite = np.int32(finite + np.int32(abs(scores[c]) < np.inf))
    return np.int64(above), np.int64(least), np.int64(finite)


@numba.njit(nogil=True, cache=True)
def _count_equal(scores, line):  # type: ignore[no-untyped-def]
    equal = 0
    for c in range(len(scores)):
        equal += int(scores[c] == line)
    return equal


@numba.njit(nogil=True, cache=True)
def _replace_worst(scores, items, score, item):  # type: ignore[no-untyped-def]
    """Put an entry that beats the heap's first one in its place, and restore the order."""
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
