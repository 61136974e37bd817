"""Full and sampled softmax losses over fused scores, in chunks of bounded memory.

Shapes: B targets of this rank, R items with a role, K candidates, C channels, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.blocks.losses import MAX_LOGITS, at_least_float32
from model.blocks.repeats import SeenItems
from model.blocks.score_fusion import ScoreFusion, fused_scores


@dataclass(frozen=True, kw_only=True)
class SampledColumns:
    """The candidates that stand for the catalogue, as in `losses.sampled_cross_entropy`.

    Attributes:
        candidates: int64 [K], distinct rows of the items.
        log_weights: float32 [K].
        same_sequence: int64 [B, Q], for each row the targets of the same sequence, as indices into the targets; None:
            no row has any.
    """

    candidates: Tensor
    log_weights: Tensor
    same_sequence: Tensor | None = None


def fused_cross_entropy(
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    fusion: ScoreFusion,
    targets: Tensor,
    num_global_targets: int,
    sampled: SampledColumns | None = None,
    seen: SeenItems | None = None,
    parts: list[Tensor] | None = None,
) -> Tensor:
    """Return sum_b -log softmax(s_b)[target_b] / num_global_targets, where s_b are the fused scores of row b.

    The softmax is over all R items, or its denominator is estimated from candidates, as
    `losses.sampled_cross_entropy` does. At most MAX_LOGITS scores are in memory at a time; if there are more, they are
    computed in chunks of rows, and once more in the backward pass.

    Args:
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        fusion: computes a score from those of all channels.
        targets: int64 [B], rows of the items.
        num_global_targets: number of targets of the step over all ranks.
        sampled: the candidates; None: all R items are.
        seen: the items in each row whose scores have a gain, of which there is one; None: there are none.
        parts: a list to which the sum over b is appended, without division or gradient.

    Returns:
        A scalar. For B = 0 it is 0 and still connected to users and items.
    """
    with torch.autocast(targets.device.type, enabled=False):
        users, items = [at_least_float32(x) for x in users], [at_least_float32(x) for x in items]
        rows = _Rows(items=items, fusion=fusion, targets=targets, sampled=sampled, seen=seen)
        size = max(1, MAX_LOGITS // (max(1, rows.num_columns) * len(items)))
        if len(targets) <= size:
            total = rows.loss(users, slice(None))
        else:
            chunks = [slice(first, first + size) for first in range(0, len(targets), size)]
            total = torch.stack([checkpoint(rows.loss, users, chunk, use_reentrant=False) for chunk in chunks]).sum()
    if parts is not None:
        parts.append(total.detach())
    return total / max(num_global_targets, 1)


class _Rows:
    """Computes the summed loss of some rows."""

    def __init__(
        self,
        *,
        items: Sequence[Tensor],
        fusion: ScoreFusion,
        targets: Tensor,
        sampled: SampledColumns | None,
        seen: SeenItems | None,
    ) -> None:
        self._items, self._fusion, self._targets, self._sampled, self._seen = items, fusion, targets, sampled, seen
        self._gain = seen.gains[0] if seen is not None else None
        self.num_columns = len(items[0]) if sampled is None else len(sampled.candidates)
        # The column of each item among the candidates, where the last one stands for all that are no candidates.
        self._column_R = targets.new_full((len(items[0]),), self.num_columns)
        chosen = torch.arange(len(items[0]), device=targets.device) if sampled is None else sampled.candidates
        self._column_R[chosen] = torch.arange(self.num_columns, device=targets.device)

    def loss(self, users: Sequence[Tensor], chunk: slice) -> Tensor:
        """Return the summed loss of the rows in a slice of `users`."""
        users, targets = [user[chunk] for user in users], self._targets[chunk]
        if self._sampled is None:
            scores = self._gained(fused_scores(self._fusion, users, self._items), chunk)
            return F.cross_entropy(scores, targets, reduction="sum")
        candidates = [F.embedding(self._sampled.candidates, item) for item in self._items]
        scores = self._gained(fused_scores(self._fusion, users, candidates), chunk)
        # A row's own target has a column of its own, the first, with weight 1, and not that of a candidate.
        own = self._own_scores(users, targets, chunk)
        bias = self._biases(scores, chunk)
        bias = F.pad(bias, (0, 1)).scatter(1, self._column_R[targets][:, None], -torch.inf)[:, :-1]
        return (torch.cat([own[:, None], scores + bias], dim=1).logsumexp(dim=1) - own).sum()

    def _biases(self, scores: Tensor, chunk: slice) -> Tensor:
        """Return the logarithms of the candidates' weights, [B, K]: 0 for targets of the row's own sequence."""
        assert self._sampled is not None
        bias = self._sampled.log_weights.detach().to(scores.dtype).expand(len(scores), -1)
        if self._sampled.same_sequence is None:
            return bias
        same = self._column_R[self._targets[self._sampled.same_sequence[chunk]]]
        return F.pad(bias, (0, 1)).scatter(1, same, 0.0)[:, :-1]

    def _own_scores(self, users: Sequence[Tensor], targets: Tensor, chunk: slice) -> Tensor:
        """Return the score of each row's target, [B]."""
        own = [F.embedding(targets, item) for item in self._items]
        scores = [(user * item).sum(dim=1)[None] for user, item in zip(users, own, strict=True)]
        score = self._fusion(scores, [(item != 0).any(dim=1) for item in own])[0]
        if self._seen is None or self._gain is None:
            return score
        return score + self._gain.to(score.dtype) * self._seen.holds(self._targets)[chunk].to(score.dtype)

    def _gained(self, scores: Tensor, chunk: slice) -> Tensor:
        """Return scores [B, columns] with the gain added where the row has seen the item."""
        if self._seen is None or self._gain is None:
            return scores
        columns = self._column_R[self._seen.items[chunk]]
        gains = self._gain.to(scores.dtype) * self._seen.counts[chunk].to(scores.dtype)
        return F.pad(scores, (0, 1)).scatter_add(1, columns, gains)[:, :-1]
