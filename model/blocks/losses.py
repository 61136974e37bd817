"""Full and sampled softmax losses over channels, in chunks of bounded memory.

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

# Most logits of a chunk: 64 MiB of float32, for any batch and any number of items.
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
    """Return sum_c weight_c * sum_b -log softmax(<user_b, items>)[target_b] / num_global_targets.

    The softmax is over all R items. Summed over ranks, the result is the mean over the global batch. Logits are at
    least float32 even under autocast, because close scores would be equal in the eight bits of bfloat16. If there are
    more than MAX_LOGITS logits, they are computed for a chunk of rows at a time.

    Args:
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        channels: names and weights.
        targets: int64 [B], rows of the items.
        num_global_targets: number of targets of the step over all ranks.
        seen: the items in each row whose scores have a gain; None: scores are inner products only.
        parts: a list to which each channel's sum over b is appended, without its weight, division or gradient.

    Returns:
        A scalar. For B = 0 it is 0 and still connected to users and items, so that every rank's backward reaches the
        same parameters.
    """
    total = torch.zeros((), device=targets.device)
    seen_columns = _SeenColumns(seen.items, seen.counts, seen.holds(targets)) if seen is not None else None
    for number, (user, item, channel) in enumerate(zip(users, items, channels, strict=True)):
        with torch.autocast(targets.device.type, enabled=False):
            user, item = at_least_float32(user), at_least_float32(item)
            gain = seen.gains[number].to(user.dtype) if seen is not None else None
            if len(user) * len(item) <= MAX_LOGITS:
                # Without rows this is an empty sum, a zero with an autograd graph.
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
    """Return `channel_cross_entropy` with the denominator of each softmax estimated from K candidates.

    For each channel and row, with s_j = <user_b, item_j>, t the row's target and w_j the candidates' weights, it is

        -s_t + log( exp(s_t) + sum_{candidates j != t} w_j * exp(s_j) )

    This is importance sampling. With w_j = number of times that j was drawn / expected number, the sum is an unbiased
    estimate of the sum over all items but the target. The target itself always counts with weight 1. The logarithm and
    the gradient are biased, as ratios of estimates are, and less so with more candidates. If all items are candidates
    with weight 1, the result equals the full softmax.

    The other targets of a row's sequence are candidates with certainty, not by chance, so their weight in the row's sum
    is 1.

    Logits have dtypes as in `channel_cross_entropy`. At most MAX_LOGITS of them exist at a time.

    Args:
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        channels: names and weights.
        targets: int64 [B], rows of the items.
        candidates: int64 [K], distinct rows of the items; targets may be among them.
        log_weights: float32 [K], log w; they get no gradient.
        num_global_targets: number of targets of the step over all ranks.
        same_sequence: int64 [B, Q], for each row the targets of the same sequence, as indices into `targets`, with the
            row itself as padding. Each of these targets must be a candidate. None: no row has any.
        seen: as in `channel_cross_entropy`; items that are neither target nor candidate are in no sum.
        parts: as in `channel_cross_entropy`.

    Returns:
        A scalar, connected to users and items. It is 0 for B = 0 and for K = 0, and a row whose only candidate is its
        target adds 0.
    """
    assert candidates.shape == log_weights.shape, "one weight per candidate"
    num_targets, num_candidates = len(targets), len(candidates)
    rows = torch.cat([targets, candidates])
    total = torch.zeros((), device=targets.device)
    # Column 0 is for targets that are not candidates; in other rows it is -inf. A target that is a candidate uses the
    # candidate's column. So each row has its target exactly once, with weight 1.
    bias_C = F.pad(log_weights.detach(), (1, 0), value=-torch.inf)
    column_R = torch.zeros(len(items[0]), dtype=torch.int64, device=targets.device)
    column_R[candidates] = torch.arange(1, num_candidates + 1, device=targets.device)
    own_B = column_R[targets]
    seen_columns = _SeenColumns(column_R[seen.items], seen.counts, seen.holds(targets)) if seen is not None else None
    same_BQ = own_B[same_sequence] if same_sequence is not None else None
    for number, (user, item, channel) in enumerate(zip(users, items, channels, strict=True)):
        with torch.autocast(targets.device.type, enabled=False):
            user, item = at_least_float32(user), at_least_float32(item)
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
    """The logits that get a gain.

    Attributes:
        columns: int64 [B, L], columns of the seen items.
        counts: float32 [B, L], 1 for a seen item, 0 for padding.
        targets: float32 [B], 1 if the row has seen its target, else 0.
    """

    columns: Tensor
    counts: Tensor
    targets: Tensor


class _RowChunkedLoss(torch.autograd.Function):
    """Computes sum_b (log sum_c exp(l_bc) - s_b), with l = user @ columns.T + bias and s_b = <user_b, target_b>.

    In column own_b, l_bc is s_b. The gain is added to l_bc and s_b for items that the row has seen.

    The forward computes the gradients too, while a chunk's logits are in memory, and the backward only scales them,
    which is possible because the loss is a scalar. This takes three matrix products per chunk, where recomputing the
    softmax would take four, and one buffer holds first the logits and then the probabilities. The cost is that a [C, d]
    gradient stays in memory until the backward.
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
        """Compute the sum and its gradients.

        Args:
            ctx: autograd's context.
            user_Bd: user vectors.
            target_Bd: vectors of the targets.
            own_B: int64, each row's column for its target; this row of `columns_Cd` is the target's vector or zero.
            columns_Cd: vectors of the columns.
            bias_C: bias of the columns.
            same_BQ: int64, columns whose bias is not added in a row; None: there are none.
            gain: a scalar.
            seen: the logits to which `gain` is added.
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
            score_grad = torch.expm1(score - log_sum)  # p - 1, exact also if p is near 1
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


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor in float32, or unchanged if its dtype is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
