"""Losses that are sums over rows of logits, computed for a chunk of rows at a time so that memory stays bounded.

Shapes: B targets of this rank, b rows of a chunk, C columns of logits, L seen items, Q targets of a sequence, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class RowLoss(Protocol):
    """A loss that compares a row's score of its target with the row's logits in all columns."""

    def logits(self, user_bd: Tensor, columns_Cd: Tensor, same_bQ: Tensor | None) -> Tensor:
        """Return the logits of a chunk, a new tensor [b, C], before gains and before the own column is set.

        Args:
            user_bd: user vectors.
            columns_Cd: vectors of the columns.
            same_bQ: int64, each row's columns of the targets of the same sequence; None: there are none.
        """
        ...

    def logits_of(self, scores_bC: Tensor, same_bQ: Tensor | None) -> Tensor:
        """Return the same as `logits` for scores that are no inner products, a new tensor [b, C]."""
        ...

    def sum_and_gradients(
        self, logits_bC: Tensor, score_b1: Tensor, own_b1: Tensor, same_bQ: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss summed over the chunk, and its gradients by the logits, [b, C], and by the scores, [b, 1].

        The target counts through `score_b1` alone, so the gradient of the logit in its own column is 0. `logits_bC` may
        be overwritten.

        Args:
            logits_bC: the logits. In a row's own column stands the score of its target.
            score_b1: the scores of the targets.
            own_b1: int64, each row's column for its target.
            same_bQ: as in `logits`.
        """
        ...


@dataclass(frozen=True)
class SeenColumns:
    """The logits that get a gain.

    Attributes:
        columns: int64 [B, L], columns of the seen items.
        counts: float32 [B, L], 1 for a seen item, 0 for padding.
        targets: float32 [B], 1 if the row has seen its target, else 0.
    """

    columns: Tensor
    counts: Tensor
    targets: Tensor


class RowChunkedLoss(torch.autograd.Function):
    """Computes the sum over rows of a `RowLoss` of l = user @ columns.T and s_b = <user_b, target_b>.

    In column own_b, l_bc is s_b. The gain is added to l_bc and s_b for items that the row has seen.

    The forward computes the gradients too, while a chunk's logits are in memory, and the backward only scales them,
    which is possible because the loss is a scalar. This takes three matrix products per chunk, where recomputing the
    logits would take four, and one buffer holds first the logits and then their gradients. The cost is that a [C, d]
    gradient stays in memory until the backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        row_loss: RowLoss,
        max_logits: int,
        user_Bd: Tensor,
        target_Bd: Tensor,
        own_B: Tensor,
        columns_Cd: Tensor,
        same_BQ: Tensor | None,
        gain: Tensor | None,
        seen: SeenColumns | None,
    ) -> Tensor:
        """Compute the sum and its gradients.

        Args:
            ctx: autograd's context.
            row_loss: the loss; no gradient reaches the tensors that it holds.
            max_logits: most logits of a chunk, unless a single row has more.
            user_Bd: user vectors.
            target_Bd: vectors of the targets.
            own_B: int64, each row's column for its target; this row of `columns_Cd` is the target's vector or zero.
            columns_Cd: vectors of the columns.
            same_BQ: int64, each row's columns of the targets of the same sequence; None: there are none.
            gain: a scalar.
            seen: the logits to which `gain` is added.
        """
        user_grad_Bd, target_grad_Bd = torch.empty_like(user_Bd), torch.empty_like(target_Bd)
        columns_grad_Cd = torch.zeros_like(columns_Cd)
        gain_grad = torch.zeros_like(gain) if gain is not None else None
        total = user_Bd.new_zeros(())
        num_rows = max(1, max_logits // max(1, len(columns_Cd)))
        for start in range(0, len(user_Bd), num_rows):
            chunk = slice(start, start + num_rows)
            user, target, own = user_Bd[chunk], target_Bd[chunk], own_B[chunk, None]
            same = same_BQ[chunk] if same_BQ is not None else None
            score = (user * target).sum(dim=1, keepdim=True)
            logits = row_loss.logits(user, columns_Cd, same)
            if gain is not None and seen is not None:
                counts = seen.counts[chunk].to(logits.dtype)
                score += gain * seen.targets[chunk, None].to(logits.dtype)
                logits.scatter_add_(1, seen.columns[chunk], gain * counts)
            logits.scatter_(1, own, score)
            value, logits_grad, score_grad = row_loss.sum_and_gradients(logits, score, own, same)
            total += value
            user_grad_Bd[chunk] = torch.addmm(score_grad * target, logits_grad, columns_Cd)
            target_grad_Bd[chunk] = score_grad * user
            columns_grad_Cd.addmm_(logits_grad.T, user)
            if gain_grad is not None and seen is not None:
                gain_grad += (logits_grad.gather(1, seen.columns[chunk]) * counts).sum()
                gain_grad += (score_grad[:, 0] * seen.targets[chunk]).sum()
        ctx.save_for_backward(user_grad_Bd, target_grad_Bd, columns_grad_Cd, gain_grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        user_grad_Bd, target_grad_Bd, columns_grad_Cd, gain_grad = ctx.saved_tensors
        gain_grad = grad * gain_grad if gain_grad is not None else None
        scaled = (grad * user_grad_Bd, grad * target_grad_Bd, None, grad * columns_grad_Cd)
        return None, None, *scaled, None, gain_grad, None


class ScoredRowsLoss(torch.autograd.Function):
    """Computes a `RowLoss` of rows whose scores were computed before, and its gradients by these scores."""

    @staticmethod
    def forward(
        ctx: Any, row_loss: RowLoss, scores_bC: Tensor, score_b: Tensor, own_b: Tensor, same_bQ: Tensor | None
    ) -> Tensor:
        """Compute the sum over rows and its gradients.

        Args:
            ctx: autograd's context.
            row_loss: the loss.
            scores_bC: the scores in all columns. Those in a row's own column do not count.
            score_b: the scores of the targets.
            own_b: int64, each row's column for its target.
            same_bQ: as in `RowLoss.logits`.
        """
        own_b1, score_b1 = own_b[:, None], score_b[:, None]
        logits_bC = row_loss.logits_of(scores_bC, same_bQ).scatter_(1, own_b1, score_b1)
        total, scores_grad_bC, score_grad_b1 = row_loss.sum_and_gradients(logits_bC, score_b1, own_b1, same_bQ)
        ctx.save_for_backward(scores_grad_bC, score_grad_b1[:, 0])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores_grad_bC, score_grad_b = ctx.saved_tensors
        return None, grad * scores_grad_bC, grad * score_grad_b, None, None
