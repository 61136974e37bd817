"""The two halves of a Lloyd step on a block of points: GEMM + argmax, and sums per centre.

Legend: b points of a block, k centres, d width. All arithmetic is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.spmm import row_sums


def nearest_centers(points: Any, centers: Any, xp: Any = np) -> tuple[Any, Any]:
    """Nearest centre int64 [b] and squared distance to it float64 [b], Euclidean.

    Ties go to the lowest centre. Scores within the rounding error of the GEMM count as tied, so the
    answer does not depend on how a BLAS cuts the product: identical centres must not take turns.
    """
    center_squares = (centers * centers).sum(axis=1)
    scores = points @ centers.T - 0.5 * center_squares
    best = scores.max(axis=1, keepdims=True)
    largest = center_squares.max()
    point_norms = xp.sqrt((points * points).sum(axis=1, keepdims=True))
    slack = 2.0**-51 * (points.shape[1] + 2) * (point_norms * xp.sqrt(largest) + largest)
    nearest = (scores >= best - slack).argmax(axis=1)
    # Not |x|^2 - 2 x.c + |c|^2: a point on its centre must be at distance zero.
    offsets = points - centers[nearest]
    return nearest, (offsets * offsets).sum(axis=1)


def center_sums(points: Any, nearest: Any, num_centers: int, xp: Any = np) -> tuple[Any, Any]:
    """Sum float64 [k, d] and number int64 [k] of the points of each centre, added in row order."""
    order = xp.argsort(nearest, kind="stable")
    counts = xp.bincount(nearest, minlength=num_centers).astype(xp.int64)
    indptr = xp.concatenate([xp.zeros(1, dtype=xp.int64), xp.cumsum(counts)])
    return row_sums(indptr, order, xp.ones(len(order)), points, xp), counts
