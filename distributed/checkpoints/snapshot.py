"""Copies a state to the host, so that the copy can be written while training continues."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor
from torch.distributed.remote_device import _remote_device


def snapshot(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies on the host of all tensors; of a sharded tensor, of this rank's shards only."""
    return {name: _copied(value) for name, value in tensors.items()}


def _copied(value: Any) -> Any:
    """Return a copy on the host of one value, with its shards' metadata pointing to the host."""
    if not isinstance(value, ShardedTensor):
        return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else copy.deepcopy(value)
    metadata = copy.deepcopy(value.metadata())
    for part in metadata.shards_metadata:
        assert part.placement is not None
        part.placement = _remote_device(f"rank:{part.placement.rank()}/cpu")
    own = {tuple(shard.metadata.shard_offsets): shard.tensor for shard in value.local_shards()}
    shards = [
        Shard(own[tuple(part.shard_offsets)].detach().to("cpu", copy=True), part)
        for part in metadata.shards_metadata
        if tuple(part.shard_offsets) in own
    ]
    return ShardedTensor._init_from_local_shards_and_global_metadata(
        shards, sharded_tensor_metadata=metadata, process_group=value._process_group
    )
