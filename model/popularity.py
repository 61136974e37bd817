"""Popularity: everyone gets the most bought items. The floor of every table; nothing to train.

With weight 0 it is what ItemKNN adds its co-occurrence to (`distributed/score_gains.py`).
"""

from __future__ import annotations

from torch import Tensor

from configs.contracts import Batch, ItemNeeds
from model.protocol import Channel, ItemRows
from model.recommender import Recommender


class Popularity(Recommender):
    """One channel of width 1: score of an item = its "popularity" feature, for every user."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.needs = ItemNeeds(id_rows=False, features=("popularity",))
        self.channels = (Channel("popularity", weight),)

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        return [items.features["popularity"]]

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        return [items.features["popularity"].new_ones(len(batch.states), 1)]
