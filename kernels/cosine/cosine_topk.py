"""Exact cosine top-H: approximate scores select candidates provably, and float64 ranks the candidates.

The ranking. Let x_i be the float32 rows, with dot products dot_ij and squares n_i = |x_i|^2 in float64
(`exact_dots`):

    key_ij = dot_ij * |dot_ij| / n_j          (ranks the neighbours of row i; equals n_i * sign * cosine^2)
    score_ij = sign(key_ij) * sqrt(|key_ij| / n_i)                       (the stored cosine, float32)

Items are ranked by descending key; ties go to the smaller id. If all values are whole numbers, dot^2 and n_j are
exact and the division is correctly rounded, so mathematically equal cosines have equal keys. The formula
dot / sqrt(n_j) would not guarantee that. The bits of a dot product depend on its two rows alone. So the result does
not depend on the block size, on the order of blocks, on which process computed a block, or on CPU or GPU.

The proof. An approximate score of row i has an error of at most e_i (`error_bounds`). Let a_H be row i's H-th best
approximate score. Then H items have an exact score of at least a_H - e_i. An item whose approximate score is below
a_H - 2 e_i has an exact score below a_H - e_i, so it is not among the best H. Candidate lists (`threshold_scan`) keep
every item whose approximate score is at or above this threshold. So a list that did not overflow holds all of the
best H: its row is certified, and only the few entries of the list are scored in float64. A list overflows if dozens
of items lie within the rounding error of one another. Its row is scored against all items in float64
(`exact_ranking`).

A row whose square is 0 is missing: it is no item's neighbour and has no neighbours.
Legend: n rows, N items, d width, H neighbours, R residual of a rounded row.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from contracts.errors import InputError
from kernels.candidate_lists import CandidateLists
from kernels.cosine.exact_dots import row_squares
from kernels.cosine.exact_ranking import finish_copies, finish_lists, leave_out_copies
from kernels.cosine.score_tiles import scan_triangle
from kernels.cosine.threshold_scan import compact_lists

Precision = Literal["float32", "float16"]

# Rows converted to float64 at a time.
_ROWS_AT_A_TIME = 1 << 12


def square_norms(rows: np.ndarray) -> np.ndarray:
    """Return |x|^2 of each row, float64 [n].

    Raises:
        InputError: a row holds NaN or infinity.
    """
    squares = row_squares(np.ascontiguousarray(rows, dtype=np.float32))
    bad = ~np.isfinite(squares)
    if bad.any():
        raise InputError(f"row {int(bad.argmax())}: holds NaN or infinity; cosine neighbours need finite features")
    return squares


def unit_rows(rows: np.ndarray, squares: np.ndarray, precision: Precision = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Scale rows to length 1 and round them to `precision`. Zero rows stay zero.

    Returns the rows, float32 [n, d], and residuals, float32 [n], with R_i >= |rounded - exact|. For float32 the
    residuals are 0, because `error_bounds` accounts for that rounding. For float16 the values are float16 numbers and
    the rows have length sqrt(d), so that no value overflows, and none is subnormal because of the scaling. Residuals
    always refer to rows of length 1.
    """
    width = rows.shape[1]
    units = np.empty(rows.shape, dtype=np.float32)
    residuals = np.zeros(len(rows), dtype=np.float32)
    length = np.sqrt(width) if precision == "float16" else 1.0
    scale = np.where(squares > 0, length / np.sqrt(np.where(squares > 0, squares, 1.0)), 0.0)
    for first in range(0, len(rows), _ROWS_AT_A_TIME):
        part = slice(first, first + _ROWS_AT_A_TIME)
        exact = rows[part].astype(np.float64) * scale[part, None]
        if precision == "float16":
            units[part] = exact.astype(np.float16)
            off = np.sqrt(((units[part] - exact) ** 2).sum(axis=1)) / length
            residuals[part] = np.where(off > 0, np.nextafter(off.astype(np.float32), np.float32(np.inf)), 0)
        else:
            units[part] = exact
    return units, residuals


def product_scale(width: int, precision: Precision) -> float:
    """Return the factor that turns dot products of `unit_rows` into cosines."""
    return 1.0 / width if precision == "float16" else 1.0


def error_bounds(
    residuals: np.ndarray, largest_residual: float, width: int, precision: Precision = "float32"
) -> np.ndarray:
    """Return e_i, float32 [n]: a bound on the error of row i's approximate scores, for any order of summation.

    float32: rounding two unit rows adds an error of 2u, and the sum adds gamma_d = du/(1-du), with u = 2^-24, times
    |x||y| = 1. One more u and the factor 1.01 cover second-order terms, underflow, and the float64 error of the key.
    (The bound does not hold for TF32, which neither torch on a CPU nor CuPy uses by default.)
    float16: |<a', b'> - <a, b>| <= |a' - a||b'| + |a||b' - b| <= R_i (1 + R) + R, with R the largest residual of all
    rows. Products of float16 are exact in float32. The bound allows 2u per term of the sum, because tensor cores
    truncate where IEEE arithmetic rounds.

    Args:
        residuals: R_i, float32 [n], from `unit_rows`.
        largest_residual: R, over all rows that are searched.
        width: d, at most 65,536.
        precision: of the unit rows.
    """
    assert width <= 1 << 16
    if precision == "float32":
        return np.full(len(residuals), (width + 3) * 2.0**-24 * 1.01, dtype=np.float32)
    wide = residuals.astype(np.float64)
    bounds = wide * (1 + largest_residual) + largest_residual + (width + 3) * 2.0**-23 * (1 + largest_residual) ** 2
    return (bounds * 1.01).astype(np.float32)


def list_margin(bounds: np.ndarray) -> np.ndarray:
    """Return the margin of each list, float32 [n]: 2 e_i, plus the float32 error of subtracting it from a score."""
    return (2.0 * bounds.astype(np.float64) + 2.0**-22).astype(np.float32)


def cosine_neighbors(
    features: np.ndarray,
    num_neighbors: int,
    include_self: bool = True,
    precision: Precision = "float32",
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the exact top-H of every row of a matrix in memory, in one process (`graph_builder` uses many).

    Memory: a copy of the features, and (H + 32) * 8 bytes per row.

    Args:
        features: float32 [N, d]; zero rows are missing.
        num_neighbors: H.
        include_self: if true, an item's list holds its H - 1 best other items and, at its place in the order, the
            item itself. If false, it holds the H best other items.
        precision: of the approximate scores. It does not change the result.
        threads: Python threads.

    Returns:
        ids int64 [N, H], padded with -1; the list of a missing item holds the item itself, then -1.
        scores float32 [N, H]; 0 where padded or missing.
        certified bool [N]; False: the row was scored against all items in float64.

    Raises:
        InputError: a row holds NaN or infinity.
    """
    squares = square_norms(features)
    others = num_neighbors - include_self
    copies, originals = leave_out_copies(features, squares, others)
    searched = squares > 0
    searched[copies] = False
    order = np.flatnonzero(searched)
    units, residuals = unit_rows(features[order], squares[order], precision)
    bounds = error_bounds(residuals, float(residuals.max(initial=0)), features.shape[1], precision)
    lists = CandidateLists.empty(list_margin(bounds), others)
    if others:
        scan_triangle(units, lists, 0, others, product_scale(features.shape[1], precision), threads)
        compact_lists(lists, others)
    del units
    offsets, positions, _ = lists.entries()
    ids = np.full((len(features), num_neighbors), -1, dtype=np.int64)
    ids[:, 0] = np.arange(len(features))
    scores = np.zeros((len(features), num_neighbors), dtype=np.float32)
    candidates = order[positions]
    ids[order], scores[order] = finish_lists(
        features, squares, order, offsets, candidates, lists.overflowed, searched, num_neighbors, include_self, threads
    )
    ids[copies], scores[copies] = finish_copies(features, squares, copies, originals, ids, include_self)
    certified = np.ones(len(features), dtype=bool)
    certified[order] = ~lists.overflowed
    return ids, scores, certified
