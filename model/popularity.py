"""Popularity: everyone gets the most bought items. The floor of every table; nothing to train.

With weight 0 it is what ItemKNN adds its co-occurrence to (`distributed/inference/score_gains.py`).
"""

from __future__ import annotations

from torch import Tensor

from contracts.batch import Batch
from contracts.item_plan import ItemNeeds
from model.protocol import Channel, ItemRows
from model.recommender import Recommender


class Popularity(Recommender):
    """One channel of width 1: the score of an item is its popularity, for every user."""

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
