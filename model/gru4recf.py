"""GRU4RecF (Hidasi et al. 2016, "Parallel Recurrent Neural Network Architectures") in RecBole's form.

One GRU reads item IDs and another reads item features. Features are dense vectors here, so a linear map for each takes
the place of RecBole's embeddings of categorical features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig
from configs.systems.gru4rec import GRU4RecConfig
from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.blocks.feature_maps import FeatureMaps, numbered
from model.blocks.gru import gru_states, new_gru
from model.blocks.sequence_groups import Sequences, in_groups
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender


class GRU4RecF(Recommender):
    """W [h_id ; h_x]: h_id is the state of a GRU over ID rows, h_x of a GRU over all mapped features, concatenated.

    Dropout applies to the ID rows only. There is one channel, against the items' ID rows.
    """

    def __init__(self, config: ModelConfig, info: CatalogueInfo, knobs: GRU4RecConfig) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the catalogue has no item features.
        """
        super().__init__()
        self.features = FeatureMaps(info=info, dim=config.dim, system="gru4recf")
        self.module_features = numbered("features.maps", self.features.names)
        self.needs = ItemNeeds(id_rows=True, features=self.features.names)
        self.channels = (Channel("id", 1.0),)
        self.rate = knobs.dropout
        self.id_gru = new_gru(config.dim, knobs)
        self.feature_gru = new_gru(config.dim * len(self.features.names), knobs)
        self.output = nn.Linear(2 * knobs.hidden_size, config.dim)
        for linear in (*self.features.maps, self.output):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        assert items.ids is not None

        def states(group: Sequences, streams: list[Tensor]) -> list[Tensor]:
            ids_SLd, features_SLx = streams
            ids_SLd = dropout(ids_SLd, self.rate, self.training)
            read = [gru_states(self.id_gru, ids_SLd, group), gru_states(self.feature_gru, features_SLx, group)]
            return [self.output(torch.cat(read, dim=-1))]

        dtype = items.ids.dtype
        features = items.per_item("mapped", lambda: [torch.cat(self.features(items, dtype), dim=1)])
        return in_groups(batch, [items.ids, *features], states)
