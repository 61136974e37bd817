"""A recommender together with its item table, as a rank trains, evaluates and exports it.

Shapes: B users, U items of the union, R items with a role, d width, d_c width of channel c.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from contracts.batch import Batch
from contracts.item_plan import ItemPlan
from model.blocks.item_table import RowTable
from model.blocks.item_views import item_rows
from model.protocol import ItemRows
from model.recommender import Recommender


class TrainingStep(Protocol):
    """A step on the device: the ids to look up, as `RowTable.feature` returns them (None without a table), the item
    plan and the batch.
    """

    @property
    def feature(self) -> Any: ...
    @property
    def plan(self) -> ItemPlan: ...
    @property
    def batch(self) -> Batch: ...


class RecommenderSystem(nn.Module):
    """An item table, which turns ids into rows, and a recommender, which turns rows and a batch into a loss."""

    def __init__(self, table: RowTable | None, recommender: Recommender) -> None:
        """Join a table and a recommender.

        Args:
            table: the table of ID rows; None if the model needs none.
            recommender: the model.
        """
        super().__init__()
        assert (table is not None) == recommender.needs.id_rows, "the table must be what the model needs"
        self.table = table
        self.table_is_frozen = False  # whether training must not change the table
        self.recommender = recommender

    def forward(self, step: TrainingStep) -> Tensor:
        """Return this rank's part of the step's loss, a scalar, over the candidates or over all R items with a role.

        The lookup reads one attribute of the input and nothing else, and the recommender is called once. TorchRec's
        pipeline needs this form to find out which rows it can exchange ahead of time.
        """
        rows = None if self.table is None else self.table(step.feature)
        if rows is not None and self.table_is_frozen:
            # Without a gradient the fused optimiser of a split table, which runs in the backward pass, never runs.
            rows = rows.detach()
        loss: Tensor = self.recommender(rows, step.plan, step.batch)
        return loss

    def item_rows(self, plan: ItemPlan) -> ItemRows:
        """Look up the plan's rows and compute their views. If the table is split over ranks, this is a collective."""
        return item_rows(self.table(self.table.feature(plan.union_ids)) if self.table is not None else None, plan)

    def encode_items(self, items: ItemRows) -> Tensor:
        """Return the item vectors of all channels side by side, [R, sum_c d_c]."""
        return torch.cat(self.recommender.scored_items(items), dim=1)

    def encode_users(self, items: ItemRows, batch: Batch) -> Tensor:
        """Return the user vectors of all channels, each times its weight, so that a score is one inner product.

        The shape is [B, sum_c d_c].
        """
        return self.recommender.weighted_users(items, batch)
