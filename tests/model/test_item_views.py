"""Sparse products against dense ones, at odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.item_plan import ItemPlan, SparseRows
from model.blocks.item_views import item_rows, sparse_product
from tests.model.small_case import sparse


@pytest.mark.parametrize(
    ("num_rows", "num_columns", "width", "density"),
    [(63, 100, 7, 0.1), (1, 1, 1, 1.0), (0, 5, 3, 0.5), (5, 1000, 64, 0.002), (100, 63, 1, 0.5), (4, 6, 3, 0.0)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_product_and_gradient(num_rows: int, num_columns: int, width: int, density: float, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(num_rows, num_columns)) * (rng.random((num_rows, num_columns)) < density)
    rows = sparse(dense).map(lambda x: x.float() if x.is_floating_point() else x)
    matrix = torch.from_numpy(dense).float().to(dtype)
    x = torch.randn(num_columns, width, dtype=dtype, requires_grad=True)
    gradient = torch.randn(num_rows, width, dtype=dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    for _ in range(2):  # the second time from what the first left behind
        result = sparse_product(rows, x)
        torch.testing.assert_close(result, matrix @ x, **tolerance)
        (actual,) = torch.autograd.grad(result, x, gradient)
        torch.testing.assert_close(actual, matrix.T @ gradient, **tolerance)
        # Non-contiguous gradients, as expand() and transposes make them.
        (flat,) = torch.autograd.grad(sparse_product(rows, x).sum(), x)
        torch.testing.assert_close(flat, matrix.T @ torch.ones(num_rows, width, dtype=dtype), **tolerance)


def test_gradcheck() -> None:
    rows = sparse(np.array([[0, 2.0, 0], [0, 0, 0], [1, 3, 0], [0, 0, -1]]))
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda dense: sparse_product(rows, dense), x)


def test_each_matrix_keeps_its_own_operators() -> None:
    one, two = sparse(np.eye(3)), sparse(2 * np.eye(3))
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    sparse_product(one, x).sum().backward()
    x.grad = None
    y = sparse_product(two, x)
    y.sum().backward()
    assert torch.equal(y, 2 * x)
    assert torch.equal(x.grad, torch.full_like(x, 2))
    assert torch.equal(sparse_product(two.map(torch.clone), x), 2 * x)


def test_autocast_does_not_round_a_product() -> None:
    rows = sparse(np.random.default_rng(0).normal(size=(4, 5))).map(lambda x: x.float() if x.is_floating_point() else x)
    x = torch.randn(5, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = sparse_product(rows, x)
    assert torch.equal(y, sparse_product(rows, x))
    y.sum().backward()
    assert x.grad is not None


def test_item_rows_of_an_empty_plan_and_of_a_plan_without_a_table() -> None:
    nothing = SparseRows(
        indptr=torch.zeros(1, dtype=torch.int64),
        indices=torch.zeros(0, dtype=torch.int64),
        values=torch.zeros(0),
        num_columns=0,
    )
    plan = ItemPlan(
        union_ids=torch.zeros(0, dtype=torch.int64), num_roles=0, cooccurrence=nothing, views={"text": nothing}
    )
    table = torch.zeros(0, 4, requires_grad=True)
    items = item_rows(table, plan)
    assert items.ids is not None
    assert items.cooccurrence is not None
    assert items.ids.shape == items.cooccurrence.shape == items.views["text"].shape == (0, 4)
    (items.cooccurrence.sum() + items.views["text"].sum()).backward()
    features, popularity = {"popularity": torch.zeros(3, 4)}, torch.ones(3, 1)
    bare = item_rows(None, ItemPlan(union_ids=torch.arange(3), num_roles=3, features=features, popularity=popularity))
    assert bare.ids is None
    assert bare.popularity is popularity
    assert bare.features is features
