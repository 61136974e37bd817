"""Dot products whose every bit is defined, so that CPUs, GPUs and any blocking give the same.

The product of two float32 is exact in float64, so only the order of the additions matters: 32 lanes, lane
l adds the products k = l, l + 32, l + 64, ... in this order, then lane l adds lane l + 16, then l + 8,
+ 4, + 2, + 1. On a GPU a lane is a thread of a warp (`kernels/cuda/pair_dots.cu`); here they fill vector
registers. The error is far below that of a plain sum.
"""

from __future__ import annotations

import numba
import numpy as np

_LANES = 32


@numba.njit(nogil=True, cache=True)
def row_squares(rows):  # type: ignore[no-untyped-def]
    """Dot product of each row with itself, float64 [n], for float32 rows [n, d]."""
    squares = np.empty(len(rows), dtype=np.float64)
    lanes = np.empty(_LANES, dtype=np.float64)
    for i in range(len(rows)):
        squares[i] = _dot(rows[i], rows[i], lanes)
    return squares


@numba.njit(nogil=True, cache=True)
def pair_dots(left, left_index, right, right_index):  # type: ignore[no-untyped-def]
    """Dot products float64 [p] of rows left[left_index[p]] and right[right_index[p]], float32 [*, d]."""
    dots = np.empty(len(left_index), dtype=np.float64)
    lanes = np.empty(_LANES, dtype=np.float64)
    for p in range(len(left_index)):
        dots[p] = _dot(left[left_index[p]], right[right_index[p]], lanes)
    return dots


@numba.njit(nogil=True, cache=True)
def offer_all(queries, keys, key_squares, first_id, ids, best):  # type: ignore[no-untyped-def]
    """Score every key float32 [b, d] for every query float32 [q, d] and keep the best.

    Keys of the order are dot * |dot| / square (`cosine_topk`). `ids` int64 [q, k] and `best` float64
    [q, k] are kept descending, then by ascending id (empty: -1 and -inf). Keys must come in ascending
    order of id over all calls; one with square 0 is missing.
    """
    lanes = np.empty(_LANES, dtype=np.float64)
    last = best.shape[1] - 1
    for j in range(len(keys)):
        if key_squares[j] == 0:
            continue
        for i in range(len(queries)):
            dot = _dot(queries[i], keys[j], lanes)
            score = dot * abs(dot) / key_squares[j]
            if score > best[i, last]:  # an equal one has a larger id
                place = last
                while place > 0 and best[i, place - 1] < score:
                    best[i, place], ids[i, place] = best[i, place - 1], ids[i, place - 1]
                    place -= 1
                best[i, place], ids[i, place] = score, first_id + j


@numba.njit(nogil=True, cache=True)
def select_best(offsets, candidates, candidate_keys, ids, keys):  # type: ignore[no-untyped-def]
    """Insert candidates int64 offsets[i]..offsets[i+1] with their float64 keys into lists i (see `offer_all`).

    Candidates of one list are distinct and come in any order; a negative one is no candidate.
    """
    for i in range(len(offsets) - 1):
        for entry in range(offsets[i], offsets[i + 1]):
            if candidates[entry] >= 0:
                _insert(ids[i], keys[i], candidates[entry], candidate_keys[entry])


@numba.njit(nogil=True, cache=True)
def insert_self(ids, keys, squares, queries):  # type: ignore[no-untyped-def]
    """Insert each query int64 [n] into its own list, at the place of its key n * n / n; not where n is 0."""
    for i in range(len(queries)):
        if squares[i] > 0:
            _insert(ids[i], keys[i], queries[i], squares[i] * squares[i] / squares[i])


@numba.njit(nogil=True, cache=True)
def row_hashes(rows, index):  # type: ignore[no-untyped-def]
    """A 64-bit hash of each row of `index`, float32 [*, d]: equal rows have equal hashes (0.0 and -0.0 too)."""
    hashes = np.empty(len(index), dtype=np.uint64)
    value = np.empty(1, dtype=np.float32)
    for i in range(len(index)):
        code = np.uint64(0xCBF29CE484222325)
        for k in range(rows.shape[1]):
            value[0] = rows[index[i], k] + np.float32(0.0)
            code = (code ^ np.uint64(value.view(np.uint32)[0])) * np.uint64(0x100000001B3)
            code ^= code >> np.uint64(29)
        hashes[i] = code
    return hashes


@numba.njit(nogil=True, cache=True)
def rows_equal(rows, left, right):  # type: ignore[no-untyped-def]
    """Which pairs of rows are equal, bool [p]."""
    equal = np.ones(len(left), dtype=np.bool_)
    for p in range(len(left)):
        for k in range(rows.shape[1]):
            if rows[left[p], k] != rows[right[p], k]:
                equal[p] = False
                break
    return equal


@numba.njit(nogil=True, cache=True)
def _insert(ids, keys, item, key):  # type: ignore[no-untyped-def]
    """One candidate into one list: keys descending, then ids ascending, the last falls off."""
    place = len(ids) - 1
    if key < keys[place] or (key == keys[place] and item > ids[place] and ids[place] >= 0):
        return
    while place > 0 and (key > keys[place - 1] or (key == keys[place - 1] and item < ids[place - 1])):
        keys[place], ids[place] = keys[place - 1], ids[place - 1]
        place -= 1
    keys[place], ids[place] = key, item


@numba.njit(nogil=True, cache=True)
def _dot(left, right, lanes):  # type: ignore[no-untyped-def]
    lanes[:] = 0.0
    whole = len(left) // _LANES * _LANES
    for begin in range(0, whole, _LANES):
        x, y = left[begin : begin + _LANES], right[begin : begin + _LANES]
        for lane in range(_LANES):
            lanes[lane] += np.float64(x[lane]) * np.float64(y[lane])
    for k in range(whole, len(left)):
        lanes[k - whole] += np.float64(left[k]) * np.float64(right[k])
    width = _LANES // 2
    while width:
        for lane in range(width):
            lanes[lane] += lanes[lane + width]
        width //= 2
    return lanes[0]
