"""MDSRec: Multimodal Difference Learning for Sequential Recommendation (arXiv 2412.08103).

Item relations replace features: an item is seen through the ID rows of its neighbours in each
modality (Ehat_m = A_m E_id), and through who was bought with it (Ebar_id = mu_id O E_id + E_id).

Shapes: S sequences, L positions, Q states asked for, R items with a role, M modalities, k centres, d width,
d_m of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig
from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from model.blocks.fusion import fused_state, gated_centers
from model.blocks.interest_centers import Piece, in_pieces, personal_centers, stored_bytes
from model.blocks.item_views import sparse_product
from model.blocks.sequence_encoder import (
    EncodedSequences,
    KeysValues,
    SequenceEncoder,
    TransformerLayer,
    initialise,
    layers_of,
)
from model.blocks.sequence_groups import Sequences, at_targets, read_groups
from model.cpu.fused_layer import can_fuse
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender


class MDSRec(Recommender):
    """Channels: "id" (weight 1, e_s against E_id) and each modality (weight rho_m, e~_m against Ehat_m)."""

    def __init__(self, config: ModelConfig, info: CatalogueInfo) -> None:
        """Build for a catalogue.

        Raises:
            InputError: a modality that the catalogue lacks, or none at all.
        """
        super().__init__()
        options = config.mdsrec
        self.config, self.options = config, options
        self.modalities = _chosen_modalities(config, info)
        from_features = options.item_view == "features"
        self.needs = ItemNeeds(
            id_rows=True,
            cooccurrence=options.mu_id > 0,
            cooccurrence_cap=options.max_cooccurrences,
            views=() if from_features else self.modalities,
            view_scale=options.adjacency,
            centers=self.modalities if options.center_attention else (),
            center_samples=options.center_samples,
            features=self.modalities if from_features else (),
        )
        rho = {modality: options.rho.get(modality, options.default_rho) for modality in self.modalities}
        self.channels = (Channel("id", 1.0), *(Channel(m, rho[m], is_modality=True) for m in self.modalities))
        # In the order (id, *modalities), or one for all. Lists, not dicts: a name may hold a dot.
        num_encoders = 1 if options.share_modalities else 1 + len(self.modalities)
        self.encoders = nn.ModuleList(SequenceEncoder(config) for _ in range(num_encoders))
        self.center_layers = nn.ModuleList()
        if self.needs.centers and not options.share_centers:
            num_towers = 1 if options.share_modalities else len(self.modalities)
            self.center_layers.extend(_center_layers(config) for _ in range(num_towers))
        self.projections = nn.ModuleList(
            nn.Linear(info.feature_dims[m], config.dim) for m in self.modalities if from_features
        )
        initialise(self, config.init_std)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids, *self._modal_views(items)]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        views = self._modal_views(items)
        streams = [self._injected_ids(items), *views]
        view_of = dict(zip(self.modalities, views, strict=True))
        centers = [
            items.centers[m] if m in items.centers else sparse_product(items.center_rows[m], view_of[m])
            for m in self.needs.centers
        ]
        stored = sum(stored_bytes(self.config, len(c), batch.groups, self._is_fused(c)) for c in centers)
        recompute = torch.is_grad_enabled() and stored > self.options.center_memory_gib * 2**30
        return at_targets(batch, self._users(read_groups(batch, streams), centers, recompute))

    def _injected_ids(self, items: ItemRows) -> Tensor:
        """Ebar_id = mu_id * O E_id + E_id, [R, d] (Eq. 3)."""
        assert items.ids is not None
        if items.cooccurrence is None:
            return items.ids
        return self.options.mu_id * items.cooccurrence + items.ids

    def _modal_views(self, items: ItemRows) -> list[Tensor]:
        """Ehat_m per modality, [R, d]: the mean of the neighbours' ID rows, or projected raw features."""
        if self.options.item_view == "graph":
            return [items.views[modality] for modality in self.modalities]
        return [
            items.derived(modality, partial(_projected, items, modality, projection))
            for modality, projection in zip(self.modalities, cast(Iterable[nn.Linear], self.projections), strict=True)
        ]

    def _users(
        self, groups: list[tuple[Sequences, list[Tensor]]], centers: list[Tensor], recompute: bool
    ) -> list[list[Tensor]]:
        """Per group [e_s, e~_1 .. e~_M], each [S, Q, d]."""
        encoded = [self._encode(items, sequences) for sequences, items in groups]
        weights = [channel.weight for channel in self.channels[1:]]
        users = [
            fused_state(of_id.states, zip(weights, [e.states for e in modal], strict=True)) for of_id, *modal in encoded
        ]
        if not self.options.center_attention:
            return [[user, *(e.states for e in modal)] for user, (_, *modal) in zip(users, encoded, strict=True)]
        gated = []
        for number, modal_centers in enumerate(centers):
            layers, pairs = self._center_path(number, [of_group[1 + number] for of_group in encoded])
            states = [of_group[1 + number].states for of_group in encoded]
            compute = partial(self._gated, modal_centers, layers, pairs, states)
            gated.append(in_pieces([sequences for sequences, _ in groups], len(modal_centers), compute, recompute))
        return [list(of_group) for of_group in zip(users, *gated, strict=True)]

    def _encode(self, items: list[Tensor], group: Sequences) -> list[EncodedSequences]:
        """Each stream through its tower; with one tower for all they go through it as one batch."""
        if self.options.share_modalities:
            return self.encoders[0](torch.cat(items), group).split(len(items))
        return [encoder(stream, group) for encoder, stream in zip(self.encoders, items, strict=True)]

    def _is_fused(self, centers: Tensor) -> bool:
        options = self.options
        as_in_the_tower = options.center_residual and options.center_feed_forward == "transformer"
        return as_in_the_tower and not options.center_dropout and can_fuse(centers)

    def _center_path(
        self, number: int, sequences: list[EncodedSequences]
    ) -> tuple[list[TransformerLayer], list[list[KeysValues]]]:
        """The layers that the centres of modality `number` go through, and per group each one's keys and values."""
        if self.options.share_centers:
            encoder = cast(SequenceEncoder, self.encoders[0 if self.options.share_modalities else 1 + number])
            return layers_of(encoder.layers), [of_group.keys_values for of_group in sequences]
        layers = layers_of(self.center_layers[0 if self.options.share_modalities else number])
        return layers, [
            [layer.keys_values(states) for layer, states in zip(layers, of_group.entering, strict=True)]
            for of_group in sequences
        ]

    def _gated(
        self,
        centers: Tensor,
        layers: list[TransformerLayer],
        pairs: list[list[KeysValues]],
        states: list[Tensor],
        pieces: list[Piece],
    ) -> Tensor:
        """e~_m of the states of some pieces, [n, d], from the e_m of all groups."""
        options = self.options
        seen = [[piece.seen(pair) for pair in pairs[piece.group]] for piece in pieces]
        visible = [piece.visible for piece in pieces]
        literal = options.center_feed_forward == "literal"
        personal = personal_centers(
            centers, layers, seen, visible, options.center_dropout, options.center_residual, literal
        )
        own = torch.cat([states[p.group][p.sequences, p.states].flatten(0, 1) for p in pieces])
        noisy = options.gumbel_noise if self.training else options.gumbel_at_evaluation
        return gated_centers(own, personal, options.tau, noisy)


def _center_layers(config: ModelConfig) -> nn.ModuleList:
    norms = config.mdsrec.center_residual  # a parameter without a gradient would stall DDP
    return nn.ModuleList(TransformerLayer(config, norms) for _ in range(config.num_layers))


def _projected(items: ItemRows, modality: str, projection: nn.Linear) -> Tensor:
    """Projected features [R, d]; an item without the modality keeps its own ID row."""
    features = items.features[modality]
    assert items.ids is not None
    present = (features != 0).any(dim=1, keepdim=True)
    return torch.where(present, projection(features.to(projection.weight.dtype)), items.ids)


def _chosen_modalities(config: ModelConfig, info: CatalogueInfo) -> tuple[str, ...]:
    chosen = info.modalities if config.mdsrec.modalities is None else config.mdsrec.modalities
    if not chosen and config.mdsrec.modalities is None:
        raise InputError(
            "model.mdsrec.modalities: the graph has no modality; add item features to the dataset and rebuild the "
            "graph, or set it to [] for the ID channel alone"
        )
    needed = {"neighbours": info.modalities}
    if config.mdsrec.item_view == "features":
        needed["raw features"] = tuple(info.feature_dims)
    if config.mdsrec.center_attention:
        needed["interest centres"] = tuple(m for m, k in info.num_centers.items() if k > 0)
    for what, having in needed.items():
        for modality in chosen:
            if modality not in having:
                raise InputError(
                    f"model.mdsrec.modalities: there are no {what} for {modality!r} (only for "
                    f"{', '.join(having) or 'none'}); name one of those, or rebuild dataset and graph with it"
                )
    return tuple(chosen)
