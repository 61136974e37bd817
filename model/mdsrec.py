"""MDSRec: Multimodal Difference Learning for Sequential Recommendation (arXiv 2412.08103).

MDSRec uses relations between items instead of their features. In each modality, an item's vector is computed from the
ID rows of its neighbours (Ehat_m = A_m E_id). The ID channel adds the ID rows of co-occurring items to the item's own
(Ebar_id = mu_id O E_id + E_id).

The class `MDSRec` follows the paper's equations and has their numbers. `user_vectors` is the outline, and each method
after it is one step. `graph_builder` computes Eq. 1, 2, 4 and 5, which define O and A_m. Eq. 20-24 are scores and
losses over channels, which are the same for every system (`blocks/losses.py`). `model/cpu/` has faster paths of the
equations, and `blocks/center_chunks.py` bounds the memory of centre attention.

Shapes: B targets, S sequences, L positions, Q requested states of a sequence, n states, R items with a role,
M modalities, k centres, d width, d_m width of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from configs.model_options import ModelConfig, own_knobs
from configs.systems.mdsrec import MDSRecConfig
from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from model.blocks.center_chunks import CenterChunks, EncodedGroup
from model.blocks.feature_maps import numbered
from model.blocks.fusion import fused_state, gated_centers
from model.blocks.interest_centers import History, center_vectors, personal_centers
from model.blocks.sequence_encoder import (
    EncodedSequences,
    KeysValues,
    SequenceEncoder,
    TransformerLayer,
    initialise,
    layers_of,
)
from model.blocks.sequence_groups import Sequences, at_targets, read_groups
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender


class MDSRec(Recommender):
    """A channel "id" (weight 1, e_s times E_id) and a channel for each modality (weight rho_m, e~_m times Ehat_m)."""

    def __init__(self, config: ModelConfig, info: CatalogueInfo) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the config names a modality that the catalogue lacks, or the catalogue has no modality.
        """
        super().__init__()
        options = own_knobs(config, MDSRecConfig)
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
        # In the order (id, *modalities), or one encoder for all. Lists, not ModuleDicts: a name may have a dot.
        num_encoders = 1 if options.share_modalities else 1 + len(self.modalities)
        self.encoders = nn.ModuleList(SequenceEncoder(config) for _ in range(num_encoders))
        self.center_layers = nn.ModuleList()
        if self.needs.centers and not options.share_centers:
            num_towers = 1 if options.share_modalities else len(self.modalities)
            self.center_layers.extend(_center_layers(config) for _ in range(num_towers))
        self.projections = nn.ModuleList(
            nn.Linear(info.feature_dims[m], config.dim) for m in self.modalities if from_features
        )
        self.module_features = numbered("projections", self.needs.features)
        if not options.share_modalities:
            self.module_features |= numbered("encoders", self.modalities, first=1)
            self.module_features |= numbered("center_layers", self.modalities[: len(self.center_layers)])
        initialise(self, config.init_std)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        """Return [E_id, Ehat_1 .. Ehat_M], each [R, d]; scores are their products with user vectors (Eq. 20-22)."""
        assert items.ids is not None
        return [items.ids, *self.modal_views(items)]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        """Return [e_s, e~_1 .. e~_M], each [B, d]: Eq. 3 to 19, one method for each step."""
        views = self.modal_views(items)
        (ids,) = items.per_item("injected ids", lambda: [self.injected_ids(items)])
        centers = self.centers(items, views) if self.options.center_attention else []
        groups = read_groups(batch, [ids, *views])
        of_ids, *of_modalities = self.towers(groups)
        fused = self.fused_states(of_ids, of_modalities)
        personal = [[encoded.states for encoded in of_modality] for of_modality in of_modalities]
        if self.options.center_attention:
            sequences = [sequences for sequences, _ in groups]
            chunks = CenterChunks.within_budget(self.config, centers, sequences, batch.states.shape[0])
            personal = [
                self.gated_states(number, centers[number], of_modality, chunks)
                for number, of_modality in enumerate(of_modalities)
            ]
        return at_targets(batch, [list(of_group) for of_group in zip(fused, *personal, strict=True)])

    def injected_ids(self, items: ItemRows) -> Tensor:
        """Return Ebar_id = mu_id * O E_id + E_id, [R, d] (Eq. 3)."""
        assert items.ids is not None
        if items.cooccurrence is None:
            return items.ids
        return self.options.mu_id * items.cooccurrence + items.ids

    def modal_views(self, items: ItemRows) -> list[Tensor]:
        """Return Ehat_m = A_m E_id of each modality, [R, d]: the mean of the neighbours' ID rows (Eq. 6).

        With `adjacency=sum` it is their sum, and with `item_view=features` it is the projected raw features.
        """
        if self.options.item_view == "graph":
            return [items.views[modality] for modality in self.modalities]
        return [
            items.per_item(f"view {modality}", partial(_projected, items, modality, projection))[0]
            for modality, projection in zip(self.modalities, cast(Iterable[nn.Linear], self.projections), strict=True)
        ]

    def towers(self, groups: list[tuple[Sequences, list[Tensor]]]) -> list[list[EncodedSequences]]:
        """Encode each stream by its Transformer (Eq. 7-9); per stream (id, *modalities), per group."""
        per_group = [self._encoded(streams, group) for group, streams in groups]
        return [list(of_stream) for of_stream in zip(*per_group, strict=True)]

    def centers(self, items: ItemRows, views: list[Tensor]) -> list[Tensor]:
        """Return Ehat_c^m = C_m Ehat_m of each modality, [k, d] (Eq. 10, 11), from `items`, which keeps them."""
        for m, view in zip(self.modalities, views, strict=True):
            if m not in items.centers:
                items.centers[m] = center_vectors(items.center_rows[m], view)
        return [items.centers[m] for m in self.modalities]

    def gated_states(
        self,
        number: int,
        centers_kd: Tensor,
        encoded: list[EncodedSequences],
        chunks: CenterChunks,
    ) -> list[Tensor]:
        """Return e~_m of modality `number`, per group [S, Q, d] (Eq. 12-16 and 19)."""
        options = self.options
        layers = self._layers_of_centers(number)
        noisy = options.gumbel_noise if self.training else options.gumbel_at_evaluation
        literal = options.center_feed_forward == "literal"

        def gated(states_nd: Tensor, histories: list[History]) -> Tensor:
            personal_nkd = personal_centers(
                centers_kd, layers, histories, options.center_dropout, options.center_residual, literal
            )
            return gated_centers(states_nd, personal_nkd, options.tau, noisy)

        groups = [EncodedGroup(of_group.states, self._keys_values(of_group, layers)) for of_group in encoded]
        return chunks.compute(groups, len(centers_kd), gated)

    def fused_states(self, of_ids: list[EncodedSequences], of_modalities: list[list[EncodedSequences]]) -> list[Tensor]:
        """Return e_s = sum_m rho_m e_m + e_id, per group [S, Q, d] (Eq. 17, 18)."""
        rho = [channel.weight for channel in self.channels[1:]]
        return [
            fused_state(of_id.states, zip(rho, [e.states for e in modal], strict=True))
            for of_id, *modal in zip(of_ids, *of_modalities, strict=True)
        ]

    def _encoded(self, streams: list[Tensor], group: Sequences) -> list[EncodedSequences]:
        """Encode each stream by its tower; a tower that all streams share encodes them as one batch."""
        if self.options.share_modalities:
            return self.encoders[0](torch.cat(streams), group).split(len(streams))
        return [encoder(stream, group) for encoder, stream in zip(self.encoders, streams, strict=True)]

    def _layers_of_centers(self, number: int) -> list[TransformerLayer]:
        """Return the layers that process the centres of modality `number`."""
        if self.options.share_centers:
            encoder = cast(SequenceEncoder, self.encoders[0 if self.options.share_modalities else 1 + number])
            return layers_of(encoder.layers)
        return layers_of(self.center_layers[0 if self.options.share_modalities else number])

    def _keys_values(self, encoded: EncodedSequences, layers: list[TransformerLayer]) -> list[KeysValues]:
        """Return, per layer, the keys and values that centres attend to: the tower's own if they share its layers."""
        if self.options.share_centers:
            return encoded.keys_values
        return [layer.keys_values(states) for layer, states in zip(layers, encoded.entering, strict=True)]


def _center_layers(config: ModelConfig) -> nn.ModuleList:
    norms = own_knobs(config, MDSRecConfig).center_residual  # DDP needs a gradient of every parameter
    return nn.ModuleList(TransformerLayer(config, norms) for _ in range(config.num_layers))


def _projected(items: ItemRows, modality: str, projection: nn.Linear) -> list[Tensor]:
    """Return projected features, one tensor [R, d]; an item without the modality gets its own ID row."""
    features = items.features[modality]
    assert items.ids is not None
    present = (features != 0).any(dim=1, keepdim=True)
    return [torch.where(present, projection(features.to(projection.weight.dtype)), items.ids)]


def _chosen_modalities(config: ModelConfig, info: CatalogueInfo) -> tuple[str, ...]:
    options = own_knobs(config, MDSRecConfig)
    chosen = info.modalities if options.modalities is None else options.modalities
    if not chosen and options.modalities is None:
        raise InputError(
            "model.mdsrec.modalities: the graph has no modality; add item features to the dataset and rebuild the "
            "graph, or set model.mdsrec.modalities=[] for the ID channel alone"
        )
    needed = {"neighbours": info.modalities}
    if options.item_view == "features":
        needed["raw features"] = tuple(info.feature_dims)
    if options.center_attention:
        needed["interest centres"] = tuple(m for m, k in info.num_centers.items() if k > 0)
    for what, having in needed.items():
        for modality in chosen:
            if modality not in having:
                raise InputError(
                    f"model.mdsrec.modalities: there are no {what} for {modality!r} (only for "
                    f"{', '.join(having) or 'none'}); name one of those, or rebuild dataset and graph with it"
                )
    return tuple(chosen)
