"""SASRec (Kang & McAuley 2018), trained with a full softmax as in RecBole and in UniSRec's tables.

It has one channel: scores are products of the tower's states with the items' ID rows.
"""

from __future__ import annotations

from torch import Tensor

from configs.schema import ModelConfig
from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.blocks.sequence_encoder import SequenceEncoder, initialise
from model.blocks.sequence_groups import in_groups
from model.protocol import Channel, ItemRows
from model.recommender import Recommender


class SASRec(Recommender):
    """A causal Transformer over item IDs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.needs = ItemNeeds(id_rows=True)
        self.channels = (Channel("id", 1.0),)
        self.encoder = SequenceEncoder(config)
        initialise(self, config.init_std)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        ids = items.ids
        assert ids is not None
        return in_groups(batch, [ids], lambda group, items: [self.encoder(items[0], group).states])
