"""Exact cosine top-H: approximate scores of every pair, a proof of who can be left out, an exact decision.

The score that decides. With x_i the float32 rows, dots and squares n_i = |x_i|^2 in float64 (`exact_dots`),

    key_ij = dot_ij * |dot_ij| / n_j          (the ranking of row i; equals n_i * sign * cosine^2)
    score_ij = sign(key_ij) * sqrt(|key_ij| / n_i)                       (what is stored, float32)

Keys descend, ties go to the smaller id. On whole-number rows dot^2 and n_j are exact, and division is
correctly rounded, so mathematically equal cosines tie exactly; dot / sqrt(n_j) would not do that. The bits
of a dot are defined by its two rows alone, so the result does not depend on the block size, the order of
blocks, who computed which, or whether on a CPU or a GPU.

The proof. An approximate score of row i is off by at most e_i (`error_bounds`). Let a_H be row i's H-th
best approximate score: H items score at least a_H - e_i, so an item whose approximation is below
a_H - 2 e_i scores below all of these and is not among the best H. Candidate lists (`threshold_scan`) keep
every item at or above that line, so a list that did not overflow holds the whole answer: its row is
certified, and only its few entries are scored in float64. Rows whose list overflowed (dozens of items
within the rounding error of one another) are scored against all items in float64 (`exact_ranking`).

Rows whose square is 0 are missing: never a neighbour, no neighbours.
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
    """|x|^2 of each row, float64 [n].

    Raises:
        InputError: a row holds NaN or infinity.
    """
    squares = row_squares(np.ascontiguousarray(rows, dtype=np.float32))
    bad = ~np.isfinite(squares)
    if bad.any():
        raise InputError(f"row {int(bad.argmax())}: holds NaN or infinity; cosine neighbours need finite features")
    return squares


def unit_rows(rows: np.ndarray, squares: np.ndarray, precision: Precision = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to length 1, rounded; zero rows stay zero.

    Returns float32 [n, d] and residuals float32 [n], R_i >= |rounded - exact| (0 for float32, whose
    rounding is part of `error_bounds`). With float16 the length is sqrt(d), so that no value overflows
    or is subnormal for its row, and the values are float16 numbers; residuals are for length 1.
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
    """What products of `unit_rows` are multiplied with to be cosines."""
    return 1.0 / width if precision == "float16" else 1.0


def error_bounds(
    residuals: np.ndarray, largest_residual: float, width: int, precision: Precision = "float32"
) -> np.ndarray:
    """e_i, float32 [n]: the largest error of row i's approximate scores, in any order of summation.

    float32: rounding two unit rows costs 2u and the sum gamma_d = du/(1-du), u = 2^-24, times
    |x||y| = 1; one more u and the factor cover second-order terms, underflow, and the float64 error of
    the key. (TF32 would break it: neither torch on a CPU nor CuPy uses it unless asked to.)
    float16: |<a', b'> - <a, b>| <= |a' - a||b'| + |a||b' - b| <= R_i (1 + R) + R with R the largest
    residual of all rows; products of float16 are exact in float32, and the sum is given 2u per term,
    because tensor cores truncate where IEEE arithmetic rounds.
    """
    assert width <= 1 << 16
    if precision == "float32":
        return np.full(len(residuals), (width + 3) * 2.0**-24 * 1.01, dtype=np.float32)
    wide = residuals.astype(np.float64)
    bounds = wide * (1 + largest_residual) + largest_residual + (width + 3) * 2.0**-23 * (1 + largest_residual) ** 2
    return (bounds * 1.01).astype(np.float32)


def list_slack(bounds: np.ndarray) -> np.ndarray:
    """2 e_i and what float32 loses when it is subtracted from a score, float32 [n]."""
    return (2.0 * bounds.astype(np.float64) + 2.0**-22).astype(np.float32)


def cosine_neighbors(
    features: np.ndarray,
    num_neighbors: int,
    include_self: bool = True,
    precision: Precision = "float32",
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The exact top-H of every row of a matrix in memory, in one process (`graph_builder` spreads it over many).

    Args:
        features: float32 [N, d]; zero rows are missing.
        include_self: an item is one of its own H, at its place in the order: the H-1 best others and
            itself. Else the H best others.

    Returns:
        ids int64 [N, H] padded with -1 (a missing item: itself, then -1), scores float32 [N, H] (0 where
        padded or missing), certified bool [N] (False: the row was scored against all items in float64).

    Raises:
        InputError: NaN or infinity.

    Memory: a copy of the features, and (H + 32) * 8 bytes per row.
    """
    squares = square_norms(features)
    others = num_neighbors - include_self
    copies, originals = leave_out_copies(features, squares, others)
    searched = squares > 0
    searched[copies] = False
    order = np.flatnonzero(searched)
    units, residuals = unit_rows(features[order], squares[order], precision)
    bounds = error_bounds(residuals, float(residuals.max(initial=0)), features.shape[1], precision)
    lists = CandidateLists.empty(list_slack(bounds), others)
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
