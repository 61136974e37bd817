"""Collectives of ranking, over the ranks of the default process group. Without a group, this process is the only rank.

So one process can rank without `torch.distributed`, as `serving` does, and one rank sends no messages to itself.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_equal(mine: Tensor) -> list[Tensor]:
    """Return every rank's tensor, in the order of ranks, without gradients. All have the same shape. A collective."""
    ranks = num_ranks()
    if ranks == 1:
        return [mine.detach()]
    mine = mine.contiguous()
    of_ranks = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(of_ranks, mine)
    return of_ranks


def sum_of_ranks(value: Tensor) -> Tensor:
    """Replace a tensor by its sum over ranks, in place, and return it. A collective."""
    if num_ranks() > 1:
        dist.all_reduce(value)
    return value


def maximum_of_ranks(value: Tensor) -> Tensor:
    """Replace a tensor by its maximum over ranks, in place, and return it. A collective."""
    if num_ranks() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value
