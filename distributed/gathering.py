"""Collects the rows of all ranks, with a gradient, for losses that contrast the targets of the global batch.

Shapes: B rows of this rank, which may be none, G rows of all ranks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def rows_of_all_ranks(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, [G, ...], in the order of ranks. A collective, and so is its backward.

    The gradient with respect to this rank's rows is the sum of the gradients that all ranks compute for them. Ranks
    may have different numbers of rows. If rows have a gradient on one rank, they must have one on every rank.

    Args:
        rows: this rank's rows, [B, ...]; all dimensions but the first are the same on all ranks.
    """
    return cast(Tensor, _RowsOfAllRanks.apply(rows))


class _RowsOfAllRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = _counts(rows)
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        first = sum(counts[: dist.get_rank()])
        ctx.own = slice(first, first + len(rows))
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        own: Tensor = total[ctx.own]
        return own


def _counts(rows: Tensor) -> list[int]:
    """Return each rank's number of rows."""
    own = torch.tensor([len(rows)], device=rows.device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return [int(count) for count in found]
