"""Lists of candidates that keep what may still be among the best, and the compiled scan that fills them.

A list belongs to a row and keeps every item whose approximate score is at least the row's line. Once a
list holds H scores its line is the H-th best of them minus the row's slack, and it only rises. Now
and then a list is compacted: entries below the line are dropped; if that leaves no room (more near-ties
than places) the row is marked as overflowed and its list is worth nothing. Otherwise every item that was
scanned and is at or above the final line is on the list, in any order.

Compiled, one thread, without the interpreter lock. `kernels/cuda/threshold_scan.cu` is the same for a GPU.
Legend: n rows with a list, C places of a list, q x b scores of a tile, H neighbours asked for.
"""

from __future__ import annotations

import numba
import numpy as np

# A list is compacted whenever this many entries are added to H: often enough for its line to be near final.
COMPACT_EVERY = 16
# Scores tested at a time before any of them is looked at.
_LANES = 32


@numba.njit(nogil=True, cache=True)
def scan_diagonal(scores, lists, first, first_id, num_best):  # type: ignore[no-untyped-def]
    """Offer scores float32 [q, q] of a range of items with itself to the lists first..first+q-1.

    Row and column r are item first_id + r. The diagonal of `scores` is overwritten: nobody is offered itself.
    """
    best = np.empty(num_best, dtype=np.float32)
    for r in range(len(scores)):
        scores[r, r] = -np.inf
    _seed_columns(scores, lists, first, num_best, best)  # the scores are symmetric: columns are rows
    no_lines = np.full(scores.shape[1], np.inf, dtype=np.float32)
    hits = np.empty(-(-scores.shape[1] // _LANES), dtype=np.int32)
    for r in range(len(scores)):
        row = first + r
        _mark_hits(scores[r], lists.line[row], no_lines, hits)
        for k in range(len(hits)):
            if hits[k]:
                for c in range(k * _LANES, min((k + 1) * _LANES, scores.shape[1])):
                    if scores[r, c] >= lists.line[row] and c != r:
                        _offer(lists, row, first_id + c, scores[r, c], num_best, best)


@numba.njit(nogil=True, cache=True)
def scan_both(scores, rows, first_row, first_row_id, columns, first_column, first_column_id, num_best):  # type: ignore[no-untyped-def]
    """Offer scores float32 [q, b] to the lists of their rows and to those of their columns.

    Args:
        rows, columns: lists; row r's is rows[first_row + r] and is offered item first_column_id + c,
            column c's is columns[first_column + c] and is offered item first_row_id + r. They may be
            the same lists, if the ranges are disjoint.
    """
    best = np.empty(num_best, dtype=np.float32)
    _seed_rows(scores, rows, first_row, num_best, best)
    _seed_columns(scores, columns, first_column, num_best, best)
    lines = columns.line[first_column : first_column + scores.shape[1]]
    hits = np.empty(-(-scores.shape[1] // _LANES), dtype=np.int32)
    for r in range(scores.shape[0]):
        row = first_row + r
        line = rows.line[row]
        _mark_hits(scores[r], line, lines, hits)
        for k in range(len(hits)):
            if hits[k]:
                for c in range(k * _LANES, min((k + 1) * _LANES, scores.shape[1])):
                    score = scores[r, c]
                    if score >= line:
                        _offer(rows, row, first_column_id + c, score, num_best, best)
                        line = rows.line[row]
                    if score >= lines[c]:
                        _offer(columns, first_column + c, first_row_id + r, score, num_best, best)


@numba.njit(nogil=True, cache=True)
def _seed_rows(scores, lists, first, num_best, best):  # type: ignore[no-untyped-def]
    """A line for rows that have none yet, before anything is offered.

    The items are dealt into groups; the H-th best of the groups' maxima is not above the H-th best item.
    Without this a row without a line would be offered a whole tile.
    """
    groups = _num_groups(num_best)
    if scores.shape[1] < groups:
        return
    whole = scores.shape[1] // groups * groups
    largest = np.empty(groups, dtype=np.float32)
    for r in range(scores.shape[0]):
        if lists.line[first + r] == -np.inf:
            largest[:] = scores[r, :groups]
            for begin in range(groups, whole, groups):
                _keep_larger(largest, scores[r, begin : begin + groups])
            _raise_line(lists, first + r, largest, groups, num_best, best)


@numba.njit(nogil=True, cache=True)
def _seed_columns(scores, lists, first, num_best, best):  # type: ignore[no-untyped-def]
    """`_seed_rows` for the columns."""
    groups = _num_groups(num_best)
    if scores.shape[0] < groups or not (lists.line[first : first + scores.shape[1]] == -np.inf).any():
        return
    largest = scores[:groups].copy()
    for r in range(groups, scores.shape[0]):
        _keep_larger(largest[r % groups], scores[r])
    own = np.empty(groups, dtype=np.float32)
    for c in range(scores.shape[1]):
        if lists.line[first + c] == -np.inf:
            own[:] = largest[:, c]
            _raise_line(lists, first + c, own, groups, num_best, best)


@numba.njit(nogil=True, cache=True)
def _num_groups(num_best):  # type: ignore[no-untyped-def]
    return max(64, 4 * num_best)


@numba.njit(nogil=True, cache=True)
def _keep_larger(largest, others):  # type: ignore[no-untyped-def]
    for k in range(len(largest)):
        largest[k] = others[k] if others[k] > largest[k] else largest[k]


@numba.njit(nogil=True, cache=True)
def _mark_hits(scores, line, lines, hits):  # type: ignore[no-untyped-def]
    """Which groups of _LANES scores of one row hold any at or above its line or the columns' lines.

    A function of its own, without branches in its inner loop: compiled to vector compares.
    """
    for k in range(len(hits)):
        part = scores[k * _LANES : (k + 1) * _LANES]
        part_lines = lines[k * _LANES : (k + 1) * _LANES]
        hit = np.int32(0)
        for c in range(len(part)):
            hit |= np.int32((part[c] >= line) | (part[c] >= part_lines[c]))
        hits[k] = hit


@numba.njit(nogil=True, cache=True)
def offer_entries(lists, offsets, ids, scores, num_best):  # type: ignore[no-untyped-def]
    """Offer entries offsets[i]..offsets[i+1] (int64 [n+1]) of ids int32 and scores float32 to list i, for all i."""
    best = np.empty(num_best, dtype=np.float32)
    for row in range(len(offsets) - 1):
        for entry in range(offsets[row], offsets[row + 1]):
            if scores[entry] >= lists.line[row]:
                _offer(lists, row, ids[entry], scores[entry], num_best, best)


@numba.njit(nogil=True, cache=True)
def compact_lists(lists, num_best):  # type: ignore[no-untyped-def]
    """Raise every line as far as its list allows and drop what is below it."""
    best = np.empty(num_best, dtype=np.float32)
    for row in range(len(lists.used)):
        _compact(lists, row, num_best, best)


@numba.njit(nogil=True, cache=True)
def _offer(lists, row, item, score, num_best, best):  # type: ignore[no-untyped-def]
    count = lists.used[row]
    if count > num_best and (count - num_best) % COMPACT_EVERY == 0:
        _compact(lists, row, num_best, best)
        if score < lists.line[row]:
            return
        count = lists.used[row]
        if count == lists.ids.shape[1]:
            lists.overflowed[row] = True
            return
    lists.ids[row, count] = item
    lists.scores[row, count] = score
    lists.used[row] = count + 1


@numba.njit(nogil=True, cache=True)
def _compact(lists, row, num_best, best):  # type: ignore[no-untyped-def]
    scores, ids = lists.scores[row], lists.ids[row]
    _raise_line(lists, row, scores, lists.used[row], num_best, best)
    line = lists.line[row]
    kept = 0
    for entry in range(lists.used[row]):
        if scores[entry] >= line:
            scores[kept], ids[kept] = scores[entry], ids[entry]
            kept += 1
    lists.used[row] = kept


@numba.njit(nogil=True, cache=True)
def _raise_line(lists, row, scores, count, num_best, best):  # type: ignore[no-untyped-def]
    """The line as high as `count` scores of different items allow."""
    found = 0
    for entry in range(count):  # the H best so far, descending, by insertion
        score = scores[entry]
        if found < num_best:
            place = found
            found += 1
        elif score > best[num_best - 1]:
            place = num_best - 1
        else:
            continue
        while place > 0 and best[place - 1] < score:
            best[place] = best[place - 1]
            place -= 1
        best[place] = score
    if found == num_best:
        lists.line[row] = max(lists.line[row], best[num_best - 1] - lists.slack[row])
