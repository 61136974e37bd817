"""Computes the views of a step's items from their looked-up rows, by sparse matrix products.

Shapes: U items of the union, R of them with a role, k centres, d width of a row.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from contracts.item_plan import ItemPlan, SparseRows
from model.protocol import ItemRows

_INT32_LIMIT = 2**31 - 1


def item_rows(rows_Ud: Tensor | None, plan: ItemPlan) -> ItemRows:
    """Compute the views that a plan describes from the looked-up rows of its union.

    Args:
        rows_Ud: [U, d] in the order of `plan.union_ids`; more rows may follow, and are ignored. None for a model
            without an item table.
        plan: the items of the step.
    """
    item_ids = plan.union_ids[: plan.num_roles]
    if rows_Ud is None:
        assert plan.cooccurrence is None, "co-occurrence needs the rows of an item table"
        assert not plan.views, "graph views need the rows of an item table"
        return ItemRows(item_ids=item_ids, center_rows=plan.centers, features=plan.features, popularity=plan.popularity)
    assert len(rows_Ud) >= len(plan.union_ids), (rows_Ud.shape, plan.union_ids.shape)
    rows_Ud = rows_Ud[: len(plan.union_ids)]
    return ItemRows(
        item_ids=item_ids,
        ids=rows_Ud[: plan.num_roles],
        cooccurrence=sparse_product(plan.cooccurrence, rows_Ud) if plan.cooccurrence is not None else None,
        views={modality: sparse_product(rows, rows_Ud) for modality, rows in plan.views.items()},
        center_rows=plan.centers,
        centers={modality: sparse_product(rows, rows_Ud) for modality, rows in plan.sampled_centers.items()},
        features=plan.features,
        popularity=plan.popularity,
    )


def sparse_product(rows: SparseRows, dense: Tensor) -> Tensor:
    """Return `rows` [n, m] times `dense` [m, d], a [n, d] in the dtype of `dense`, also under autocast.

    The gradient with respect to `dense` is a product with the transpose of `rows`. The transpose is computed once for a
    `SparseRows` object and kept in it, so `rows` must not be changed in place after use. On CPU both directions are
    deterministic, because one thread sums each output row in a fixed order.
    """
    assert rows.num_columns == len(dense), (rows.num_columns, dense.shape)
    return cast(Tensor, _SparseProduct.apply(dense, rows))


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, rows: SparseRows) -> Tensor:
        ctx.rows = rows
        return _multiply(_operator(rows, dense.dtype, transposed=False), dense)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _multiply(_operator(ctx.rows, gradient.dtype, transposed=True), gradient), None


def _multiply(operator: Tensor, dense: Tensor) -> Tensor:
    with torch.autocast(dense.device.type, enabled=False):
        return operator @ dense.contiguous()


def _operator(rows: SparseRows, dtype: torch.dtype, transposed: bool) -> Tensor:
    """Return `rows`, or its transpose, as a sparse CSR tensor in `dtype`.

    The tensor is kept as an attribute of `rows` rather than in a cache, so that it is freed together with `rows`. The
    plan of the whole catalogue is multiplied in every step, that of a batch only twice.
    """
    operators: dict[tuple[torch.dtype, bool], Tensor] = vars(rows).setdefault("_operators", {})
    key = (dtype, transposed)
    if key not in operators:
        operators[key] = _transposed_csr(rows, dtype) if transposed else _csr(rows, dtype)
    return operators[key]


def _csr(rows: SparseRows, dtype: torch.dtype) -> Tensor:
    return _sparse_csr(rows.indptr, rows.indices, rows.values.to(dtype), (rows.num_rows, rows.num_columns))


def _transposed_csr(rows: SparseRows, dtype: torch.dtype) -> Tensor:
    """Return the transpose. The sort is stable, so rows ascend in each of its rows, and sums are reproducible."""
    counts = rows.indptr.diff()
    numbers = torch.arange(rows.num_rows, device=counts.device)
    # Without the size, a GPU would have to finish before the host knows how much memory the result needs.
    row_of_entry = torch.repeat_interleave(numbers, counts, output_size=len(rows.indices))
    narrow = rows.indices.to(_index_dtype(rows.num_columns))  # int32 keys sort twice as fast
    columns, order = torch.sort(narrow, stable=True)
    starts = torch.arange(rows.num_columns + 1, device=columns.device, dtype=columns.dtype)
    indptr = torch.searchsorted(columns, starts)
    return _sparse_csr(indptr, row_of_entry[order], rows.values[order].to(dtype), (rows.num_columns, rows.num_rows))


def _sparse_csr(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    # MKL multiplies CSR with int32 indices, and would convert int64 ones in every call. Indices from 2^31 need int64.
    index_dtype = _index_dtype(max(len(indices), *shape))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            indptr.to(index_dtype), indices.to(index_dtype), values, shape, check_invariants=False
        )


def _index_dtype(largest: int) -> torch.dtype:
    return torch.int32 if largest < _INT32_LIMIT else torch.int64
