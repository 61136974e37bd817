"""BERT4Rec (Sun et al., CIKM 2019), in RecBole's form: a bidirectional Transformer that fills in masked items.

In training, a mask takes the place of some items of a sequence, and each of them is predicted from the state at its
place, which sees all other items, earlier and later ones. To predict a user's next item, a mask follows the input. The
score of an item is the product of the state with the item's ID row, plus a number of the item's own, its output bias.

Shapes: S sequences of a group, L positions, R items with a role, B targets, d width of a row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.model_options import ModelConfig, own_knobs
from configs.systems.bert4rec import BERT4RecConfig
from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.blocks.sequence_encoder import NORM_EPS, TransformerLayer, initialise, layers_of
from model.blocks.sequence_groups import Sequences, in_groups
from model.cpu.dropout import dropout
from model.protocol import CatalogueInfo, Channel, ItemRows
from model.recommender import Recommender


class BERT4Rec(Recommender):
    """A bidirectional Transformer over item IDs and masks.

    The score is one inner product, of [state, 1] and [row, bias].
    """

    of_items = ("output_bias",)

    def __init__(self, config: ModelConfig, info: CatalogueInfo) -> None:
        super().__init__()
        knobs = own_knobs(config, BERT4RecConfig)
        self.needs = ItemNeeds(id_rows=True)
        self.channels = (Channel("id", 1.0),)
        self.rate = config.dropout
        self.from_latest = knobs.position_zero == "latest"
        self.mask = nn.Parameter(torch.empty(config.dim))  # what a masked item has in place of its ID row
        self.positions = nn.Embedding(config.max_length + 1, config.dim)  # of the input, and of a mask after it
        self.input_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        self.output = nn.Linear(config.dim, config.dim)
        self.output_norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.output_bias = nn.Parameter(torch.zeros(info.num_items)) if knobs.output_bias else None
        initialise(self, config.init_std)
        nn.init.normal_(self.mask, std=config.init_std)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.ids is not None
        if self.output_bias is None:
            return [items.ids]
        bias = self.output_bias.index_select(0, items.item_ids)
        return [torch.cat([items.ids, bias[:, None]], dim=1)]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        assert items.ids is not None
        (states,) = in_groups(batch, [items.ids], lambda group, streams: [self._states(group, streams[0])])
        states = self.output_norm(F.gelu(self.output(states)))
        return [states if self.output_bias is None else F.pad(states, (0, 1), value=1.0)]

    def _states(self, group: Sequences, rows_SLd: Tensor) -> Tensor:
        """Return the states at the masks, [S, Q, d]. A batch without masks gets one after each input."""
        if group.masked is not None:
            rows_SLd = torch.where(group.masked[:, :, None], self.mask, rows_SLd)
            return self._encoded(rows_SLd, group.lengths, group.masked_places())
        assert group.num_queries == 1, "each state sees the whole input, so a sequence has one state only"
        places = torch.arange(group.length + 1, device=rows_SLd.device)
        after_S1 = group.lengths[:, None]
        rows_SLd = torch.where((places == after_S1)[:, :, None], self.mask, F.pad(rows_SLd, (0, 0, 0, 1)))
        return self._encoded(rows_SLd, group.lengths + 1, after_S1)

    def _encoded(self, rows_SLd: Tensor, lengths_S: Tensor, wanted_SQ: Tensor) -> Tensor:
        """Return the states at the wanted places, [S, Q, d]; each sees everything but padding.

        Args:
            rows_SLd: ID rows and masks; padding holds any finite values.
            lengths_S: int64, numbers of places without padding.
            wanted_SQ: int64, places. The last layer has queries for these only.
        """
        places = torch.arange(rows_SLd.shape[1], device=rows_SLd.device)
        positions = (lengths_S[:, None] - 1 - places).clamp(min=0) if self.from_latest else places
        visible_S1L = (places < lengths_S[:, None])[:, None]
        states = self.input_norm(rows_SLd + self.positions(positions))
        states = dropout(states, self.rate, self.training)
        layers = layers_of(self.layers)
        for layer in layers:
            keys_values = layer.keys_values(states)
            if layer is layers[-1]:
                states = states.gather(1, wanted_SQ[:, :, None].expand(-1, -1, states.shape[2]))
            states = layer(states, layer.attend(states, keys_values, visible_S1L, self.rate), self.rate)
        return states
