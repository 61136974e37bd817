"""The first rows of a weight, whole or split over ranks, as a weight of its own that shares the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor
from torch.distributed._shard.sharded_tensor.metadata import ShardedTensorMetadata


def first_rows(value: Any, num_rows: int) -> Any:
    """Return the first rows of a tensor or of a row-wise `ShardedTensor`. What is written to them is in `value` too.

    A collective for a `ShardedTensor`.
    """
    if not isinstance(value, ShardedTensor):
        return value[:num_rows]
    whole = value.metadata()
    size = torch.Size([num_rows, *whole.size[1:]])
    metadata = ShardedTensorMetadata(
        shards_metadata=[_cut(shard, num_rows) for shard in whole.shards_metadata if _is_in(shard, num_rows)],
        size=size,
        tensor_properties=whole.tensor_properties,
    )
    own = [
        Shard(shard.tensor[: cut.shard_sizes[0]], cut)
        for shard in value.local_shards()
        if _is_in(shard.metadata, num_rows)
        for cut in [_cut(shard.metadata, num_rows)]
    ]
    return ShardedTensor._init_from_local_shards_and_global_metadata(own, metadata, process_group=value._process_group)


def _is_in(shard: ShardMetadata, num_rows: int) -> bool:
    return shard.shard_offsets[0] < num_rows and shard.shard_sizes[0] > 0


def _cut(shard: ShardMetadata, num_rows: int) -> ShardMetadata:
    rows = min(shard.shard_sizes[0], num_rows - shard.shard_offsets[0])
    return ShardMetadata(
        shard_offsets=list(shard.shard_offsets),
        shard_sizes=[rows, *shard.shard_sizes[1:]],
        placement=shard.placement,
    )
