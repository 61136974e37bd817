"""An in-batch contrastive loss: each row's positive pair against pairs with the rows of other targets, of all ranks.

Shapes: B rows of this rank, G rows of all ranks, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.blocks.losses import max_logits
from model.blocks.recompute import recomputed
from model.blocks.score_fusion import ScoreFusion, fused_pairs, fused_scores

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

    def of_rows(rows: slice, own_targets: Tensor) -> Tensor:
        return _loss_of_rows(
            [(query[rows], candidate[rows]) for query, candidate in positives],
            [(query[rows], candidates) for query, candidates in negatives],
            own_targets,
            targets_G,
        )

    return _summed_in_chunks(of_rows, targets_B, len(negatives) * len(targets_G))


def fused_contrastive_loss(
    fusion: ScoreFusion,
    users: Sequence[Tensor],
    own: Sequence[Tensor],
    candidates: Sequence[Tensor],
    targets_B: Tensor,
    targets_G: Tensor,
) -> Tensor:
    """Return the same loss for scores that are fused of those in all channels: sum_b -log( P_b / (P_b + N_b) ).

    P_b is exp of the score of row b and its own target. N_b is the sum of exp of its scores with the rows j of all
    ranks that have another target. Many logits are computed in chunks, as in `contrastive_loss`.

    Args:
        fusion: computes a score from the scores in all channels.
        users: per channel, this rank's rows [B, d].
        own: per channel, the vectors of their own targets [B, d]; a zero vector means that the item has none.
        candidates: per channel, the targets' vectors of all ranks [G, d].
        targets_B: int64 [B], as in `contrastive_loss`.
        targets_G: int64 [G], likewise.
    """

    def of_rows(rows: slice, own_targets: Tensor) -> Tensor:
        own_users = [user[rows] for user in users]
        own_vectors = [vector[rows] for vector in own]
        return _fused_loss_of_rows(fusion, own_users, own_vectors, candidates, own_targets, targets_G)

    return _summed_in_chunks(of_rows, targets_B, len(users) * len(targets_G))


def _summed_in_chunks(of_rows: Callable[[slice, Tensor], Tensor], targets_B: Tensor, logits_of_row: int) -> Tensor:
    """Return the sum of the losses of all rows, of chunks of rows whose logits are at most `max_logits`."""
    size = max(1, max_logits(targets_B.device) // max(1, logits_of_row))
    with torch.autocast(targets_B.device.type, enabled=False):
        if len(targets_B) <= size:
            return of_rows(slice(None), targets_B)
        total = torch.zeros((), device=targets_B.device)
        for start in range(0, len(targets_B), size):
            chunk = slice(start, start + size)
            total = total + recomputed(of_rows, chunk, targets_B[chunk], draws=False)
    return total


def _fused_loss_of_rows(
    fusion: ScoreFusion,
    users: Sequence[Tensor],
    own: Sequence[Tensor],
    candidates: Sequence[Tensor],
    targets_B: Tensor,
    targets_G: Tensor,
) -> Tensor:
    right_B1 = fused_pairs(fusion, users, own)[:, None]
    wrong_BG = fused_scores(fusion, users, candidates).masked_fill(targets_B[:, None] == targets_G, -torch.inf)
    return (torch.cat([right_B1, wrong_BG], dim=1).logsumexp(dim=1) - right_B1[:, 0]).sum()


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
