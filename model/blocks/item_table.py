"""The item ID table: TorchRec's home in `model`.

Here it is one unsharded `EmbeddingCollection`; `distributed.sharding` replicates or splits it from
outside, by wrapping the system that holds it in `DistributedModelParallel`.
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
        """Rows [U, d] of distinct ids, in their order; one row where there is no id.

        One lookup per step: a sharded table allows no second. An id outside the table raises nothing
        in TorchRec and returns another row, so ids are checked where they are read, not here.

        Args:
            feature: from `item_feature`.
        """
        rows: Tensor = self.collection(feature)[FEATURE].values()
        return rows


def item_feature(ids_U: Tensor, as_one: bool = False) -> KeyedJaggedTensor:
    """Distinct ids, int64 [U], as what a table looks up.

    TorchRec fails on an empty feature, and a rank that needs nothing must still join the exchange: no id becomes
    item 0.

    Args:
        as_one: one sequence of U ids in place of U sequences of one. A split table tells every rank the length of every
            sequence, which is 4 U bytes to each; a replicated one takes only sequences of one.
    """
    ids = ids_U if len(ids_U) else ids_U.new_zeros(1)
    lengths = torch.ones_like(ids, dtype=torch.int32)
    if as_one:
        lengths = torch.full((1,), len(ids), dtype=torch.int32, device=ids.device)
    return KeyedJaggedTensor(keys=[FEATURE], values=ids, lengths=lengths)
