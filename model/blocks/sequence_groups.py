"""Groups of sequences with similar lengths, which towers encode one after the other with little padding.

Shapes: S sequences of a group, L positions, Q requested states of a sequence, B targets of the batch, d_c any width.
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
    """A group of sequences that are right-padded to one length, and the states that are requested of them.

    Attributes:
        length: L.
        lengths: int64 [S], 1..L.
        num_states: int64 [S], Q_s: the states after a sequence's last Q_s items are requested, or with masks those at
            its Q_s masked places.
        num_queries: Q, the number of states that are computed of each sequence; if it is L, those after each item.
        masked: bool [S, L], places that a mask takes; None: there are no masks.
    """

    length: int
    lengths: Tensor
    num_states: Tensor
    num_queries: int
    masked: Tensor | None = None

    @property
    def count(self) -> int:
        return self.lengths.shape[0]

    @property
    def requests_all(self) -> bool:
        return self.num_queries == self.length

    def is_item(self) -> Tensor:
        """Return which places hold an item or a mask, and not padding, bool [S, L]."""
        return torch.arange(self.length, device=self.lengths.device) < self.lengths[:, None]

    def masked_places(self) -> Tensor:
        """Return the places of the masks of each sequence, int64 [S, Q], ascending; then those of other items."""
        assert self.masked is not None, "sequences without masks"
        return self.masked.int().argsort(dim=1, descending=True, stable=True)[:, : self.num_queries]

    def last_items(self) -> Tensor:
        """Return the index of the last item that each state may see, int64 [S, Q]; padding states see items too."""
        steps = torch.arange(self.num_queries, device=self.lengths.device)
        if self.requests_all:
            return steps.expand(self.count, -1)
        return torch.minimum((self.lengths - self.num_states)[:, None] + steps, self.lengths[:, None] - 1)

    def visible(self) -> Tensor:
        """Return which items each state may see, bool [S, Q, L]."""
        return torch.arange(self.length, device=self.lengths.device) <= self.last_items()[:, :, None]


def in_groups(
    batch: Batch, streams: list[Tensor], compute: Callable[[Sequences, list[Tensor]], list[Tensor]]
) -> list[Tensor]:
    """Call `compute` for every group of a batch, and return the states that have a target.

    Args:
        batch: the sequences.
        streams: tensors of rows [R, d] of the step's items; the batch's histories select from each.
        compute: from a group and each stream's items [S, L, d] to a list of tensors [S, Q, d_c]. It must treat
            sequences independently of each other and ignore padding.

    Returns:
        For each tensor that `compute` returns, [B, d_c].
    """
    return at_targets(batch, [compute(sequences, items) for sequences, items in read_groups(batch, streams)])


def read_groups(batch: Batch, streams: list[Tensor]) -> list[tuple[Sequences, list[Tensor]]]:
    """Return the groups of a batch, each with every stream's items [S, L, d]; padding holds any finite values.

    An empty batch gives one empty group, so that results stay connected to the parameters.

    Args:
        batch: the sequences.
        streams: tensors of rows [R, d] of the step's items; the batch's histories select from each.
    """
    groups = groups_of(batch)
    sizes = [group.count * group.length for group in groups]
    # One lookup for all groups, because the gradient of each lookup is a whole [R, d].
    items = zip(*(F.embedding(batch.history, stream).split(sizes) for stream in streams), strict=True)
    return [
        (group, [rows.unflatten(0, (group.count, group.length)) for rows in flat])
        for group, flat in zip(groups, items, strict=True)
    ]


def groups_of(batch: Batch) -> list[Sequences]:
    """Return the groups of a batch in the order of its history; an empty batch gives one group with S = 0."""
    groups = batch.groups or (_EMPTY,)
    counts = [group.count for group in groups]
    ragged = zip(batch.lengths.split(counts), batch.num_states.split(counts), strict=True)
    masked: list[Tensor | None] = [None] * len(groups)
    if batch.masked is not None:
        places = batch.masked.split([group.count * group.length for group in groups])
        masked = [flat.view(group.count, group.length) for flat, group in zip(places, groups, strict=True)]
    return [
        Sequences(length=group.length, lengths=lengths, num_states=num_states, num_queries=group.states, masked=mask)
        for group, (lengths, num_states), mask in zip(groups, ragged, masked, strict=True)
    ]


def at_targets(batch: Batch, parts: list[list[Tensor]]) -> list[Tensor]:
    """Return the states that have a target, [B, d_c] for each tensor.

    Args:
        batch: the targets.
        parts: for every group, a list of tensors [S, Q, d_c].
    """
    padded = (torch.cat([states.flatten(0, 1) for states in tensors]) for tensors in zip(*parts, strict=True))
    return [states.index_select(0, batch.states) for states in padded]
