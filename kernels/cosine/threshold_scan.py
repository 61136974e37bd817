"""The compiled scan that adds scores to candidate lists and raises the lists' thresholds.

A list belongs to a row. An item is added if its approximate score is at least the row's threshold. Once a list holds
H scores, its threshold is the H-th best of them minus the row's margin. The threshold only rises. From time to time a
list is compacted: entries below the threshold are dropped. If that frees no place, because there are more near-ties
than places, the row is marked as overflowed and its list is unusable. Otherwise the list holds every scanned item
whose score is at or above the final threshold, in any order.

The functions are compiled, use one thread, and release the interpreter lock. `kernels/cuda/threshold_scan.cu` does
the same on a GPU.
Legend: n rows with a list, C places of a list, q x b scores of a tile, H requested neighbours.
"""

from __future__ import annotations

import numba
import numpy as np

# A list is compacted each time it has grown by this many entries beyond H. This keeps thresholds close to final.
COMPACT_EVERY = 16
# Scores that are compared with their thresholds at a time. They are looked at one by one only if any reaches its own.
_LANES = 32


@numba.njit(nogil=True, cache=True)
def scan_diagonal(scores, lists, first, first_id, num_best):  # type: ignore[no-untyped-def]
    """Offer the scores of a range of items with itself to the lists first..first+q-1.

    Args:
        scores: float32 [q, q]; row r and column r are item first_id + r. The diagonal is overwritten, because no item
            is offered to its own list.
        lists: the candidate lists.
        first: number of the first row's list.
        first_id: position of the first row's item.
        num_best: H.
    """
    best = np.empty(num_best, dtype=np.float32)
    for r in range(len(scores)):
        scores[r, r] = -np.inf
    _seed_columns(scores, lists, first, num_best, best)  # the scores are symmetric: columns are rows
    no_thresholds = np.full(scores.shape[1], np.inf, dtype=np.float32)
    hits = np.empty(-(-scores.shape[1] // _LANES), dtype=np.int32)
    for r in range(len(scores)):
        row = first + r
        _mark_hits(scores[r], lists.threshold[row], no_thresholds, hits)
        for k in range(len(hits)):
            if hits[k]:
                for c in range(k * _LANES, min((k + 1) * _LANES, scores.shape[1])):
                    if scores[r, c] >= lists.threshold[row] and c != r:
                        _offer(lists, row, first_id + c, scores[r, c], num_best, best)


@numba.njit(nogil=True, cache=True)
def scan_both(scores, rows, first_row, first_row_id, columns, first_column, first_column_id, num_best):  # type: ignore[no-untyped-def]
    """Offer the scores of a tile to the lists of its rows and to the lists of its columns.

    Args:
        scores: float32 [q, b].
        rows: lists of the rows. `rows` and `columns` may be the same lists if the tile's ranges are disjoint.
        first_row: row r has the list rows[first_row + r].
        first_row_id: row r is item first_row_id + r.
        columns: lists of the columns.
        first_column: column c has the list columns[first_column + c].
        first_column_id: column c is item first_column_id + c.
        num_best: H.
    """
    best = np.empty(num_best, dtype=np.float32)
    _seed_rows(scores, rows, first_row, num_best, best)
    _seed_columns(scores, columns, first_column, num_best, best)
    thresholds = columns.threshold[first_column : first_column + scores.shape[1]]
    hits = np.empty(-(-scores.shape[1] // _LANES), dtype=np.int32)
    for r in range(scores.shape[0]):
        row = first_row + r
        threshold = rows.threshold[row]
        _mark_hits(scores[r], threshold, thresholds, hits)
        for k in range(len(hits)):
            if hits[k]:
                for c in range(k * _LANES, min((k + 1) * _LANES, scores.shape[1])):
                    score = scores[r, c]
                    if score >= threshold:
                        _offer(rows, row, first_column_id + c, score, num_best, best)
                        threshold = rows.threshold[row]
                    if score >= thresholds[c]:
                        _offer(columns, first_column + c, first_row_id + r, score, num_best, best)


@numba.njit(nogil=True, cache=True)
def _seed_rows(scores, lists, first, num_best, best):  # type: ignore[no-untyped-def]
    """Give a threshold to rows that have none yet, before the tile is offered.

    The tile's items are split into groups. The H-th best of the groups' maxima is at most the H-th best item. Without
    this step, a row without a threshold would take every score of the tile.
    """
    groups = _num_groups(num_best)
    if scores.shape[1] < groups:
        return
    whole = scores.shape[1] // groups * groups
    largest = np.empty(groups, dtype=np.float32)
    for r in range(scores.shape[0]):
        if lists.threshold[first + r] == -np.inf:
            largest[:] = scores[r, :groups]
            for begin in range(groups, whole, groups):
                _keep_larger(largest, scores[r, begin : begin + groups])
            _raise_threshold(lists, first + r, largest, groups, num_best, best)


@numba.njit(nogil=True, cache=True)
def _seed_columns(scores, lists, first, num_best, best):  # type: ignore[no-untyped-def]
    """Do the same as `_seed_rows` for the columns."""
    groups = _num_groups(num_best)
    if scores.shape[0] < groups or not (lists.threshold[first : first + scores.shape[1]] == -np.inf).any():
        return
    largest = scores[:groups].copy()
    for r in range(groups, scores.shape[0]):
        _keep_larger(largest[r % groups], scores[r])
    own = np.empty(groups, dtype=np.float32)
    for c in range(scores.shape[1]):
        if lists.threshold[first + c] == -np.inf:
            own[:] = largest[:, c]
            _raise_threshold(lists, first + c, own, groups, num_best, best)


@numba.njit(nogil=True, cache=True)
def _num_groups(num_best):  # type: ignore[no-untyped-def]
    return max(64, 4 * num_best)


@numba.njit(nogil=True, cache=True)
def _keep_larger(largest, others):  # type: ignore[no-untyped-def]
    for k in range(len(largest)):
        largest[k] = others[k] if others[k] > largest[k] else largest[k]


@numba.njit(nogil=True, cache=True)
def _mark_hits(scores, threshold, thresholds, hits):  # type: ignore[no-untyped-def]
    """Set hits[k] if any of the k-th _LANES scores of a row reaches the row's threshold or its column's threshold.

    This is a separate function without branches in its inner loop, so that it compiles to vector comparisons.
    """
    for k in range(len(hits)):
        part = scores[k * _LANES : (k + 1) * _LANES]
        part_thresholds = thresholds[k * _LANES : (k + 1) * _LANES]
        hit = np.int32(0)
        for c in range(len(part)):
            hit |= np.int32((part[c] >= threshold) | (part[c] >= part_thresholds[c]))
        hits[k] = hit


@numba.njit(nogil=True, cache=True)
def offer_entries(lists, offsets, ids, scores, num_best):  # type: ignore[no-untyped-def]
    """Offer entries offsets[i]..offsets[i+1] to list i, for all i.

    Args:
        lists: n lists.
        offsets: int64 [n+1].
        ids: int32, positions of items.
        scores: float32.
        num_best: H.
    """
    best = np.empty(num_best, dtype=np.float32)
    for row in range(len(offsets) - 1):
        for entry in range(offsets[row], offsets[row + 1]):
            if scores[entry] >= lists.threshold[row]:
                _offer(lists, row, ids[entry], scores[entry], num_best, best)


@numba.njit(nogil=True, cache=True)
def compact_lists(lists, num_best):  # type: ignore[no-untyped-def]
    """Raise every threshold as far as its list allows, and drop entries below it."""
    best = np.empty(num_best, dtype=np.float32)
    for row in range(len(lists.used)):
        _compact(lists, row, num_best, best)


@numba.njit(nogil=True, cache=True)
def _offer(lists, row, item, score, num_best, best):  # type: ignore[no-untyped-def]
    count = lists.used[row]
    if count > num_best and (count - num_best) % COMPACT_EVERY == 0:
        _compact(lists, row, num_best, best)
        if score < lists.threshold[row]:
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
    _raise_threshold(lists, row, scores, lists.used[row], num_best, best)
    threshold = lists.threshold[row]
    kept = 0
    for entry in range(lists.used[row]):
        if scores[entry] >= threshold:
            scores[kept], ids[kept] = scores[entry], ids[entry]
            kept += 1
    lists.used[row] = kept


@numba.njit(nogil=True, cache=True)
def _raise_threshold(lists, row, scores, count, num_best, best):  # type: ignore[no-untyped-def]
    """Raise a row's threshold to the H-th best of the first `count` scores minus the margin, if that is higher."""
    found = 0
    for entry in range(count):  # keep the H best so far in descending order, by insertion
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
        lists.threshold[row] = max(lists.threshold[row], best[num_best - 1] - lists.margin[row])
