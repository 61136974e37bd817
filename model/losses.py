"""Losses over channels.

Shapes: B targets of this rank, R candidates, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.protocol import Channel


def channel_cross_entropy(
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    channels: Sequence[Channel],
    targets: Tensor,
    num_global_targets: int,
) -> Tensor:
    """sum_c weight_c * sum_b -log softmax(<user_b, items>)[target_b] / num_global_targets.

    A full softmax over the R items. Logits are at least float32 whatever autocast says: at bfloat16's
    eight bits, neighbouring scores tie. Summed over ranks this is the mean over the global batch.

    Args:
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        channels: names and weights.
        targets: int64 [B], rows of the items.
        num_global_targets: targets of the step over all ranks.

    Returns:
        A scalar; 0 for B = 0, still connected to users and items, so that every rank's backward
        reaches the same parameters.
    """
    total = torch.zeros((), device=targets.device)
    for user, item, channel in zip(users, items, channels, strict=True):
        with torch.autocast(targets.device.type, enabled=False):
            logits_BR = _at_least_float32(user) @ _at_least_float32(item).T
            # With no rows the sum is an empty sum: a zero that keeps its graph.
            total = total + channel.weight * F.cross_entropy(logits_BR, targets, reduction="sum")
    return total / max(num_global_targets, 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
