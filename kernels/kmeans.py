"""The two halves of a k-means (Lloyd) step on a block of points: the nearest centres, and sums per centre.

Legend: b points of a block, k centres, d width. All arithmetic is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.spmm import row_sums


def nearest_centers(points: Any, centers: Any, xp: Any = np) -> tuple[Any, Any]:
    """Return each point's nearest centre, int64 [b], and the squared Euclidean distance to it, float64 [b].

    Ties go to the lowest centre. Scores that differ by less than the GEMM's rounding error count as ties. So the
    result does not depend on how a BLAS splits the product, and of identical centres the lowest gets all points.
    """
    center_squares = (centers * centers).sum(axis=1)
    scores = points @ centers.T - 0.5 * center_squares
    best = scores.max(axis=1, keepdims=True)
    largest = center_squares.max()
    point_norms = xp.sqrt((points * points).sum(axis=1, keepdims=True))
    margin = 2.0**-51 * (points.shape[1] + 2) * (point_norms * xp.sqrt(largest) + largest)
    nearest = (scores >= best - margin).argmax(axis=1)
    # The formula |x|^2 - 2 x.c + |c|^2 is not used: rounding would give a point on its centre a distance above 0.
    offsets = points - centers[nearest]
    return nearest, (offsets * offsets).sum(axis=1)


def center_sums(points: Any, nearest: Any, num_centers: int, xp: Any = np) -> tuple[Any, Any]:
    """Return the sum, float64 [k, d], and the number, int64 [k], of each centre's points, added in row order."""
    order = xp.argsort(nearest, kind="stable")
    counts = xp.bincount(nearest, minlength=num_centers).astype(xp.int64)
    indptr = xp.concatenate([xp.zeros(1, dtype=xp.int64), xp.cumsum(counts)])
    return row_sums(indptr, order, xp.ones(len(order)), points, xp), counts
