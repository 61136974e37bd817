"""The base of every recommender: what it needs, and its loss over channels.

Shapes: B targets of a batch, R items with a role, U items of the union, d width of a row, d_c width of channel c.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.batch import Batch
from contracts.item_plan import ItemNeeds, ItemPlan
from model.blocks.item_views import item_rows
from model.blocks.losses import channel_cross_entropy, sampled_cross_entropy
from model.blocks.repeats import RepeatGains, SeenItems, seen_items
from model.protocol import Channel, ItemRows


class Recommender(nn.Module):
    """A model behind the one protocol of training, ranking, export and recommendation.

    Attributes:
        needs: what the collate must bring of each item.
        channels: names and weights, in the order of the vectors below.
        repeats: what items gain that the user's input holds; None: nothing.
        channel_losses: of the latest batch, each channel's cross entropy summed over its targets, without weights or
            gradients, [C] on the device; None before the first.
    """

    needs: ItemNeeds
    channels: tuple[Channel, ...]
    repeats: RepeatGains | None
    channel_losses: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.repeats = None
        self.channel_losses = None

    def learn_repeats(self) -> None:
        """Give each channel a learned gain of items that the user's input holds."""
        self.repeats = RepeatGains(len(self.channels))

    def repeat_gains(self) -> Tensor:
        """What such an item gains in each channel's part of a score, float32 [C] on the CPU; zero where not learned."""
        weights = torch.tensor([channel.weight for channel in self.channels])
        return weights * (self.repeats.weight.detach().cpu() if self.repeats is not None else 0.0)

    def forward(self, rows_Ud: Tensor | None, plan: ItemPlan, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar: over its candidates, or all R items with a role.

        Args:
            rows_Ud: the looked-up rows of the plan's union; None for a model without an item table.
        """
        items = item_rows(rows_Ud, plan)
        users, vectors = self.user_vectors(items, batch), self.item_vectors(items)
        seen = seen_items(batch, self.repeats.weight) if self.repeats is not None else None
        parts: list[Tensor] = []
        loss = self._loss(users, vectors, batch, seen, parts)
        self.channel_losses = torch.stack(parts)
        return loss

    def _loss(
        self, users: list[Tensor], items: list[Tensor], batch: Batch, seen: SeenItems | None, parts: list[Tensor]
    ) -> Tensor:
        targets, num_targets = batch.targets, batch.num_global_targets
        if batch.candidates is None:
            return channel_cross_entropy(users, items, self.channels, targets, num_targets, seen, parts)
        assert batch.log_weights is not None
        return sampled_cross_entropy(
            users,
            items,
            self.channels,
            targets,
            batch.candidates,
            batch.log_weights,
            num_targets,
            batch.same_sequence,
            seen,
            parts,
        )

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        """Per channel [R, d_c]."""
        raise NotImplementedError

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        """Per channel [B, d_c]: the state that each target is predicted from."""
        raise NotImplementedError
