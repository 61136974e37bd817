"""SASRecF, RecBole's SASRec with item features: features are concatenated to the ID row before the tower.

It has one channel, as SASRec has: scores are products of the tower's states with the items' ID rows. RecBole looks up
embeddings of categorical features. Features are dense vectors here, so a linear map for each takes their place.

Shapes: R items with a role, M features, d width of a row, d_m of a feature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.schema import ModelConfig
from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemNeeds
from model.blocks.feature_maps import numbered
from model.blocks.sequence_encoder import SequenceEncoder, initialise
from model.blocks.sequence_groups import in_groups
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender


class SASRecF(Recommender):
    """A causal Transformer over the items W [e_id ; W_1 x_1 + b_1 ; ... ; W_M x_M + b_M].

    An item without a feature has x_m = 0, so that b_m remains.
    """

    def __init__(self, config: ModelConfig, info: CatalogueInfo) -> None:
        """Build the model for a catalogue.

        Raises:
            InputError: the catalogue has no item features.
        """
        super().__init__()
        if not info.feature_dims:
            raise InputError(
                "model.name=sasrecf: the dataset has no item features; prepare it with --features NAME=FILE, or set "
                "model.name=sasrec"
            )
        self.names = tuple(sorted(info.feature_dims))
        self.needs = ItemNeeds(id_rows=True, features=self.names)
        self.channels = (Channel("id", 1.0),)
        self.encoder = SequenceEncoder(config)
        self.projections = nn.ModuleList(nn.Linear(info.feature_dims[name], config.dim) for name in self.names)
        self.module_features = numbered("projections", self.names)
        self.join = nn.Linear((1 + len(self.names)) * config.dim, config.dim)
        initialise(self, config.init_std)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        joined = items.per_item("joined", lambda: [self._joined(items)])
        return in_groups(batch, joined, lambda group, items: [self.encoder(items[0], group).states])

    def _joined(self, items: ItemRows) -> Tensor:
        """Return the ID row and features of each item, joined by a linear map, [R, d]."""
        assert items.ids is not None
        projected = [
            projection(items.features[name].to(items.ids.dtype))
            for name, projection in zip(self.names, self.projections, strict=True)
        ]
        joined: Tensor = self.join(torch.cat([items.ids, *projected], dim=1))
        return joined
