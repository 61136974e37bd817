"""Dot products in float64 with a fixed order of additions: the same bits on CPUs, on GPUs and with any blocking.

The product of two float32 is exact in float64, so only the order of the additions matters. There are 32 lanes. Lane l
adds the products k = l, l + 32, l + 64, ... in this order. Then lane l adds lane l + 16, then lanes l + 8, l + 4,
l + 2 and l + 1. On a GPU a lane is a thread of a warp (`kernels/cuda/pair_dots.cu`). On a CPU the lanes fill vector
registers. The rounding error is far below that of adding one product after the other.
"""

from __future__ import annotations

import numba
import numpy as np

_LANES = 32


@numba.njit(nogil=True, cache=True)
def row_squares(rows):  # type: ignore[no-untyped-def]
    """Return the dot product of each row with itself, float64 [n], for float32 rows [n, d]."""
    squares = np.empty(len(rows), dtype=np.float64)
    lanes = np.empty(_LANES, dtype=np.float64)
    for i in range(len(rows)):
        squares[i] = _dot(rows[i], rows[i], lanes)
    return squares


@numba.njit(nogil=True, cache=True)
def pair_dots(left, left_index, right, right_index):  # type: ignore[no-untyped-def]
    """Return the dot products, float64 [p], of rows left[left_index[p]] and right[right_index[p]], float32 [*, d]."""
    dots = np.empty(len(left_index), dtype=np.float64)
    lanes = np.empty(_LANES, dtype=np.float64)
    for p in range(len(left_index)):
        dots[p] = _dot(left[left_index[p]], right[right_index[p]], lanes)
    return dots


@numba.njit(nogil=True, cache=True)
def offer_all(queries, keys, key_squares, first_id, ids, best):  # type: ignore[no-untyped-def]
    """Score every item for every query, and update the queries' lists of best items.

    A score is dot * |dot| / square, the ranking key of `cosine_topk`. Over all calls, items must come in ascending
    order of id.

    Args:
        queries: float32 [q, d].
        keys: float32 [b, d], the rows of items first_id, first_id + 1, ...
        key_squares: float64 [b]; an item with square 0 is missing and is skipped.
        first_id: id of the first item.
        ids: int64 [q, k], each list by descending score, then ascending id; empty places hold -1. Updated.
        best: float64 [q, k], the scores of `ids`; empty places hold -inf. Updated.
    """
    lanes = np.empty(_LANES, dtype=np.float64)
    last = best.shape[1] - 1
    for j in range(len(keys)):
        if key_squares[j] == 0:
            continue
        for i in range(len(queries)):
            dot = _dot(queries[i], keys[j], lanes)
            score = dot * abs(dot) / key_squares[j]
            if score > best[i, last]:  # an item with an equal score has a larger id
                place = last
                while place > 0 and best[i, place - 1] < score:
                    best[i, place], ids[i, place] = best[i, place - 1], ids[i, place - 1]
                    place -= 1
                best[i, place], ids[i, place] = score, first_id + j


@numba.njit(nogil=True, cache=True)
def select_best(offsets, candidates, candidate_keys, ids, keys):  # type: ignore[no-untyped-def]
    """Insert candidates offsets[i]..offsets[i+1] with their keys into list i, for every i.

    Args:
        offsets: int64 [n+1].
        candidates: int64 item ids, distinct within a list, in any order; negative ids are skipped.
        candidate_keys: float64, the ranking keys of `cosine_topk`.
        ids: int64 [n, k], updated; see `offer_all`.
        keys: float64 [n, k], updated; see `best` of `offer_all`.
    """
    for i in range(len(offsets) - 1):
        for entry in range(offsets[i], offsets[i + 1]):
            if candidates[entry] >= 0:
                _insert(ids[i], keys[i], candidates[entry], candidate_keys[entry])


@numba.njit(nogil=True, cache=True)
def insert_self(ids, keys, squares, queries):  # type: ignore[no-untyped-def]
    """Insert each query into its own list, ranked by its key s * s / s with s its square; skip queries with s = 0.

    Args:
        ids: int64 [n, k], updated; see `offer_all`.
        keys: float64 [n, k], updated.
        squares: float64 [n], of the queries.
        queries: int64 [n], item ids.
    """
    for i in range(len(queries)):
        if squares[i] > 0:
            _insert(ids[i], keys[i], queries[i], squares[i] * squares[i] / squares[i])


@numba.njit(nogil=True, cache=True)
def row_hashes(rows, index):  # type: ignore[no-untyped-def]
    """Return a 64-bit hash, uint64 [n], of each row rows[index[i]]. Equal rows have equal hashes; 0.0 equals -0.0."""
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
    """Return whether rows[left[p]] equals rows[right[p]], bool [p]."""
    equal = np.ones(len(left), dtype=np.bool_)
    for p in range(len(left)):
        for k in range(rows.shape[1]):
            if rows[left[p], k] != rows[right[p], k]:
                equal[p] = False
                break
    return equal


@numba.njit(nogil=True, cache=True)
def _insert(ids, keys, item, key):  # type: ignore[no-untyped-def]
    """Insert one candidate into one list, ordered by descending key, then ascending id; drop the list's last entry."""
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
