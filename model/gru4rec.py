"""GRU4Rec (Hidasi et al. 2016, Tan et al. 2016) in RecBole's form, trained with a full softmax.

It has one channel: scores are products of a linear map of the GRU's states with the items' ID rows.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.schema import ModelConfig
from configs.systems.gru4rec import GRU4RecConfig
from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.blocks.gru import gru_states, new_gru
from model.blocks.sequence_groups import Sequences, in_groups
from model.cpu.dropout import dropout
from model.protocol import Channel, ItemRows
from model.recommender import Recommender


class GRU4Rec(Recommender):
    """A GRU over item IDs, and a linear map of its states to the width of an ID row."""

    def __init__(self, config: ModelConfig, knobs: GRU4RecConfig) -> None:
        super().__init__()
        self.needs = ItemNeeds(id_rows=True)
        self.channels = (Channel("id", 1.0),)
        self.rate = knobs.dropout
        self.gru = new_gru(config.dim, knobs)
        self.output = nn.Linear(knobs.hidden_size, config.dim)
        for weight in self.gru.parameters():
            nn.init.xavier_uniform_(weight)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        return [items.ids]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        assert items.ids is not None

        def states(group: Sequences, streams: list[Tensor]) -> list[Tensor]:
            ids_SLd = dropout(streams[0], self.rate, self.training)
            return [self.output(gru_states(self.gru, ids_SLd, group))]

        return in_groups(batch, [items.ids], states)
