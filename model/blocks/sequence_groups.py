"""Sequences go through a tower in groups of similar length: next to no padding, and one shape per group.

Shapes: S sequences of a group, L positions, Q states asked for of a sequence, B targets of the batch, d_c any width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from contracts.batch import Batch, SequenceGroup

_EMPTY = SequenceGroup(0, 1, 1)


@dataclass(kw_only=True)
class Sequences:
    """A group: sequences right-padded to one length, and which of their states are asked for.

    Attributes:
        length: L.
        lengths: int64 [S], 1..L.
        num_states: int64 [S], Q_s: the states after a sequence's last Q_s items are asked for.
        num_queries: Q, the most of any; L where every sequence is asked for all its states.
    """

    length: int
    lengths: Tensor
    num_states: Tensor
    num_queries: int

    @property
    def count(self) -> int:
        return len(self.lengths)

    @property
    def requests_all(self) -> bool:
        return self.num_queries == self.length

    def last_items(self) -> Tensor:
        """int64 [S, Q]: the index of the last item that each state may see; a padding state sees something real."""
        steps = torch.arange(self.num_queries, device=self.lengths.device)
        if self.requests_all:
            return steps.expand(len(self.lengths), -1)
        return torch.minimum((self.lengths - self.num_states)[:, None] + steps, self.lengths[:, None] - 1)

    def visible(self) -> Tensor:
        """bool [S, Q, L]: the items that each state may see."""
        return torch.arange(self.length, device=self.lengths.device) <= self.last_items()[:, :, None]


def in_groups(
    batch: Batch, streams: list[Tensor], compute: Callable[[Sequences, list[Tensor]], list[Tensor]]
) -> list[Tensor]:
    """`compute` for every group of a batch, and of what it gives the states that have a target.

    Args:
        batch: its sequences.
        streams: rows [R, d] of the step's items, to be read at the batch's histories.
        compute: from a group and each stream's items [S, L, d] to tensors [S, Q, d_c]; it must treat sequences
            apart and ignore pads.

    Returns:
        Per tensor of `compute` [B, d_c].
    """
    return at_targets(batch, [compute(sequences, items) for sequences, items in read_groups(batch, streams)])


def read_groups(batch: Batch, streams: list[Tensor]) -> list[tuple[Sequences, list[Tensor]]]:
    """The groups of a batch, and of each every stream's items [S, L, d], anything finite at pads.

    An empty batch is one too, so that what is made of it stays connected to the parameters.

    Args:
        streams: rows [R, d] of the step's items, to be read at the batch's histories.
    """
    groups = groups_of(batch)
    sizes = [group.count * group.length for group in groups]
    # Read at once: the gradient of each reading is a whole [R, d].
    items = zip(*(F.embedding(batch.history, stream).split(sizes) for stream in streams), strict=True)
    return [
        (group, [rows.unflatten(0, (group.count, group.length)) for rows in flat])
        for group, flat in zip(groups, items, strict=True)
    ]


def groups_of(batch: Batch) -> list[Sequences]:
    """The groups of a batch, in the order of its history; an empty batch is one group with S = 0."""
    groups = batch.groups or (_EMPTY,)
    counts = [group.count for group in groups]
    ragged = zip(batch.lengths.split(counts), batch.num_states.split(counts), strict=True)
    return [
        Sequences(length=group.length, lengths=lengths, num_states=num_states, num_queries=group.states)
        for group, (lengths, num_states) in zip(groups, ragged, strict=True)
    ]


def at_targets(batch: Batch, parts: list[list[Tensor]]) -> list[Tensor]:
    """The states that have a target, [B, d_c] per tensor, of what was made of every group: tensors [S, Q, d_c]."""
    padded = (torch.cat([states.flatten(0, 1) for states in tensors]) for tensors in zip(*parts, strict=True))
    return [states.index_select(0, batch.states) for states in padded]
