"""Builds an index of the items of a model that is open for ranking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from distributed.inference.scoring import Scorer
from serving.index.blocks import blocks_of
from serving.index.build import SHARD_ITEMS, build_index
from serving.index.kinds import IndexOptions
from serving.index.manifest import IndexManifest


def build_index_of(
    scorer: Scorer,
    path: str | Path,
    *,
    options: IndexOptions | None = None,
    shard_items: int = SHARD_ITEMS,
    belongs_to: Mapping[str, str] | None = None,
) -> IndexManifest:
    """Write an index of the vectors that a scorer ranks, and return its manifest; see `build.build_index`.

    For a model with a fusion, each channel is a part of the index. No vectors are kept between passes, so that memory
    is bounded. The process must be the only rank.

    Args:
        scorer: encodes the items.
        path: the index's folder.
        options: the kind of the index and its options; None: exact.
        shard_items: most items of a shard.
        belongs_to: names the run and the step of the checkpoint.
    """
    assert scorer.world.size == 1
    scorer.begin("next")
    scorer.system.eval()
    recommender = scorer.system.recommender
    with torch.no_grad():
        items = scorer.encoder.item_blocks(held_bytes=0, on_round=lambda: None)
        count = 1 if recommender.fusion is None else len(recommender.channels)
        _, first = next(iter(blocks_of(items)(0, 1)))
        return build_index(
            blocks_of(items),
            path,
            num_items=items.num_items,
            widths=[first.shape[1] // count] * count,
            options=options,
            shard_items=shard_items,
            belongs_to=belongs_to,
        )
