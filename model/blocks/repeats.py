"""Learned gains of repeats: each channel's number that is added to the score of an item in the user's input.

A score is an inner product, and the state of a user who bought an item is close to that item's vector. So items that
the user just bought rank high. Whether users buy items again depends on the catalogue (groceries: yes, tools: no),
which an inner product cannot express. RepeatNet (Ren et al., AAAI 2019) learns a separate repeat mode. Here one number
per channel is enough, because the softmax learns from the training targets how often they are repeats.

Shapes: B targets of a batch, L largest number of items that a state has seen, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.batch import Batch
from model.blocks.sequence_groups import groups_of

# The attribute of a recommender that holds the gains; they are found by this name, for a learning rate of their own.
REPEATS = "repeats"


@dataclass
class SeenItems:
    """The distinct items that the state of each target has seen.

    Attributes:
        items: int64 [B, L], positions in the plan's order; padded with any valid positions.
        counts: float32 [B, L], 1 for an item, 0 for padding and for a further copy of an item.
        gains: per channel a float32 scalar with a gradient, which is added to the scores of these items.
    """

    items: Tensor
    counts: Tensor
    gains: Sequence[Tensor]

    def holds(self, targets: Tensor) -> Tensor:
        """Return float32 [B]: 1 for rows whose items include the row's target, else 0; `targets` int64 [B]."""
        return ((self.items == targets[:, None]) * self.counts).sum(dim=1)


class RepeatGains(nn.Module):
    """The C learned numbers as a parameter `weight`, initially zero."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_channels))


def seen_items(batch: Batch, gains: Tensor) -> SeenItems:
    """Return the items that the states of a batch's targets have seen; `gains` float32 [C]."""
    items, seen = _inputs_of_targets(batch)
    # The other places become copies of a seen item. After sorting, only the first of equal items counts.
    first = seen.int().argmax(dim=1, keepdim=True)
    items = items.where(seen, items.gather(1, first)).sort(dim=1).values
    counts = seen.any(dim=1, keepdim=True).float().repeat(1, items.shape[1])
    counts[:, 1:] *= (items[:, 1:] != items[:, :-1]).float()
    return SeenItems(items, counts, gains.unbind())


def _inputs_of_targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return each target's padded sequence, int64 [B, L], and the places that its state has seen, bool [B, L].

    With masks, that is every item of the sequence that is not masked.
    """
    groups = groups_of(batch)
    longest = max(group.length for group in groups)
    histories = batch.history.split([group.count * group.length for group in groups])
    padded = [
        F.pad(history.view(group.count, group.length), (0, longest - group.length))
        for group, history in zip(groups, histories, strict=True)
    ]
    counts = torch.cat([torch.full_like(group.lengths, group.num_queries) for group in groups])
    num_states = sum(group.count * group.num_queries for group in groups)
    of_states = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=num_states)
    row = of_states[batch.states]
    places = torch.arange(longest, device=counts.device)
    if batch.masked is not None:
        unmasked = [group.is_item() & ~group.masked for group in groups if group.masked is not None]
        seen = torch.cat([F.pad(places, (0, longest - places.shape[1])) for places in unmasked])[row]
    else:
        seen = places <= torch.cat([group.last_items().flatten() for group in groups])[batch.states][:, None]
    return torch.cat(padded)[row], seen
