"""The base class of every recommender, and so the interface to implement: needs, channels, vectors, loss.

Shapes: B targets of a batch, R items with a role, U items of the union, d width of a row, d_c width of channel c.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.batch import Batch
from contracts.item_plan import ItemNeeds, ItemPlan
from model.blocks.contrastive import Gather, own_rows
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

    The loss is the criterion's for each channel, or for the whole score if `sums_scores` or `fusion` is set. A system
    that sets `contrasts` is trained by losses of its own instead, and implements `contrastive_losses`.

    Attributes:
        sums_scores: whether there is one loss, of the sum over channels, instead of one of each channel.
        contrasts: whether the system is trained by `contrastive_losses`.
        gather: returns the rows of all ranks from those of this rank, for `contrastive_losses`.
        needs: what the loader must read of each item.
        channels: names and weights, in the order in which `item_vectors` and `user_vectors` return them.
        fusion: computes the score of a pair from its scores in all channels; None: the score is their weighted sum.
            With a fusion, all channels have the same width and the weight 1, and there is one loss.
        epoch_buffers: names of the buffers that `begin_epoch` computes anew before each epoch.
        of_items: names of the parameters and buffers that have an entry for each item of the catalogue. They mean
            nothing to a run on another dataset.
        module_features: the feature that a module belongs to, by the module's name, for modules that are numbered or
            named without it. A run that starts from this one must read the same feature there.
        repeats: learned gains of items that are in the user's input; None: there are none.
        criterion: the loss of a batch, over channels; cross entropy, unless it is replaced before training.
        channel_losses: [C] on the device, the losses that `loss_labels` names, summed over the targets of the latest
            batch, without weights and without gradients; None before the first batch.
    """

    sums_scores: bool = False
    contrasts: bool = False
    gather: Gather
    needs: ItemNeeds
    channels: tuple[Channel, ...]
    fusion: ScoreFusion | None
    epoch_buffers: tuple[str, ...] = ()
    of_items: tuple[str, ...] = ()
    module_features: dict[str, str]
    repeats: RepeatGains | None
    criterion: Criterion
    channel_losses: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.module_features = {}
        self.fusion = None
        self.gather = own_rows
        self.repeats = None
        self.criterion = CrossEntropy()
        self.channel_losses = None

    @property
    def has_one_loss(self) -> bool:
        """Whether one loss is computed from the whole score, instead of one from each channel."""
        return self.sums_scores or self.fusion is not None

    @property
    def loss_labels(self) -> tuple[str, ...]:
        """The names of `channel_losses` in records."""
        return ("score",) if self.has_one_loss else tuple(channel.label for channel in self.channels)

    def learn_repeats(self) -> None:
        """Give each channel, or the one score that has a loss, a learned gain for items in the user's input."""
        self.repeats = RepeatGains(1 if self.has_one_loss else len(self.channels))

    def repeat_gains(self) -> Tensor:
        """Return each channel's weighted gain of an item of the input, float32 [C] on the CPU; 0 if not learned.

        The gain of a score with one loss is divided among the channels by their weights.
        """
        weights = torch.tensor([channel.weight for channel in self.channels])
        if self.has_one_loss:
            weights = weights / weights.sum()
        return weights * (self.repeats.weight.detach().cpu() if self.repeats is not None else 0.0)

    def forward(self, rows_Ud: Tensor | None, plan: ItemPlan, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar, over its candidates or over all R items with a role.

        Candidates of contrastive losses are the targets of the global batch, over all ranks.

        Args:
            rows_Ud: the looked-up rows of the plan's union; None for a model without an item table.
            plan: the items of the step.
            batch: the sequences and targets of the step.
        """
        items = item_rows(rows_Ud, plan)
        if self.contrasts:
            weighted = self.contrastive_losses(items, batch, plan.union_ids[batch.targets])
            self.channel_losses = torch.stack([loss.detach() for _, loss in weighted])
            total = torch.stack([weight * loss for weight, loss in weighted]).sum()
            return total / max(batch.num_global_targets, 1) + self.penalty(items, batch)
        users, vectors = self.scored_users(items, batch), self.scored_items(items)
        seen = seen_items(batch, self.repeats.weight) if self.repeats is not None else None
        parts: list[Tensor] = []
        loss = self._loss(users, vectors, batch, seen, parts) + self.penalty(items, batch)
        self.channel_losses = torch.stack(parts)
        return loss

    def penalty(self, items: ItemRows, batch: Batch) -> Tensor | float:  # noqa: ARG002 - for systems that have one
        """Return what is added to this rank's part of the loss; the parts of all ranks add up to the step's loss."""
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
        targets, num_targets, channels = batch.targets, batch.num_global_targets, self.channels
        if self.fusion is not None:
            sampled = None
            if batch.candidates is not None and batch.log_weights is not None:
                sampled = SampledColumns(
                    candidates=batch.candidates, log_weights=batch.log_weights, same_sequence=batch.same_sequence
                )
            row_loss = self.criterion.row_loss
            return fused_loss(row_loss, users, items, self.fusion, targets, num_targets, sampled, seen, parts)
        if self.sums_scores:  # the score is one inner product of concatenated vectors
            users = [torch.cat([c.weight * user for c, user in zip(channels, users, strict=True)], dim=1)]
            items, channels = [torch.cat(items, dim=1)], (Channel("score", 1.0),)
        if batch.candidates is None:
            return self.criterion.full(users, items, channels, targets, num_targets, seen, parts)
        assert batch.log_weights is not None
        return self.criterion.sampled(
            users,
            items,
            channels,
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

    def weighted_users(self, items: ItemRows, batch: Batch) -> Tensor:
        """Return `scored_users`, each channel times its weight, side by side: [B, sum_c d_c]."""
        users = self.scored_users(items, batch)
        return torch.cat([c.weight * user for c, user in zip(self.channels, users, strict=True)], dim=1)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        """Return, per channel, the vectors of the items with a role, [R, d_c]."""
        raise NotImplementedError

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        """Return, per channel, the state that each target is predicted from, [B, d_c]."""
        raise NotImplementedError

    def contrastive_losses(self, items: ItemRows, batch: Batch, target_ids: Tensor) -> list[tuple[float, Tensor]]:
        """Return weights and losses, each summed over this rank's targets; only for a system that sets `contrasts`.

        Every rank calls `gather` for the same tensors in the same order, also with an empty batch.

        Args:
            items: the items of the step: those of histories and targets.
            batch: the sequences and targets of the step.
            target_ids: int64 [B], the item ids of the targets, which are the same on all ranks, unlike positions.
        """
        raise NotImplementedError
