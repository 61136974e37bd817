"""Multiply sparse rows with a dense matrix: injection of co-occurrence into features (MDSRec Eq. 3).

Legend: b rows of a block, N items, d feature width, nnz stored entries of the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from kernels.backend import to_host
from kernels.cuda import launchers as cuda_kernels

# The largest number of gathered feature rows in memory, unless a single row of O has more entries.
MAX_GATHERED_ROWS = 1 << 15


def row_sums(indptr: np.ndarray, columns: np.ndarray, weights: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Return weighted sums of rows of `dense`: float64 [b, d].

    The result is `csr_matrix((weights, columns, indptr)) @ dense` in float64. Each output row is added up one entry at
    a time in stored order, so its bits depend on that row alone. On a GPU, cuSPARSE fixes no order, so kernels of this
    project add there (`cuda/injected_rows.cu`, `cuda/center_sums.cu`).
    """
    shape = (len(indptr) - 1, len(dense))
    matrix = scipy.sparse.csr_matrix((weights.astype(np.float64), columns, indptr), shape=shape)
    return np.asarray(matrix @ dense.astype(np.float64))


def injected_rows(
    indptr: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
    features: np.ndarray,
    rows: slice,
    mu: float,
    xp: Any = np,
    max_gathered: int = MAX_GATHERED_ROWS,
) -> np.ndarray:
    """Return mu * O E + E for the items of `rows`, float32 [b, d] (MDSRec Eq. 3, static part).

    Sums are float64, in the order of the stored entries, and are rounded once to float32. So the bytes are the same
    for any row blocking, on a CPU and on a GPU. Memory: max(max_gathered, longest row) * d * 12 bytes.

    Args:
        indptr: int64 [b+1], where the CSR rows of O that belong to `rows` begin.
        columns: int64 [nnz], item ids.
        weights: float32 [nnz].
        features: E, float16 or float32 [N, d]. It may be a memory map; only the needed rows are read.
        rows: the block's item range, with b items.
        mu: the factor of O E.
        xp: `numpy` or `cupy`.
        max_gathered: the largest number of gathered feature rows in memory.
    """
    own = np.asarray(features[rows], dtype=np.float32)
    assert len(indptr) == len(own) + 1
    if mu == 0:
        return own
    injected = np.empty_like(own)
    first = 0
    while first < len(own):
        last = int(np.searchsorted(indptr, indptr[first] + max_gathered, side="right")) - 1
        last = min(max(last, first + 1), len(own))
        begin, end = int(indptr[first]), int(indptr[last])
        needed, compact = np.unique(columns[begin:end], return_inverse=True)
        part = (
            indptr[first : last + 1] - begin,
            compact,
            weights[begin:end],
            features[needed],
            features[rows][first:last],
        )
        injected[first:last] = add_injected(xp, *part, mu)
        first = last
    return injected


def add_injected(
    xp: Any,
    indptr: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
    features: np.ndarray,
    own: np.ndarray,
    mu: float,
) -> np.ndarray:
    """Return mu * O E + E for the rows `own` [b, d] of E, float32 [b, d]; `columns` are row numbers of `features`."""
    if xp is np:
        return np.asarray(mu * row_sums(indptr, columns, weights, features) + own.astype(np.float64), dtype=np.float32)
    indptr, columns, weights, features, own = (
        xp.asarray(np.ascontiguousarray(array)) for array in (indptr, columns, weights, features, own)
    )
    return to_host(cuda_kernels.injected_rows(indptr, columns, weights, features, own, mu))
