"""The table of one process is an nn.Embedding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.blocks.item_table import ItemTable, RowTable

IDS = torch.tensor([7, 0, 19, 3, 11])
EVERY_KIND_OF_IDS = [IDS, torch.arange(20), torch.zeros(0, dtype=torch.int64)]


def rows_and_gradient(lookup: nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = lookup(lookup.feature(ids))[: len(ids)] if isinstance(lookup, RowTable) else lookup(ids)
    (weight,) = lookup.parameters()
    (gradient,) = torch.autograd.grad((rows * torch.arange(1.0, 1 + rows.numel()).view(rows.shape)).sum(), weight)
    return rows, gradient


@pytest.mark.parametrize("ids", EVERY_KIND_OF_IDS)
def test_equals_an_embedding_in_values_order_and_gradient(ids: torch.Tensor) -> None:
    table = ItemTable(num_items=20, dim=6, init_std=0.1)
    embedding = nn.Embedding.from_pretrained(table.weight.detach().clone(), freeze=False)
    for actual, expected in zip(rows_and_gradient(table, ids), rows_and_gradient(embedding, ids), strict=True):
        assert torch.equal(actual, expected)


def test_no_ids_give_one_row() -> None:
    table = ItemTable(num_items=20, dim=6, init_std=0.1)
    assert torch.equal(table(table.feature(torch.zeros(0, dtype=torch.int64))), table.weight[:1])


def test_initialised_with_the_given_spread_and_seed() -> None:
    torch.manual_seed(1)
    first = ItemTable(num_items=2000, dim=16, init_std=0.02).weight
    torch.manual_seed(1)
    second = ItemTable(num_items=2000, dim=16, init_std=0.02).weight
    assert torch.equal(first, second)
    assert abs(first.std().item() - 0.02) < 0.001
    assert abs(first.mean().item()) < 0.001
