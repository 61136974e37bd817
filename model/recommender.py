"""The base class of every recommender, and so the interface to implement: needs, channels, vectors, loss.

Shapes: B targets of a batch, R items with a role, U items of the union, d width of a row, d_c width of channel c.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.batch import Batch
from contracts.item_plan import ItemNeeds, ItemPlan
from model.blocks.criterion import Criterion, CrossEntropy
from model.blocks.fused_loss import SampledColumns, fused_loss
from model.blocks.item_views import item_rows
from model.blocks.repeats import RepeatGains, SeenItems, seen_items
from model.blocks.score_fusion import ScoreFusion, fused_scores
from model.blocks.unit_vectors import unit_vectors
from model.protocol import CatalogueFeatures, Channel, ItemRows


class Recommender(nn.Module):
    """A model with the interface that training, ranking, export and recommendation use.

    A system sets `needs` and `channels`, and implements `item_vectors` and `user_vectors`. Everything that computes
    scores calls `scored_items` and `scored_users` instead, which apply the channels' cosines.

    Attributes:
        needs: what the loader must read of each item.
        channels: names and weights, in the order in which `item_vectors` and `user_vectors` return them.
        fusion: computes the score of a pair from its scores in all channels; None: the score is their weighted sum.
            With a fusion, all channels have the same width and the weight 1, and there is one loss.
        epoch_buffers: names of the buffers that `begin_epoch` computes anew before each epoch.
        repeats: learned gains of items that are in the user's input; None: there are none.
        criterion: the loss of a batch, over channels; cross entropy, unless it is replaced before training.
        channel_losses: [C] on the device, the loss of each loss channel summed over the targets of the latest batch,
            without weights and without gradients; None before the first batch.
    """

    needs: ItemNeeds
    channels: tuple[Channel, ...]
    fusion: ScoreFusion | None
    epoch_buffers: tuple[str, ...] = ()
    repeats: RepeatGains | None
    criterion: Criterion
    channel_losses: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.fusion = None
        self.repeats = None
        self.criterion = CrossEntropy()
        self.channel_losses = None

    @property
    def loss_channels(self) -> tuple[Channel, ...]:
        """The channels that have a loss and a gain of their own; with a fusion, one for the fused score."""
        return self.channels if self.fusion is None else (Channel("fused", 1.0),)

    def learn_repeats(self) -> None:
        """Give each loss channel a learned gain for items that are in the user's input."""
        self.repeats = RepeatGains(len(self.loss_channels))

    def repeat_gains(self) -> Tensor:
        """Return each loss channel's weighted gain of an item of the input, float32 [C] on the CPU, or zeros."""
        weights = torch.tensor([channel.weight for channel in self.loss_channels])
        return weights * (self.repeats.weight.detach().cpu() if self.repeats is not None else 0.0)

    def forward(self, rows_Ud: Tensor | None, plan: ItemPlan, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar, over its candidates or over all R items with a role.

        Args:
            rows_Ud: the looked-up rows of the plan's union; None for a model without an item table.
            plan: the items of the step.
            batch: the sequences and targets of the step.
        """
        items = item_rows(rows_Ud, plan)
        users, vectors = self.scored_users(items, batch), self.scored_items(items)
        seen = seen_items(batch, self.repeats.weight) if self.repeats is not None else None
        parts: list[Tensor] = []
        loss = self._loss(users, vectors, batch, seen, parts) + self.penalty(items, batch)
        self.channel_losses = torch.stack(parts)
        return loss

    def penalty(self, items: ItemRows, batch: Batch) -> Tensor | float:  # noqa: ARG002 - for systems that have one
        """Return what is added to this rank's part of the loss besides the criterion; ranks add up."""
        return 0.0

    def begin_epoch(self, catalogue: CatalogueFeatures) -> None:
        """Compute the buffers that `epoch_buffers` names, in place.

        Rank 0 calls this before each epoch, without gradients and in evaluation mode. The other ranks then receive the
        buffers' bytes. They are part of the checkpoint. torch's random numbers depend on the run's seed and the epoch.
        """
        raise NotImplementedError

    def _loss(
        self, users: list[Tensor], items: list[Tensor], batch: Batch, seen: SeenItems | None, parts: list[Tensor]
    ) -> Tensor:
        targets, num_targets = batch.targets, batch.num_global_targets
        if self.fusion is not None:
            sampled = None
            if batch.candidates is not None and batch.log_weights is not None:
                sampled = SampledColumns(
                    candidates=batch.candidates, log_weights=batch.log_weights, same_sequence=batch.same_sequence
                )
            row_loss = self.criterion.row_loss
            return fused_loss(row_loss, users, items, self.fusion, targets, num_targets, sampled, seen, parts)
        if batch.candidates is None:
            return self.criterion.full(users, items, self.channels, targets, num_targets, seen, parts)
        assert batch.log_weights is not None
        return self.criterion.sampled(
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

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the score of every pair of a user [B, D] and an item [n, D], all channels side by side: [B, n]."""
        if self.fusion is None:
            return users @ items.T
        count = len(self.channels)
        return fused_scores(self.fusion, users.chunk(count, dim=1), items.chunk(count, dim=1))

    def scored_items(self, items: ItemRows) -> list[Tensor]:
        """Return, per channel, the item vectors whose inner products with `scored_users` are scores, [R, d_c].

        They are the vectors of `item_vectors`, with length 1 in a channel that scores by a cosine.
        """
        vectors = zip(self.channels, self.item_vectors(items), strict=True)
        return [vector if c.cosine_temperature is None else unit_vectors(vector) for c, vector in vectors]

    def scored_users(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        """Return, per channel, the user vectors whose inner products with `scored_items` are scores, [B, d_c].

        They are the vectors of `user_vectors`, with length 1/temperature in a channel that scores by a cosine.
        """
        vectors = zip(self.channels, self.user_vectors(items, batch), strict=True)
        return [
            vector if c.cosine_temperature is None else unit_vectors(vector) / c.cosine_temperature
            for c, vector in vectors
        ]

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        """Return, per channel, the vectors of the items with a role, [R, d_c]."""
        raise NotImplementedError

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        """Return, per channel, the state that each target is predicted from, [B, d_c]."""
        raise NotImplementedError
