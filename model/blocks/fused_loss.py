"""Losses over fused scores, in chunks of bounded memory.

Shapes: B targets of this rank, R items with a role, K candidates, C channels, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.blocks.losses import RowLossOf, at_least_float32, max_logits
from model.blocks.recompute import recomputed
from model.blocks.repeats import SeenItems
from model.blocks.row_chunks import ScoredRowsLoss
from model.blocks.score_fusion import ScoreFusion, fused_pairs, fused_scores


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


def fused_loss(
    row_loss_of: RowLossOf,
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    fusion: ScoreFusion,
    targets: Tensor,
    num_global_targets: int,
    sampled: SampledColumns | None = None,
    seen: SeenItems | None = None,
    parts: list[Tensor] | None = None,
) -> Tensor:
    """Return the loss of the fused scores, summed over the rows b and divided by `num_global_targets`.

    All R items are candidates, or sums over them are estimated from `sampled`, as in `losses.sampled_cross_entropy`.
    At most `max_logits` scores are in memory at a time. If there are more, they are computed in chunks of rows, and
    once more in the backward pass.

    Args:
        row_loss_of: makes the loss of rows from the log weights of their columns (`Criterion.row_loss`).
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
        rows = _Rows(row_loss_of=row_loss_of, items=items, fusion=fusion, targets=targets, sampled=sampled, seen=seen)
        size = max(1, max_logits(targets.device) // (max(1, rows.num_columns) * len(items)))
        if len(targets) <= size:
            total = rows.loss(users, slice(None))
        else:
            chunks = [slice(first, first + size) for first in range(0, len(targets), size)]
            total = torch.stack([recomputed(rows.loss, users, chunk) for chunk in chunks]).sum()
    if parts is not None:
        parts.append(total.detach())
    return total / max(num_global_targets, 1)


class _Rows:
    """Computes the summed loss of some rows.

    The columns are all items. Or column 0 is for targets that are no candidates, and the candidates follow.
    """

    def __init__(
        self,
        *,
        row_loss_of: RowLossOf,
        items: Sequence[Tensor],
        fusion: ScoreFusion,
        targets: Tensor,
        sampled: SampledColumns | None,
        seen: SeenItems | None,
    ) -> None:
        self._items, self._fusion, self._targets, self._seen = items, fusion, targets, seen
        self._columns, log_weights = list(items), items[0].new_zeros(len(items[0]))
        self._column_R = torch.arange(len(items[0]), device=targets.device)
        self._same_BQ: Tensor | None = None
        if sampled is not None:
            self._columns = [F.pad(F.embedding(sampled.candidates, item), (0, 0, 1, 0)) for item in items]
            log_weights = F.pad(sampled.log_weights.detach().to(items[0].dtype), (1, 0), value=-torch.inf)
            self._column_R = torch.zeros_like(self._column_R)
            self._column_R[sampled.candidates] = 1 + torch.arange(len(sampled.candidates), device=targets.device)
            if sampled.same_sequence is not None:
                self._same_BQ = self._column_R[targets[sampled.same_sequence]]
        self._row_loss = row_loss_of(log_weights)
        self.num_columns = len(log_weights)

    def loss(self, users: Sequence[Tensor], chunk: slice) -> Tensor:
        """Return the summed loss of the rows in a slice of `users`."""
        users, targets = [user[chunk] for user in users], self._targets[chunk]
        scores_bC = fused_scores(self._fusion, users, self._columns)
        score_b = self._target_scores(users, targets)
        if self._seen is not None:
            gain, counts_bL = self._seen.gains[0].to(score_b.dtype), self._seen.counts[chunk].to(score_b.dtype)
            scores_bC = scores_bC.scatter_add(1, self._column_R[self._seen.items[chunk]], gain * counts_bL)
            score_b = score_b + gain * self._seen.holds(self._targets)[chunk].to(score_b.dtype)
        same_bQ = self._same_BQ[chunk] if self._same_BQ is not None else None
        own_b = self._column_R[targets]
        return cast(Tensor, ScoredRowsLoss.apply(self._row_loss, scores_bC, score_b, own_b, same_bQ))

    def _target_scores(self, users: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Return the score of each row's target, [b]."""
        vectors = [F.embedding(targets, item) for item in self._items]
        return fused_pairs(self._fusion, users, vectors)
