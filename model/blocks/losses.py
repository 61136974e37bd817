"""Losses over channels.

Shapes: B targets of this rank, R items with a role, K candidates, C columns of logits, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.blocks.repeats import SeenItems
from model.protocol import Channel

# A chunk's rows times its columns: 64 MiB of float32, whatever the batch and the number of items.
MAX_LOGITS = 2**24


def channel_cross_entropy(
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    channels: Sequence[Channel],
    targets: Tensor,
    num_global_targets: int,
    seen: SeenItems | None = None,
    parts: list[Tensor] | None = None,
) -> Tensor:
    """sum_c weight_c * sum_b -log softmax(<user_b, items>)[target_b] / num_global_targets.

    A full softmax over the R items. Logits are at least float32 whatever autocast says: at bfloat16's
    eight bits, neighbouring scores tie. Summed over ranks this is the mean over the global batch.
    Beyond MAX_LOGITS logits they exist a chunk of rows at a time.

    Args:
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        channels: names and weights.
        targets: int64 [B], rows of the items.
        num_global_targets: targets of the step over all ranks.
        seen: items whose scores gain something in a row; None: scores are the products.
        parts: gets each channel's own sum over b appended, without its weight, the division and a gradient.

    Returns:
        A scalar; 0 for B = 0, still connected to users and items, so that every rank's backward
        reaches the same parameters.
    """
    total = torch.zeros((), device=targets.device)
    seen_columns = _SeenColumns(seen.items, seen.counts, seen.holds(targets)) if seen is not None else None
    for number, (user, item, channel) in enumerate(zip(users, items, channels, strict=True)):
        with torch.autocast(targets.device.type, enabled=False):
            user, item = _at_least_float32(user), _at_least_float32(item)
            gain = seen.gains[number].to(user.dtype) if seen is not None else None
            if len(user) * len(item) <= MAX_LOGITS:
                # With no rows the sum is an empty sum: a zero that keeps its graph.
                logits = user @ item.T
                if seen is not None and gain is not None:
                    logits = logits.scatter_add(1, seen.items, gain * seen.counts.to(user.dtype))
                loss = F.cross_entropy(logits, targets, reduction="sum")
            else:
                target, bias = F.embedding(targets, item), item.new_zeros(len(item))
                loss = _RowChunkedLoss.apply(user, target, targets, item, bias, None, gain, seen_columns)
            total = total + channel.weight * loss
        if parts is not None:
            parts.append(loss.detach())
    return total / max(num_global_targets, 1)


def sampled_cross_entropy(
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    channels: Sequence[Channel],
    targets: Tensor,
    candidates: Tensor,
    log_weights: Tensor,
    num_global_targets: int,
    same_sequence: Tensor | None = None,
    seen: SeenItems | None = None,
    parts: list[Tensor] | None = None,
) -> Tensor:
    """`channel_cross_entropy` with each softmax's denominator estimated from K candidates.

    Per channel and row, with s_j = <user_b, item_j>, t the row's target and w_j the candidates' weights:

        -s_t + log( exp(s_t) + sum_{candidates j != t} w_j * exp(s_j) )

    Importance sampling: with w_j = times j was drawn / times expected, the sum is unbiased for the one
    over all items but the target, which is always in with weight 1. The logarithm and the gradient are
    biased (a ratio of estimates), less so the more candidates are drawn. Equal to the full softmax
    where the candidates are all items and every weight is 1.

    Targets trained together with a row, its mates, are among the candidates for certain, not by chance: their
    weight in its sum is 1.

    Logits are as in `channel_cross_entropy`, and never more than MAX_LOGITS of them at a time.

    Args:
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        channels: names and weights.
        targets: int64 [B], rows of the items.
        candidates: int64 [K], distinct rows of the items, targets among them or not.
        log_weights: float32 [K], log w; no gradient reaches them.
        num_global_targets: targets of the step over all ranks.
        mates: int64 [B, Q], rows of `targets` trained together with each row, itself as padding; each of these targets
            is a candidate. None: each row is trained by itself.
        seen: as in `channel_cross_entropy`; those that are neither target nor candidate are in no sum.
        parts: as in `channel_cross_entropy`.

    Returns:
        A scalar; 0 for B = 0, for K = 0 and where a row's only candidate is its target, still
        connected to users and items.
    """
    assert candidates.shape == log_weights.shape, "one weight per candidate"
    num_targets, num_candidates = len(targets), len(candidates)
    rows = torch.cat([targets, candidates])
    total = torch.zeros((), device=targets.device)
    # Column 0 belongs to targets that are not candidates: -inf, but in their own rows. A target that
    # is a candidate takes that candidate's column. So each row has its target once, with weight 1.
    bias_C = F.pad(log_weights.detach(), (1, 0), value=-torch.inf)
    column_R = torch.zeros(len(items[0]), dtype=torch.int64, device=targets.device)
    column_R[candidates] = torch.arange(1, num_candidates + 1, device=targets.device)
    own_B = column_R[targets]
    seen_columns = _SeenColumns(column_R[seen.items], seen.counts, seen.holds(targets)) if seen is not None else None
    same_BQ = own_B[same_sequence] if same_sequence is not None else None
    for number, (user, item, channel) in enumerate(zip(users, items, channels, strict=True)):
        with torch.autocast(targets.device.type, enabled=False):
            user, item = _at_least_float32(user), _at_least_float32(item)
            target, candidate = F.embedding(rows, item).split([num_targets, num_candidates])
            columns = F.pad(candidate, (0, 0, 1, 0))
            gain = seen.gains[number].to(user.dtype) if seen is not None else None
            bias = bias_C.to(user.dtype)
            loss = _RowChunkedLoss.apply(user, target, own_B, columns, bias, same_BQ, gain, seen_columns)
            total = total + channel.weight * loss
        if parts is not None:
            parts.append(loss.detach())
    return total / max(num_global_targets, 1)


@dataclass(frozen=True)
class _SeenColumns:
    """Which logits gain: int64 columns [B, L], float32 counts of 0 or 1 [B, L], and float32 [B] of the target's."""

    columns: Tensor
    counts: Tensor
    targets: Tensor


class _RowChunkedLoss(torch.autograd.Function):
    """sum_b log sum_c exp(l_bc) - s_b, where l = user @ columns.T + bias, but s_b = <user_b, target_b> at own_b.

    Where columns have been seen by a row, l_bc and s_b have `gain` more.

    Gradients are computed in the forward, while a chunk's logits are there, and scaled in the backward
    (the loss is a scalar): three products a chunk in place of the four of a recomputed softmax, and one
    buffer that turns from logits into probabilities. The price is a [C, d] gradient held from there on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        user_Bd: Tensor,
        target_Bd: Tensor,
        own_B: Tensor,
        columns_Cd: Tensor,
        bias_C: Tensor,
        same_BQ: Tensor | None,
        gain: Tensor | None,
        seen: _SeenColumns | None,
    ) -> Tensor:
        """own_B: int64 [B], each row's column for its target. That column of `columns` is the target or zero.

        same_BQ: int64 [B, Q], columns whose bias does not count in a row.
        gain, seen: a scalar, and which logits it is added to.
        """
        user_grad_Bd, target_grad_Bd = torch.empty_like(user_Bd), torch.empty_like(target_Bd)
        columns_grad_Cd = torch.zeros_like(columns_Cd)
        gain_grad = torch.zeros_like(gain) if gain is not None else None
        total = user_Bd.new_zeros(())
        num_rows = max(1, MAX_LOGITS // max(1, len(columns_Cd)))
        for start in range(0, len(user_Bd), num_rows):
            chunk = slice(start, start + num_rows)
            user, target, own = user_Bd[chunk], target_Bd[chunk], own_B[chunk, None]
            score = (user * target).sum(dim=1, keepdim=True)
            logits = torch.addmm(bias_C, user, columns_Cd.T)
            if same_BQ is not None:
                same = same_BQ[chunk]
                logits.scatter_(1, same, logits.gather(1, same) - bias_C[same])
            if gain is not None and seen is not None:
                counts = seen.counts[chunk].to(logits.dtype)
                score += gain * seen.targets[chunk, None].to(logits.dtype)
                logits.scatter_add_(1, seen.columns[chunk], gain * counts)
            logits.scatter_(1, own, score)
            log_sum = logits.logsumexp(dim=1, keepdim=True)
            total += (log_sum - score).sum()
            probabilities = logits.sub_(log_sum).exp_().scatter_(1, own, 0.0)
            score_grad = torch.expm1(score - log_sum)  # p - 1, to full precision where p is near 1
            user_grad_Bd[chunk] = torch.addmm(score_grad * target, probabilities, columns_Cd)
            target_grad_Bd[chunk] = score_grad * user
            columns_grad_Cd.addmm_(probabilities.T, user)
            if gain_grad is not None and seen is not None:
                gain_grad += (probabilities.gather(1, seen.columns[chunk]) * counts).sum()
                gain_grad += (score_grad[:, 0] * seen.targets[chunk]).sum()
        ctx.save_for_backward(user_grad_Bd, target_grad_Bd, columns_grad_Cd, gain_grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        user_grad_Bd, target_grad_Bd, columns_grad_Cd, gain_grad = ctx.saved_tensors
        gain_grad = grad * gain_grad if gain_grad is not None else None
        return grad * user_grad_Bd, grad * target_grad_Bd, None, grad * columns_grad_Cd, None, None, gain_grad, None


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
