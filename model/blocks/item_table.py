"""The item ID table, a TorchRec `EmbeddingCollection`.

The table is not sharded here. `distributed.sharding` replicates it or splits its rows over ranks, by wrapping the whole
system in `DistributedModelParallel`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

TABLE = "item_id"
FEATURE = "item"


class ItemTable(nn.Module):
    """E_id: one row of width d per item, initialised N(0, init_std).

    The parameter's name is `collection.embeddings.item_id.weight`.
    """

    def __init__(self, *, num_items: int, dim: int, init_std: float, device: torch.device | str = "cpu") -> None:
        super().__init__()
        table = EmbeddingConfig(
            name=TABLE,
            num_embeddings=num_items,
            embedding_dim=dim,
            feature_names=[FEATURE],
            init_fn=partial(nn.init.normal_, std=init_std),
        )
        self.collection = EmbeddingCollection(tables=[table], device=torch.device(device))

    def forward(self, feature: KeyedJaggedTensor) -> Tensor:
        """Return the rows [U, d] of distinct ids in their order; a single row if there are no ids.

        A step may call this once, because a sharded table allows no second lookup. TorchRec does not check ids: for an
        id outside the table it returns another row. Ids are therefore checked where they are read.

        Args:
            feature: ids in the form that `item_feature` returns.
        """
        rows: Tensor = self.collection(feature)[FEATURE].values()
        return rows


def item_feature(ids_U: Tensor, as_one: bool = False) -> KeyedJaggedTensor:
    """Return distinct ids, int64 [U], in the form that an `ItemTable` looks up.

    If there are no ids, the feature holds item 0: a rank that needs no rows must still take part in the exchange, and
    TorchRec fails on an empty feature.

    Args:
        ids_U: the ids.
        as_one: whether the feature is one sequence of U ids instead of U sequences of one id. A table that is split
            over ranks sends every rank the length of every sequence, 4 U bytes to each rank, which one sequence
            avoids. A replicated table only takes sequences of one id.
    """
    ids = ids_U if len(ids_U) else ids_U.new_zeros(1)
    lengths = torch.ones_like(ids, dtype=torch.int32)
    if as_one:
        lengths = torch.full((1,), len(ids), dtype=torch.int32, device=ids.device)
    return KeyedJaggedTensor(keys=[FEATURE], values=ids, lengths=lengths)
