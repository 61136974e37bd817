"""MSM4SR (Zhang et al., "Multimodal Pre-training Framework for Sequential Recommendation via Contrastive Learning").

An item has two features, such as text and image, or a single one. An adaptor, a mixture of experts, turns each into a
vector z_m. One causal Transformer reads the vectors of each feature as a stream of its own; its states are h_m.

Pre-training (`objective: contrastive`) has no item IDs. It drops items, exchanges the features at some positions, and
contrasts the targets of a batch. With a single feature nothing is exchanged, and there is no loss between features.
Fine-tuning (`next_item`) adds the item's ID row to z_m. The score is the sum of the
two cosines of h_m and z_m, divided by a temperature.

Shapes: S sequences of a group, L positions, B targets, R items with a role, G experts, d width, d_m of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelConfig
from configs.systems.msm4sr import MSM4SRConfig
from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from model.blocks.augmentation import random_positions, without_items
from model.blocks.contrastive import contrastive_loss
from model.blocks.experts import mixture
from model.blocks.feature_maps import chosen_features, numbered
from model.blocks.sequence_encoder import NORM_EPS, SequenceEncoder, initialise
from model.blocks.sequence_groups import Sequences, in_groups
from model.blocks.unit_vectors import unit_vectors
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender


class Adaptor(nn.Module):
    """z = sum_g softmax(x W_gate)_g * LayerNorm_g(dropout(W_g x + b_g))."""

    def __init__(self, feature_dim: int, dim: int, knobs: MSM4SRConfig) -> None:
        super().__init__()
        self.rate = knobs.adaptor_dropout
        self.gate = nn.Parameter(torch.zeros(feature_dim, knobs.num_experts))
        self.experts = nn.Linear(feature_dim, knobs.num_experts * dim)
        self.scales = nn.Parameter(torch.ones(knobs.num_experts, dim))
        self.shifts = nn.Parameter(torch.zeros(knobs.num_experts, dim))

    def forward(self, features_Rm: Tensor) -> Tensor:
        """Return the adapted features, [R, d]."""
        experts_RGd = dropout(self.experts(features_Rm), self.rate, self.training).unflatten(-1, self.scales.shape)
        normed_RGd = F.layer_norm(experts_RGd, experts_RGd.shape[-1:], eps=NORM_EPS) * self.scales + self.shifts
        return mixture(normed_RGd.flatten(-2), features_Rm @ self.gate)


class MSM4SR(Recommender):
    """A causal Transformer over adapted features: pre-trained without item IDs, or fine-tuned with them.

    Attributes:
        draw_dropped: chooses, from a group and a share, the positions whose items are dropped, bool [S, L].
        draw_exchanged: the same for the positions at which the features are exchanged. Tests replace both.
    """

    sums_scores = True

    def __init__(self, config: ModelConfig, info: CatalogueInfo, knobs: MSM4SRConfig) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the catalogue lacks a feature that the knobs name, or they name neither one nor two.
        """
        super().__init__()
        self.names = chosen_features(info, "msm4sr", knobs.features, at_least_one=True)
        if len(self.names) > 2:
            raise InputError(
                f"model.msm4sr.features={list(self.names)}: MSM4SR reads one feature or two; name at most two of "
                f"{', '.join(sorted(info.feature_dims))}"
            )
        self.contrasts, self.knobs = knobs.objective == "contrastive", knobs
        self.needs = ItemNeeds(id_rows=not self.contrasts, features=self.names)
        self.channels = tuple(
            Channel(name, 1.0, is_modality=True, cosine_temperature=knobs.temperature) for name in self.names
        )
        self.adaptors = nn.ModuleList(Adaptor(info.feature_dims[name], config.dim, knobs) for name in self.names)
        self.encoder = SequenceEncoder(config)
        projects = self.contrasts and knobs.project_states
        self.projections = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in self.names) if projects else None
        self.module_features = numbered("adaptors", self.names) | numbered(
            "projections", self.names if projects else ()
        )
        self.draw_dropped: Callable[[Sequences, Tensor], Tensor] = random_positions
        self.draw_exchanged: Callable[[Sequences, Tensor], Tensor] = random_positions
        initialise(self, config.init_std)
        for adaptor in self.adaptors:  # as the authors: with biases of 0, LayerNorm could not scale a feature of zeros
            experts = cast(Adaptor, adaptor).experts
            nn.init.uniform_(experts.bias, -(experts.in_features**-0.5), experts.in_features**-0.5)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        """Return z_m, plus the ID row in fine-tuning, [R, d] for each feature."""
        vectors = items.per_item("adapted", lambda: [self._adapted(m, items) for m in range(len(self.names))])
        return vectors if items.ids is None else [vector + items.ids for vector in vectors]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        """Return h_m, or the linear map of h_m that predicts the same feature, [B, d] for each feature."""
        states = self._states(items, batch)
        if self.projections is None:
            return states
        return [project(state) for project, state in zip(self.projections, states, strict=True)]

    def _adapted(self, number: int, items: ItemRows) -> Tensor:
        adaptor = cast(Adaptor, self.adaptors[number])
        features = items.features[self.names[number]].to(adaptor.gate.dtype)
        adapted: Tensor = adaptor(features)
        return adapted * features.any(dim=1, keepdim=True) if self.knobs.mask_missing else adapted

    def _states(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        changes = self.training and self.contrasts
        # A batch draws its two shares once, whatever the number of its groups.
        draws = torch.rand(2, device=batch.lengths.device) if changes else torch.zeros(2)

        def states(group: Sequences, streams: list[Tensor]) -> list[Tensor]:
            if changes:
                dropped = self.draw_dropped(group, draws[0] * self.knobs.item_dropout)
                group, streams = without_items(group, streams, dropped)
                if len(streams) == 2:
                    exchanged = self.draw_exchanged(group, draws[1] * self.knobs.mixup)[:, :, None]
                    streams = [torch.where(exchanged, other, one) for one, other in (streams, streams[::-1])]
            return [encoded.states for encoded in self.encoder(torch.cat(streams), group).split(len(streams))]

        return in_groups(batch, self.item_vectors(items), states)

    @property
    def loss_labels(self) -> tuple[str, ...]:
        if not self.contrasts:
            return super().loss_labels
        cross_modal = ("cross-modal",) if len(self.names) == 2 else ()
        return (*(channel.label for channel in self.channels), *cross_modal)

    def contrastive_losses(self, items: ItemRows, batch: Batch, target_ids: Tensor) -> list[tuple[float, Tensor]]:
        """Return the next-item loss of each feature, and of two features the cross-modal one."""
        states = self._states(items, batch)
        if self.projections is None:  # views of a user that should agree, and what predicts each feature
            views = [[unit_vectors(state) for state in states]]
            queries = [[view] for view in views[0]]
        else:
            views = queries = [[unit_vectors(project(h)) for h in states] for project in self.projections]
        targets = [F.embedding(batch.targets, vectors) for vectors in self.scored_items(items)]
        ids = (target_ids, self.gather(target_ids))
        losses = [(1.0, self._next_item(*of_feature, *ids)) for of_feature in zip(queries, targets, strict=True)]
        if len(self.names) == 1:
            return losses
        agreement = torch.stack([self._cross_modal(one, other, *ids) for one, other in views]).sum()
        return [*losses, (self.knobs.cross_modal_weight, agreement)]

    def _next_item(self, queries: list[Tensor], targets: Tensor, own_ids: Tensor, all_ids: Tensor) -> Tensor:
        """-log( sum_q e^{q_b.z_b} / sum_q sum_j e^{q_b.z_j} ): the target's feature among those of other targets."""
        scaled = [query / self.knobs.temperature for query in queries]
        candidates = self.gather(targets)
        positives, negatives = [(q, targets) for q in scaled], [(q, candidates) for q in scaled]
        return contrastive_loss(positives, negatives, own_ids, all_ids)

    def _cross_modal(self, one: Tensor, other: Tensor, own_ids: Tensor, all_ids: Tensor) -> Tensor:
        """The mean of -log( e^{t_b.v_b} / (sum_j e^{t_b.v_j} + sum_{j != b} e^{u_b.u_j}) ) for u = t and for u = v.

        Both halves have the negatives t_b.v_j, as the authors' code has.
        """
        scaled = [view / self.knobs.temperature for view in (one, other)]
        all_one, all_other = self.gather(one), self.gather(other)
        halves = [
            contrastive_loss([(scaled[0], other)], [(scaled[0], all_other), within], own_ids, all_ids)
            for within in ((scaled[0], all_one), (scaled[1], all_other))
        ]
        return torch.stack(halves).mean()
