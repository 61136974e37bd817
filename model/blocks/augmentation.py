"""Random changes of inputs for contrastive training: which positions to change, and dropping items.

Shapes: S sequences of a group, L positions, d any width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.blocks.sequence_groups import Sequences


def random_positions(sequences: Sequences, share: float | Tensor) -> Tensor:
    """Choose each position with probability `share`, from the random numbers of the step: bool [S, L]."""
    shape = (sequences.count, sequences.length)
    return torch.rand(shape, device=sequences.lengths.device) < share


def without_items(sequences: Sequences, streams: list[Tensor], dropped_SL: Tensor) -> tuple[Sequences, list[Tensor]]:
    """Return the sequences and their items without those that are dropped; the others move to the front.

    A sequence's first item is never dropped. Only the state after the last item is requested of a sequence, because
    the others have no meaning afterwards.

    Args:
        sequences: the group, of prefix rows.
        streams: tensors of items, [S, L, d] each.
        dropped_SL: bool, the positions to drop; padding may be among them.
    """
    assert sequences.num_queries == 1, "windows would lose targets with the items that are dropped"
    place = torch.arange(sequences.length, device=dropped_SL.device)
    kept_SL = (place < sequences.lengths[:, None]) & (~dropped_SL | (place == 0))
    order_SL1 = (~kept_SL).to(torch.uint8).sort(dim=1, stable=True).indices[:, :, None]
    shorter = [items.gather(1, order_SL1.expand_as(items)) for items in streams]
    return replace(sequences, lengths=kept_SL.sum(dim=1)), shorter
