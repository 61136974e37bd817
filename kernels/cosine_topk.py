"""Exact cosine top-H in blocks: float32 candidates, float64 decision, a proof per row.

The score that decides. With x_i the float32 rows, dots and squares n_i = |x_i|^2 in float64,

    key_ij = dot_ij * |dot_ij| / n_j          (the ranking of row i; equals n_i * sign * cosine^2)
    score_ij = sign(key_ij) * sqrt(|key_ij| / n_i)                       (what is stored, float32)

Keys descend, ties go to the smaller id. On whole-number rows dot^2 and n_j are exact, and division is
correctly rounded, so mathematically equal cosines tie exactly; dot / sqrt(n_j) would not do that. A dot
is a product and a sum along one contiguous row, so its bytes depend on the two rows alone: the result
does not depend on block size, block order or who computed which rows.

The proof. A float32 GEMM of unit rows is off by at most `rounding_bound(d)`, e. Each row keeps its C
largest approximations. Let a_H be the H-th of them: H items score at least a_H - e, so an item whose
approximation is below a_H - 2e scores below all of these. If the C-th kept is below that line, or
nothing was dropped, every dropped item is excluded: the row is certified, and only its candidates above
the line are scored in float64. Other rows (many near-ties) are scored against all items in float64.

Rows whose square is 0 are missing: never a neighbour, no neighbours.
Legend: q query rows, b key rows, N items, d width, H neighbours, C candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from configs.errors import InputError
from kernels.backend import to_host

# Candidates beyond H: room for near-ties before a row needs its fallback.
EXTRA_CANDIDATES = 32
# Float64 values of a gathered or multiplied array at a time.
_MAX_VALUES = 1 << 22


def square_norms(rows: Any, xp: Any = np) -> Any:
    """|x|^2 of each row, float64 [b].

    Raises:
        InputError: a row holds NaN or infinity.
    """
    wide = rows.astype(xp.float64)
    squares = (wide * wide).sum(axis=1)
    bad = ~xp.isfinite(squares)
    if bad.any():
        raise InputError(f"row {int(bad.argmax())}: holds NaN or infinity; cosine neighbours need finite features")
    return squares


def normalize_rows(rows: Any, xp: Any = np, squares: Any = None) -> Any:
    """Unit rows float32 [b, d]; zero rows stay zero. `squares` saves computing `square_norms` again.

    Raises:
        InputError: a row holds NaN or infinity (when `squares` is not given).
    """
    squares = square_norms(rows, xp) if squares is None else squares
    scale = xp.where(squares > 0, 1.0 / xp.sqrt(xp.where(squares > 0, squares, 1.0)), 0.0)
    return (rows.astype(xp.float64) * scale[:, None]).astype(xp.float32)


def rounding_bound(width: int) -> float:
    """Largest error of a float32 dot product of two rows of `normalize_rows`, in any order of summation.

    Rounding two unit rows costs 2u and the sum gamma_d = du/(1-du), u = 2^-24, times |x||y| = 1; one
    more u and the factor cover second-order terms, underflow, and the float64 error of the key.
    TF32 would break it: CuPy does not use it unless CUPY_TF32 asks for it.
    """
    assert width <= 1 << 16
    return (width + 3) * 2.0**-24 * 1.01


class TopK:
    """The best `count` (id, score) of each row seen so far: scores descending, then ids ascending.

    Empty places hold id -1 and score -inf. Merging is exact, so any order of merges gives the same.
    """

    def __init__(self, num_rows: int, count: int, dtype: Any, xp: Any = np) -> None:
        self.xp = xp
        self.count = count
        self.ids = xp.full((num_rows, count), -1, dtype=xp.int64)
        self.scores = xp.full((num_rows, count), -xp.inf, dtype=dtype)

    def merge(self, ids: Any, scores: Any) -> None:
        """Take in candidates: ids int64 [rows, any], scores [rows, any] of the same dtype."""
        xp = self.xp
        ids = xp.concatenate([self.ids, ids], axis=1)
        scores = xp.concatenate([self.scores, scores], axis=1)
        by_id = xp.argsort(ids, axis=1)
        ids, scores = xp.take_along_axis(ids, by_id, axis=1), xp.take_along_axis(scores, by_id, axis=1)
        best = xp.argsort(-scores, axis=1, kind="stable")[:, : self.count]  # stable: ties stay in id order
        self.ids, self.scores = xp.take_along_axis(ids, best, axis=1), xp.take_along_axis(scores, best, axis=1)


def block_candidates(
    query_units: Any, key_units: Any, first_query: int, first_key: int, key_present: Any, count: int, xp: Any = np
) -> tuple[Any, Any]:
    """The `count` largest float32 dots of each query within one block of keys, in no order.

    Args:
        query_units, key_units: unit rows float32 [q, d] and [b, d] of the items from `first_query` on
            and from `first_key` on; key_present: bool [b].

    Returns ids int64 and scores float32, [q, min(count, b)]. The query itself and missing keys are
    left out (id -1, score -inf). Which of several items tied at the edge are kept is not defined:
    the certificate does not rely on it.
    """
    scores = query_units @ key_units.T
    scores[:, ~key_present] = -xp.inf
    _hide_self(scores, first_query + xp.arange(len(query_units)), first_key, xp)
    if count < scores.shape[1]:
        columns = xp.argpartition(scores, scores.shape[1] - count, axis=1)[:, scores.shape[1] - count :]
        scores = xp.take_along_axis(scores, columns, axis=1)
    else:
        columns = xp.broadcast_to(xp.arange(scores.shape[1]), scores.shape)
    ids = xp.where(scores == -xp.inf, -1, columns.astype(xp.int64) + first_key)
    return ids, scores


def exact_neighbors(
    features: np.ndarray,
    squares: np.ndarray,
    rows: slice,
    num_neighbors: int,
    include_self: bool,
    block_rows: int,
    xp: Any = np,
    extra: int = EXTRA_CANDIDATES,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The exact top-H of the items of `rows` among all N.

    Args:
        features: float32 [N, d], may be a memory map; squares: float64 [N], `square_norms` of it, or 0
            where an item is missing.
        include_self: the item is one of its own H, at its place in the order: the H-1 best others and
            itself. Else the H best others.

    Returns:
        ids int64 [q, H] padded with -1 (a missing item: itself, then -1), scores float32 [q, H] (0 where
        padded or missing), certified bool [q] (False: the row went through the float64 fallback).

    Memory: a few block_rows^2 float32 scores and 4 Mi float64 values.
    """
    queries = np.arange(rows.start, rows.stop)
    others = num_neighbors - include_self
    best = TopK(len(queries), num_neighbors, np.float64)
    certified = np.ones(len(queries), dtype=bool)
    if others:
        candidates = _candidates(features, squares, rows, others + extra, block_rows, xp)
        ids, certified = _above_the_line(*candidates, others, features.shape[1])
        keys = _pair_keys(features, squares, queries, ids, xp)
        chosen = TopK(len(queries), others, np.float64)
        chosen.merge(np.where(keys > -np.inf, ids, -1), keys)
        certified |= squares[rows] == 0
        failed = np.flatnonzero(~certified)
        if len(failed):
            full = _score_all(features, squares, queries[failed], others, block_rows, xp)
            chosen.ids[failed], chosen.scores[failed] = full.ids, full.scores
        best.merge(chosen.ids, chosen.scores)
    if include_self:
        best.merge(queries[:, None], _pair_keys(features, squares, queries, queries[:, None], xp))
    return *_stored(best, squares[rows], queries), certified


def _candidates(
    features: np.ndarray, squares: np.ndarray, rows: slice, count: int, block_rows: int, xp: Any
) -> tuple[np.ndarray, np.ndarray]:
    """C approximate best per query over all key blocks: ids int64, scores float32, both [q, C]."""
    query_units = normalize_rows(xp.asarray(features[rows]), xp, xp.asarray(squares[rows]))
    best = TopK(len(query_units), count, xp.float32, xp)
    for first in range(0, len(features), block_rows):
        keys = slice(first, min(first + block_rows, len(features)))
        key_squares = xp.asarray(squares[keys])
        key_units = normalize_rows(xp.asarray(features[keys]), xp, key_squares)
        best.merge(*block_candidates(query_units, key_units, rows.start, first, key_squares > 0, count, xp))
    return to_host(best.ids), to_host(best.scores)


def _above_the_line(ids: np.ndarray, scores: np.ndarray, others: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Candidates that can still be among the best (others: -1), and which rows are certified."""
    line = scores[:, others - 1].astype(np.float64)[:, None] - 2 * rounding_bound(width)
    nothing_dropped = ids[:, -1] < 0
    certified = nothing_dropped | (scores[:, -1] < line[:, 0])
    kept = (ids >= 0) & (scores >= line)
    # Rows sort with the best first, so the columns beyond the fullest row are empty.
    return np.where(kept, ids, -1)[:, : max(int(kept.sum(axis=1).max(initial=0)), 1)], certified


def _pair_keys(features: np.ndarray, squares: np.ndarray, queries: np.ndarray, ids: np.ndarray, xp: Any) -> np.ndarray:
    """Keys float64 [q, any] of pairs (query, id); -inf where the id is -1 or either item is missing."""
    keys = np.full(ids.shape, -np.inf)
    row, column = np.nonzero((ids >= 0) & (squares[queries] > 0)[:, None])
    right = ids[row, column]
    row, column, right = (part[squares[right] > 0] for part in (row, column, right))
    step = max(_MAX_VALUES // features.shape[1], 1)
    for first in range(0, len(row), step):
        part = slice(first, first + step)
        dots = _dots(xp.asarray(features[queries[row[part]]]), xp.asarray(features[right[part]]), xp)
        keys[row[part], column[part]] = to_host(_key(dots, xp.asarray(squares[right[part]]), xp))
    return keys


def _score_all(
    features: np.ndarray, squares: np.ndarray, queries: np.ndarray, others: int, block_rows: int, xp: Any
) -> TopK:
    """The `others` best of each query by scoring every item in float64, for rows without a certificate.

    Copies of one row (a placeholder text, say) have the same list but for themselves, and are what
    fails most: it is computed once, one longer, and each copy leaves itself out.
    """
    distinct, copy_of = np.unique(np.asarray(features[queries]), axis=0, return_inverse=True)
    copy_of = copy_of.reshape(-1)
    best = TopK(len(distinct), others + 1, np.float64)
    keys_step = min(block_rows, max(_MAX_VALUES // features.shape[1], 1))
    query_step = max(_MAX_VALUES // (keys_step * features.shape[1]), 1)
    for first in range(0, len(distinct), query_step):
        part = xp.asarray(distinct[first : first + query_step])
        found = TopK(len(part), others + 1, xp.float64, xp)
        for first_key in range(0, len(features), keys_step):
            block = xp.asarray(features[first_key : first_key + keys_step])
            left = xp.repeat(part, len(block), axis=0)
            right = xp.broadcast_to(block, (len(part), *block.shape)).reshape(left.shape)
            block_squares = xp.asarray(squares[first_key : first_key + keys_step])
            dots = _dots(left, right, xp).reshape(len(part), len(block))
            keys = xp.where(block_squares > 0, _key(dots, xp.where(block_squares > 0, block_squares, 1.0), xp), -xp.inf)
            ids = xp.where(block_squares > 0, first_key + xp.arange(len(block)), -1)
            found.merge(xp.broadcast_to(ids, keys.shape), keys)
        best.ids[first : first + query_step] = to_host(found.ids)
        best.scores[first : first + query_step] = to_host(found.scores)
    result = TopK(len(queries), others, np.float64)
    ids, scores = best.ids[copy_of], best.scores[copy_of]
    itself = ids == queries[:, None]
    result.merge(np.where(itself, -1, ids), np.where(itself, -np.inf, scores))
    return result


def _dots(left: Any, right: Any, xp: Any) -> Any:
    """Dot products float64 [p] of paired rows, each summed along its own contiguous row."""
    return (left.astype(xp.float64) * right.astype(xp.float64)).sum(axis=1)


def _key(dots: Any, right_squares: Any, xp: Any) -> Any:
    return dots * xp.abs(dots) / right_squares


def _hide_self(scores: Any, queries: Any, first_key: int, xp: Any) -> None:
    columns = queries - first_key
    inside = xp.flatnonzero((columns >= 0) & (columns < scores.shape[1]))
    scores[inside, columns[inside]] = -xp.inf


def _stored(best: TopK, squares: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids and float32 cosines of the keys; a missing item's row is itself, then padding."""
    missing = squares == 0
    ids = np.where(missing[:, None], -1, best.ids)
    ids[missing, 0] = queries[missing]
    with np.errstate(invalid="ignore"):
        cosines = np.sign(best.scores) * np.sqrt(np.abs(best.scores) / np.where(missing, 1.0, squares)[:, None])
    return ids, np.where((ids < 0) | missing[:, None], 0.0, cosines).astype(np.float32)
