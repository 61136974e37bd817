"""The base of every recommender: what it needs, and its loss over channels.

Shapes: B targets of a batch, R items with a role, U items of the union, d width of a row, d_c width of channel c.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.contracts import Batch, ItemNeeds, ItemPlan
from model.item_views import item_rows
from model.losses import channel_cross_entropy, sampled_cross_entropy
from model.protocol import Channel, ItemRows


class Recommender(nn.Module):
    """A model behind the one protocol of training, ranking, export and recommendation.

    Attributes:
        needs: what the collate must bring of each item.
        channels: names and weights, in the order of the vectors below.
    """

    needs: ItemNeeds
    channels: tuple[Channel, ...]

    def forward(self, rows_Ud: Tensor | None, plan: ItemPlan, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar: over its candidates, or all R items with a role.

        Args:
            rows_Ud: the looked-up rows of the plan's union; None for a model without an item table.
        """
        items = item_rows(rows_Ud, plan)
        users, vectors = self.user_vectors(items, batch), self.item_vectors(items)
        if batch.candidates is None:
            return channel_cross_entropy(users, vectors, self.channels, batch.targets, batch.num_global_targets)
        assert batch.log_weights is not None
        return sampled_cross_entropy(
            users,
            vectors,
            self.channels,
            batch.targets,
            batch.candidates,
            batch.log_weights,
            batch.num_global_targets,
            batch.mates,
        )

    def item_vectors(self, items: ItemRows) -> list[Tensor]:
        """Per channel [R, d_c]."""
        raise NotImplementedError

    def user_vectors(self, items: ItemRows, batch: Batch) -> list[Tensor]:
        """Per channel [B, d_c]: the state that each target is predicted from."""
        raise NotImplementedError
