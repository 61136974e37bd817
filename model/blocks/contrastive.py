"""An in-batch contrastive loss: each row's positive pair against pairs with the rows of other targets, of all ranks.

Shapes: B rows of this rank, G rows of all ranks, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.blocks.losses import max_logits
from model.blocks.recompute import recomputed

# Returns the rows of all ranks, one rank after the other, from those of this rank; [B, ...] -> [G, ...]. Its gradient
# with respect to this rank's rows is that of the losses of all ranks. Every rank must call it, and run its backward.
Gather = Callable[[Tensor], Tensor]


def own_rows(rows: Tensor) -> Tensor:
    """Return the same rows: the `Gather` of a model that is not distributed."""
    return rows


def contrastive_loss(
    positives: Sequence[tuple[Tensor, Tensor]],
    negatives: Sequence[tuple[Tensor, Tensor]],
    targets_B: Tensor,
    targets_G: Tensor,
) -> Tensor:
    """Return sum_b -log( P_b / (P_b + N_b) ), a scalar in at least float32.

    P_b is the sum of exp <q_b, x_b> over the positives (q, x). N_b is the sum of exp <q_b, x_j> over the negatives
    (q, x) and over the rows j of all ranks that have another target than b.

    If there are more than `max_logits` logits, they are computed for a chunk of rows at a time, and once more in the
    backward pass.

    Args:
        positives: pairs of a query and a candidate for each row, [B, d] each.
        negatives: pairs of this rank's queries [B, d] and the candidates of all ranks [G, d].
        targets_B: int64 [B], the item that each row of this rank predicts.
        targets_G: int64 [G], the same of all ranks, in the order of the candidates.

    Returns:
        The sum over this rank's rows. For B = 0 it is 0 and still connected to queries and candidates, so that every
        rank's backward reaches the same parameters.
    """
    per_row = max(1, len(negatives) * len(targets_G))
    size = max(1, max_logits(targets_B.device) // per_row)
    num_rows = len(targets_B)
    with torch.autocast(targets_B.device.type, enabled=False):
        if num_rows <= size:
            return _loss_of_rows(positives, negatives, targets_B, targets_G)
        total = torch.zeros((), device=targets_B.device)
        for start in range(0, num_rows, size):
            chunk = slice(start, start + size)
            total = total + recomputed(
                _loss_of_rows,
                [(query[chunk], candidate[chunk]) for query, candidate in positives],
                [(query[chunk], candidates) for query, candidates in negatives],
                targets_B[chunk],
                targets_G,
                draws=False,
            )
    return total


def _loss_of_rows(
    positives: Sequence[tuple[Tensor, Tensor]],
    negatives: Sequence[tuple[Tensor, Tensor]],
    targets_B: Tensor,
    targets_G: Tensor,
) -> Tensor:
    same_BG = targets_B[:, None] == targets_G
    right = torch.stack([(query * candidate).sum(dim=1) for query, candidate in positives], dim=1)
    wrong = [(query @ candidates.T).masked_fill(same_BG, -torch.inf) for query, candidates in negatives]
    return (torch.cat([right, *wrong], dim=1).logsumexp(dim=1) - right.logsumexp(dim=1)).sum()
