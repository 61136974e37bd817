"""The two halves of a k-means (Lloyd) step on a block of points: the nearest centres, and sums per centre.

The results have the same bits on a CPU and on a GPU, because all sums have the order of the CPU's. Only the product
of points and centres may differ in its last bits, and scores that are so close count as ties.

Legend: b points of a block, k centres, d width. All arithmetic is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda import launchers as cuda_kernels
from kernels.spmm import row_sums

# NumPy's `pairwise_sum` adds up to this many values in 8 lanes, and halves longer rows.
_PAIRWISE_BLOCK = 128
_LANES = 8


def nearest_centers(points: Any, centers: Any, xp: Any = np) -> tuple[Any, Any]:
    """Return each point's nearest centre, int64 [b], and the squared Euclidean distance to it, float64 [b].

    Ties go to the lowest centre. Scores that differ by less than the GEMM's rounding error count as ties. So the
    result does not depend on how a BLAS splits the product, and of identical centres the lowest gets all points.
    """
    center_squares = summed(centers * centers, xp)
    scores = points @ centers.T - 0.5 * center_squares
    best = scores.max(axis=1, keepdims=True)
    largest = center_squares.max()
    point_norms = xp.sqrt(summed(points * points, xp))[:, None]
    margin = 2.0**-51 * (points.shape[1] + 2) * (point_norms * xp.sqrt(largest) + largest)
    nearest = (scores >= best - margin).argmax(axis=1)
    # The formula |x|^2 - 2 x.c + |c|^2 is not used: rounding would give a point on its centre a distance above 0.
    offsets = points - centers[nearest]
    return nearest, summed(offsets * offsets, xp)


def center_sums(points: Any, nearest: Any, num_centers: int, xp: Any = np) -> tuple[Any, Any]:
    """Return the sum, float64 [k, d], and the number, int64 [k], of each centre's points, added in row order."""
    order = xp.argsort(nearest, kind="stable")
    counts = xp.bincount(nearest, minlength=num_centers).astype(xp.int64)
    starts = xp.concatenate([xp.zeros(1, dtype=xp.int64), xp.cumsum(counts)])
    if xp is np:
        return row_sums(starts, order, np.ones(len(order)), points), counts
    return cuda_kernels.center_sums(points, order, starts), counts


def summed(values: Any, xp: Any = np) -> Any:
    """Return the sum of each row, float64 [b], with the bits of NumPy's `values.sum(axis=1)`.

    On a GPU, columns are added as NumPy's pairwise summation adds them; CuPy's own `sum` has another order. This is
    one launch for each 8 columns.

    Args:
        values: float64 [b, d], C order, d at least 1.
        xp: `numpy` or `cupy`.
    """
    return values.sum(axis=1) if xp is np else pairwise_sums(values)


def pairwise_sums(values: Any) -> Any:
    """Compute `summed` by sums of columns, for NumPy or CuPy arrays."""
    width = values.shape[1]
    if width > _PAIRWISE_BLOCK:
        half = width // 2 // _LANES * _LANES
        return pairwise_sums(values[:, :half]) + pairwise_sums(values[:, half:])
    lanes, whole = values[:, :1], 1
    if width >= _LANES:
        lanes, whole = values[:, :_LANES], width // _LANES * _LANES
        for first in range(_LANES, whole, _LANES):
            lanes = lanes + values[:, first : first + _LANES]
    while lanes.shape[1] > 1:
        lanes = lanes[:, 0::2] + lanes[:, 1::2]
    total = lanes[:, 0]
    for column in range(whole, width):
        total = total + values[:, column]
    return total
