"""Sparse rows times a dense matrix: behaviour injected into features (MDSRec Eq. 3).

Legend: b rows of a block, N items, d feature width, nnz stored entries of the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.backend import sparse_module, to_host
from kernels.cuda import launchers as cuda_kernels

# Gathered feature rows held at a time, unless one row alone has more entries.
MAX_GATHERED_ROWS = 1 << 15


def row_sums(indptr: Any, columns: Any, weights: Any, dense: Any, xp: Any = np) -> Any:
    """Weighted sums of rows of `dense`: [b, d] float64, on the device of `xp`.

    Equivalent to `csr_matrix((weights, columns, indptr)) @ dense` in float64. On the CPU each output
    row is accumulated one stored entry at a time in stored order, so its bytes depend on that row
    alone. (cuSPARSE fixes no order: on a GPU only sums that are exact, such as of whole numbers,
    are the same bytes for any blocking.)
    """
    shape = (len(indptr) - 1, len(dense))
    matrix = sparse_module(xp).csr_matrix((weights.astype(xp.float64), columns, indptr), shape=shape)
    return matrix @ dense.astype(xp.float64)


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
    """mu * O E + E for the items of `rows`, float32 [b, d] (MDSRec Eq. 3, static part).

    Args:
        indptr, columns, weights: the CSR rows of O that belong to `rows`: int64 [b+1], int64 [nnz]
            item ids, float32 [nnz].
        features: E, [N, d] float16/32; may be a memory map, only needed rows are read.
        rows: the block's item range, with b items.

    Sums run in float64 in the order of the stored entries and are rounded once to float32, so any
    row blocking gives the same bytes, on a CPU and on a GPU. Memory: max(max_gathered, longest row) * d * 12 bytes.
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
    """mu * O E + E of rows `own` [b, d], with E's rows `features` that `columns` points into; float32 [b, d]."""
    if xp is np:
        return np.asarray(mu * row_sums(indptr, columns, weights, features) + own.astype(np.float64), dtype=np.float32)
    indptr, columns, weights, features, own = (
        xp.asarray(np.ascontiguousarray(array)) for array in (indptr, columns, weights, features, own)
    )
    return to_host(cuda_kernels.injected_rows(indptr, columns, weights, features, own, mu))
