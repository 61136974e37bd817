"""The item ID table: one trained row for each item.

This is the table of one process. `distributed.torchrec` has the one whose rows TorchRec splits over ranks or
replicates on them. Both give their rows in the same way, and their parameters have the same name.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TABLE = "item_id"


class RowTable(nn.Module):
    """A table of item rows, whichever way its rows are kept.

    The name of its parameter is `collection.embeddings.item_id.weight`.
    """

    def feature(self, ids_U: Tensor) -> Any:
        """Return distinct ids, int64 [U], in the form that the table looks up."""
        raise NotImplementedError

    def forward(self, feature: Any) -> Tensor:
        """Return the rows [U, d] of distinct ids in their order; a single row if there are no ids.

        A step may call this once, because a table that is split over ranks allows no second lookup. Ids are not
        checked here, but where they are read.

        Args:
            feature: what `RowTable.feature` returned for the ids.
        """
        raise NotImplementedError


class ItemTable(RowTable):
    """E_id of one process: an `nn.Embedding`, initialised N(0, init_std)."""

    def __init__(self, *, num_items: int, dim: int, init_std: float, device: torch.device | str = "cpu") -> None:
        super().__init__()
        embedding = nn.Embedding(num_items, dim, device=torch.device("meta")).to_empty(device=device)
        nn.init.normal_(embedding.weight, std=init_std)
        # Nested as in a TorchRec EmbeddingCollection, so that checkpoints of both kinds of table have the same names.
        self.collection = nn.ModuleDict({"embeddings": nn.ModuleDict({TABLE: embedding})})
        self.num_items, self.dim, self.init_std = num_items, dim, init_std

    @property
    def weight(self) -> nn.Parameter:
        """The rows [N, d]."""
        return self.get_parameter(f"collection.embeddings.{TABLE}.weight")

    def feature(self, ids_U: Tensor) -> Tensor:
        return ids_U if len(ids_U) else ids_U.new_zeros(1)

    def forward(self, feature: Tensor) -> Tensor:
        return F.embedding(feature, self.weight)
