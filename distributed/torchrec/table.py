"""The item ID table as a TorchRec `EmbeddingCollection`, whose rows TorchRec can split over ranks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

from model.blocks.item_table import TABLE, RowTable

FEATURE = "item"


class ShardedItemTable(RowTable):
    """The same rows as an `ItemTable`. TorchRec replaces the collection when it wraps the system.

    Attributes:
        as_one: whether a feature is one sequence of U ids instead of U sequences of one id. A table that is split over
            ranks sends every rank the length of every sequence, 4 U bytes to each rank, which one sequence avoids. A
            replicated table only takes sequences of one id.
    """

    def __init__(
        self, *, num_items: int, dim: int, init_std: float, as_one: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        table = EmbeddingConfig(
            name=TABLE,
            num_embeddings=num_items,
            embedding_dim=dim,
            feature_names=[FEATURE],
            init_fn=partial(nn.init.normal_, std=init_std),
        )
        self.collection = EmbeddingCollection(tables=[table], device=torch.device(device))
        self.as_one = as_one

    def feature(self, ids_U: Tensor) -> KeyedJaggedTensor:
        """See `RowTable.feature`.

        If there are no ids, the feature holds item 0: a rank that needs no rows must still take part in the exchange,
        and TorchRec fails on an empty feature. The sums of the lengths are given too, because TorchRec would wait for
        the device to compute them.
        """
        ids = ids_U if len(ids_U) else ids_U.new_zeros(1)
        lengths = torch.ones_like(ids, dtype=torch.int32)
        if self.as_one:
            lengths = torch.full((1,), len(ids), dtype=torch.int32, device=ids.device)
        return KeyedJaggedTensor(
            keys=[FEATURE],
            values=ids,
            lengths=lengths,
            length_per_key=[len(ids)],
            offset_per_key=[0, len(ids)],
        )

    def forward(self, feature: KeyedJaggedTensor) -> Tensor:
        """See `RowTable.forward`. For an id outside the table, TorchRec returns another row."""
        rows: Tensor = self.collection(feature)[FEATURE].values()
        return rows
