"""Popularity: every user gets the items with the most training interactions. The simplest baseline, without training.

ItemKNN is this model with weight 0; `distributed/inference/score_gains.py` adds its scores, which are co-occurrence.
"""

from __future__ import annotations

from torch import Tensor

from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.protocol import Channel, ItemRows
from model.recommender import Recommender


class Popularity(Recommender):
    """A single channel of width 1: for every user, the score of an item is its popularity times the weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.needs = ItemNeeds(id_rows=False, popularity=True)
        self.channels = (Channel("popularity", weight),)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        assert items.popularity is not None
        return [items.popularity]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        assert items.popularity is not None
        return [items.popularity.new_ones(len(batch.states), 1)]
