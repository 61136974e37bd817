"""A recommender with its item table: what a rank trains, evaluates and exports.

Shapes: B users, U items of the union, R items with a role, d width, d_c width of channel c.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from contracts.batch import Batch
from contracts.item_plan import ItemPlan
from model.blocks.item_table import item_feature
from model.blocks.item_views import item_rows
from model.protocol import ItemRows
from model.recommender import Recommender


class TrainingStep(Protocol):
    """A step on the device: what to look up (None without a table), and what it is looked up for."""

    @property
    def feature(self) -> KeyedJaggedTensor | None: ...
    @property
    def plan(self) -> ItemPlan: ...
    @property
    def batch(self) -> Batch: ...


class RecommenderSystem(nn.Module):
    """The table turns ids into rows, the recommender turns rows and a batch into scores."""

    def __init__(self, table: nn.Module | None, recommender: Recommender) -> None:
        """`table` maps an `item_feature` to rows (an `ItemTable`), or is None where the model needs no ID rows."""
        super().__init__()
        assert (table is not None) == recommender.needs.id_rows, "the table must be what the model needs"
        self.table = table
        self.ids_as_one = False  # how a table takes its ids, see `item_feature`
        self.recommender = recommender

    def forward(self, step: TrainingStep) -> Tensor:
        """This rank's part of the step's loss, a scalar: over the batch's candidates, or all R items with a role.

        The lookup reads an attribute of the input and nothing else, and the recommender is one call, so that
        TorchRec's pipeline can see from here what to exchange ahead of time.
        """
        rows = None if self.table is None else self.table(step.feature)
        loss: Tensor = self.recommender(rows, step.plan, step.batch)
        return loss

    def item_rows(self, plan: ItemPlan) -> ItemRows:
        """The plan's rows looked up and their views; the one collective of an encoding of a split table."""
        return item_rows(
            None if self.table is None else self.table(item_feature(plan.union_ids, self.ids_as_one)), plan
        )

    def encode_items(self, items: ItemRows) -> Tensor:
        """[R, sum_c d_c]: all channels side by side."""
        return torch.cat(self.recommender.item_vectors(items), dim=1)

    def encode_users(self, items: ItemRows, batch: Batch) -> Tensor:
        """[B, sum_c d_c]: each channel times its weight, so that a score is one inner product."""
        users = self.recommender.user_vectors(items, batch)
        weighted = [c.weight * user for c, user in zip(self.recommender.channels, users, strict=True)]
        return torch.cat(weighted, dim=1)
