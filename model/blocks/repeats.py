"""What a score gains or loses where the user's input already holds the item: a learned number per channel.

A score is an inner product of states, and the state of somebody who bought an item is close to that item. Whether
people buy again is a property of the catalogue (groceries: yes; tools: no) that such a product cannot express, so
what they have just bought fills places of their list. RepeatNet (Ren et al., AAAI 2019) learns a whole repeat mode in
its place; here a number is enough, because the softmax knows from the training targets how often they repeat.

Shapes: B targets of a batch, L most items that a state has seen, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.batch import Batch
from model.blocks.sequence_groups import groups_of

# What a recommender calls them: their optimiser has a learning rate of its own.
REPEATS = "repeats"


@dataclass
class SeenItems:
    """The distinct items that the state of each target has seen.

    Attributes:
        items: int64 [B, L], positions in the plan's order; anything valid where there are fewer than L.
        counts: float32 [B, L]: 1 for an item, 0 for a place that holds none, or one that the row holds elsewhere.
        gains: per channel float32 scalars, what is added to the scores of these items; with gradients.
    """

    items: Tensor
    counts: Tensor
    gains: Sequence[Tensor]

    def holds(self, targets: Tensor) -> Tensor:
        """float32 [B]: 1 where a row holds its own target, positions int64 [B], else 0."""
        return ((self.items == targets[:, None]) * self.counts).sum(dim=1)


class RepeatGains(nn.Module):
    """`weight`: C learned numbers, zero to begin with."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_channels))


def seen_items(batch: Batch, gains: Tensor) -> SeenItems:
    """What the states of a batch's targets have seen; `gains` float32 [C]."""
    items, last = _inputs_of_targets(batch)
    steps = torch.arange(items.shape[1], device=items.device)
    real = steps <= last[:, None]
    # Pads become copies of the row's first item, and of equal items in order all but one count nothing.
    items = items.where(real, items[:, :1]).sort(dim=1).values
    counts = torch.ones_like(items, dtype=torch.float32)
    counts[:, 1:] = (items[:, 1:] != items[:, :-1]).float()
    return SeenItems(items, counts, gains.unbind())


def _inputs_of_targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Per target the padded sequence that it is predicted from, int64 [B, L], and the index of the last item seen."""
    groups = groups_of(batch)
    longest = max(group.length for group in groups)
    histories = batch.history.split([group.count * group.length for group in groups])
    padded = [
        F.pad(history.view(group.count, group.length), (0, longest - group.length))
        for group, history in zip(groups, histories, strict=True)
    ]
    counts = torch.cat([torch.full_like(group.lengths, group.num_queries) for group in groups])
    row = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)[batch.states]
    last = torch.cat([group.last_items().flatten() for group in groups])[batch.states]
    return torch.cat(padded)[row], last
