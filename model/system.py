"""A recommender with its item table: what a rank trains, evaluates and exports.

Shapes: B users, U items of the union, R items with a role, d width, d_c width of channel c.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.contracts import Batch, ItemPlan
from model.item_views import item_rows
from model.losses import channel_cross_entropy, sampled_cross_entropy
from model.protocol import ItemRows, Recommender


class RecommenderSystem(nn.Module):
    """The table turns ids into rows, the recommender turns rows and a batch into scores."""

    def __init__(self, table: nn.Module | None, recommender: Recommender) -> None:
        """`table` maps int64 [U] to [U, d] (an `ItemTable`), or is None where the model needs no ID rows."""
        super().__init__()
        assert (table is not None) == recommender.needs.id_rows, "the table must be what the model needs"
        self.table = table
        self.recommender = recommender

    def rows(self, plan: ItemPlan) -> Tensor | None:
        """Looked-up rows [U, d] of the plan's union; None without a table."""
        return None if self.table is None else self.table(plan.union_ids)

    def forward(self, plan: ItemPlan, batch: Batch) -> Tensor:
        """This rank's part of the step's loss, a scalar: over the batch's candidates, or all R items with a role."""
        items = self.item_rows(plan)
        recommender = self.recommender
        users, vectors = recommender.user_vectors(items, batch), recommender.item_vectors(items)
        channels, total = recommender.channels, batch.num_global_targets
        if batch.candidates is None:
            return channel_cross_entropy(users, vectors, channels, batch.targets, total)
        assert batch.log_weights is not None
        return sampled_cross_entropy(
            users, vectors, channels, batch.targets, batch.candidates, batch.log_weights, total
        )

    def item_rows(self, plan: ItemPlan) -> ItemRows:
        """The plan's rows looked up and their views; the one collective of an encoding of a split table."""
        return item_rows(self.rows(plan), plan)

    def encode_items(self, items: ItemRows) -> Tensor:
        """[R, sum_c d_c]: all channels side by side."""
        return torch.cat(self.recommender.item_vectors(items), dim=1)

    def encode_users(self, items: ItemRows, batch: Batch) -> Tensor:
        """[B, sum_c d_c]: each channel times its weight, so that a score is one inner product."""
        users = self.recommender.user_vectors(items, batch)
        weighted = [c.weight * user for c, user in zip(self.recommender.channels, users, strict=True)]
        return torch.cat(weighted, dim=1)
