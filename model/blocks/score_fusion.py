"""Scores that are computed from the scores of all channels, where the sum over channels does not suffice.

Shapes: B users, n items, C channels, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class ScoreFusion(Protocol):
    """Computes the score of every pair of a user and an item from the pair's scores in all channels."""

    def __call__(self, scores: Sequence[Tensor], present: Sequence[Tensor]) -> Tensor:
        """Return the fused scores, [B, n]. The score of a pair must not depend on other pairs.

        Args:
            scores: per channel [B, n].
            present: per channel bool [n], whether the item has a vector in the channel.
        """
        ...


class DynamicFusion(nn.Module):
    """MISSRec's fusion of candidates: which modality counts more differs between pairs of a user and an item.

    With s_m the score in modality m, it is s = sum_m softmax_m(w tau s_m) s_m, with one learned number w. The larger
    of a pair's scores counts more if w > 0. A modality that the item lacks takes no part. With a channel of IDs, the
    result is (s_id + M s) / (M + 1).

    Attributes:
        weight: w, initially 0, which gives all modalities of an item the same weight.
    """

    def __init__(self, *, temperature: float, with_ids: bool) -> None:
        """Make the fusion.

        Args:
            temperature: tau, by which the channels' cosines are divided. The softmax is over w times the cosines.
            with_ids: whether the first channel is that of item IDs.
        """
        super().__init__()
        self.temperature, self.with_ids = temperature, with_ids
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, scores: Sequence[Tensor], present: Sequence[Tensor]) -> Tensor:
        """Return the fused scores, [B, n]; see `ScoreFusion`."""
        first = 1 if self.with_ids else 0
        absent = ~torch.stack(list(present[first:]))[:, None, :]
        of_modalities = torch.stack(list(scores[first:])).masked_fill(absent, 0.0)
        # For an item without any modality the softmax would be undefined. Its scores are 0, so any weights will do.
        out = absent & ~absent.all(dim=0)
        logits = (self.weight * self.temperature * of_modalities).masked_fill(out, -torch.inf)
        fused = (logits.softmax(dim=0) * of_modalities).sum(dim=0)
        if not self.with_ids:
            return fused
        count = len(of_modalities)
        return (scores[0] + count * fused) / (count + 1)


def fused_pairs(fusion: ScoreFusion, users: Sequence[Tensor], items: Sequence[Tensor]) -> Tensor:
    """Return the fused score of each user and the item of the same row, [B].

    Args:
        fusion: computes it from the scores of all channels.
        users: per channel [B, d_c].
        items: per channel [B, d_c]; a zero vector means that the item is not present in the channel.
    """
    scores = [(user * item).sum(dim=1)[None] for user, item in zip(users, items, strict=True)]
    return fusion(scores, [(item != 0).any(dim=1) for item in items])[0]


def fused_scores(fusion: ScoreFusion, users: Sequence[Tensor], items: Sequence[Tensor]) -> Tensor:
    """Return the fused scores of every user and item, [B, n].

    Args:
        fusion: computes them from the scores of all channels.
        users: per channel [B, d_c].
        items: per channel [n, d_c]; a zero vector means that the item is not present in the channel.
    """
    scores = [user @ item.T for user, item in zip(users, items, strict=True)]
    return fusion(scores, [(item != 0).any(dim=1) for item in items])
