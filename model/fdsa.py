"""FDSA (Zhang et al. 2019): one causal Transformer reads item IDs, another reads item features.

The form is RecBole's, with a linear map for each dense feature in place of embeddings of categorical features. With
`features: [text]` and `feature_map: relu` it is the form that UniSRec's authors compare with.

Shapes: R items with a role, M features, S sequences, L positions, Q requested states, d width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelConfig
from configs.systems.fdsa import FDSAConfig
from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.blocks.feature_maps import FeatureMaps, numbered
from model.blocks.sequence_encoder import NORM_EPS, TransformerLayer, initialise, through_layers
from model.blocks.sequence_groups import Sequences, in_groups
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender


class FieldAttention(nn.Module):
    """A weighted mean of an item's M mapped features v_m, with weights softmax over m of w . relu(W v_m + b)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1, bias=False)  # a bias would add the same number to every feature's score

    def forward(self, fields_RMd: Tensor) -> Tensor:
        """Return the weighted means, [R, d]."""
        weights_RM1 = self.score(F.relu(self.hidden(fields_RMd))).softmax(dim=1)
        return cast(Tensor, (weights_RM1 * fields_RMd).sum(dim=1))


class FDSA(Recommender):
    """LayerNorm(W [h_id ; h_x]): h_id is the state of the ID tower, h_x of the feature tower.

    Both towers add the same position embeddings. There is one channel, against the items' ID rows.
    """

    def __init__(self, config: ModelConfig, info: CatalogueInfo, knobs: FDSAConfig) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the catalogue has no item features, or lacks one that the knobs name.
        """
        super().__init__()
        self.features = FeatureMaps(info=info, dim=config.dim, system="fdsa", chosen=knobs.features)
        self.module_features = numbered("features.maps", self.features.names)
        self.needs = ItemNeeds(id_rows=True, features=self.features.names)
        self.channels = (Channel("id", 1.0),)
        self.rate, self.feature_rate = config.dropout, knobs.feature_dropout
        self.feature_relu = knobs.feature_map == "relu"
        self.attention = FieldAttention(config.dim) if len(self.features.names) > 1 else None
        self.positions = nn.Embedding(config.max_length, config.dim)
        norms = 1 if knobs.share_norms else 3  # of the ID tower's input, the feature tower's input, the output
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim, eps=NORM_EPS) for _ in range(norms))
        self.id_layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        self.feature_layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        self.join = nn.Linear(2 * config.dim, config.dim)
        initialise(self, config.init_std)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        assert items.ids is not None
        dtype = items.ids.dtype
        features = items.per_item("features", lambda: [self._feature_vectors(items, dtype)])
        return in_groups(batch, [items.ids, *features], self._states)

    def _feature_vectors(self, items: ItemRows, dtype: torch.dtype) -> Tensor:
        """Return one vector for all features of each item, [R, d]."""
        fields = self.features(items, dtype, self.feature_rate)
        if self.feature_relu:
            fields = [F.relu(field) for field in fields]
        if self.attention is None:
            return fields[0]
        return cast(Tensor, self.attention(torch.stack(fields, dim=1)))

    def _states(self, group: Sequences, streams: list[Tensor]) -> list[Tensor]:
        """Return the requested states of a group, [S, Q, d]."""
        id_norm, feature_norm, output_norm = (self.norms[n % len(self.norms)] for n in range(3))
        ids, features = streams
        h_id = self._tower(self.id_layers, id_norm, ids, group)
        h_x = self._tower(self.feature_layers, feature_norm, features, group)
        joined = output_norm(self.join(torch.cat([h_id, h_x], dim=-1)))
        return [dropout(joined, self.rate, self.training)]

    def _tower(self, layers: nn.ModuleList, norm: nn.Module, items_SLd: Tensor, group: Sequences) -> Tensor:
        states = norm(items_SLd + self.positions.weight[: group.length])
        return through_layers(layers, dropout(states, self.rate, self.training), group, self.rate).states
