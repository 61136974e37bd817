"""Losses over channels, in chunks of bounded memory: the full and the sampled softmax, and what other losses share.

Shapes: B targets of this rank, R items with a role, K candidates, C columns of logits, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.blocks.repeats import SeenItems
from model.blocks.row_chunks import RowChunkedLoss, RowLoss, SeenColumns
from model.blocks.softmax_kernel import kernel_covers, kernel_loss
from model.protocol import Channel

# Most logits of a chunk: 64 MiB of float32, for any batch and any number of items. On a GPU it is 1 GiB, because each
# chunk launches about thirty kernels.
MAX_LOGITS = 2**24
_MAX_LOGITS_ON_GPU = 2**28

# Makes the loss of the rows of one channel from the log weights of the columns, [C], in the dtype of the logits.
RowLossOf = Callable[[Tensor], RowLoss]


def max_logits(device: torch.device) -> int:
    """Return the most logits of a chunk on a device."""
    return MAX_LOGITS if device.type == "cpu" else _MAX_LOGITS_ON_GPU


def channel_cross_entropy(
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    channels: Sequence[Channel],
    targets: Tensor,
    num_global_targets: int,
    seen: SeenItems | None = None,
    parts: list[Tensor] | None = None,
    use_kernel: bool = True,
) -> Tensor:
    """Return sum_c weight_c * sum_b -log softmax(<user_b, items>)[target_b] / num_global_targets.

    The softmax is over all R items. Summed over ranks, the result is the mean over the global batch. Logits are at
    least float32 even under autocast, because close scores would be equal in the eight bits of bfloat16. If there are
    more than MAX_LOGITS logits, they are computed for a chunk of rows at a time, of at most `max_logits`.

    Args:
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        channels: names and weights.
        targets: int64 [B], rows of the items.
        num_global_targets: number of targets of the step over all ranks.
        seen: the items in each row whose scores have a gain; None: scores are inner products only.
        parts: a list to which each channel's sum over b is appended, without its weight, division or gradient.
        use_kernel: whether the softmax kernel may compute it where it can, without logits in memory.

    Returns:
        A scalar. For B = 0 it is 0 and still connected to users and items, so that every rank's backward reaches the
        same parameters.
    """
    if use_kernel and kernel_covers(users, len(items[0]), seen is not None):
        by_kernel = kernel_loss(len(items[0]), targets, None, None, None, seen)
        return _over_channels(by_kernel, users, items, channels, num_global_targets, seen, parts)
    if len(users[0]) * len(items[0]) > MAX_LOGITS:
        return full_loss(SoftmaxRows, users, items, channels, targets, num_global_targets, seen, parts)

    def loss_of(user: Tensor, item: Tensor, gain: Tensor | None) -> Tensor:
        logits = user @ item.T
        if seen is not None and gain is not None:
            logits = logits.scatter_add(1, seen.items, gain * seen.counts.to(user.dtype))
        return F.cross_entropy(logits, targets, reduction="sum")  # without rows a zero with an autograd graph

    return _over_channels(loss_of, users, items, channels, num_global_targets, seen, parts)


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
    use_kernel: bool = True,
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

    Logits have dtypes as in `channel_cross_entropy`. At most `max_logits` of them exist at a time.

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
        use_kernel: as in `channel_cross_entropy`.

    Returns:
        A scalar, connected to users and items. It is 0 for B = 0 and for K = 0, and a row whose only candidate is its
        target adds 0.
    """
    has_marks = same_sequence is not None or seen is not None
    if use_kernel and kernel_covers(users, len(candidates), has_marks):
        by_kernel = kernel_loss(len(items[0]), targets, candidates, log_weights, same_sequence, seen)
        return _over_channels(by_kernel, users, items, channels, num_global_targets, seen, parts)
    return sampled_loss(
        SoftmaxRows,
        users,
        items,
        channels,
        targets,
        candidates,
        log_weights,
        num_global_targets,
        same_sequence,
        seen,
        parts,
    )


@dataclass(frozen=True)
class SoftmaxRows:
    """-s_t + log sum_c w_c exp(l_c), with w_c = 1 in the target's column and those of the same sequence.

    Attributes:
        log_weights: log w_c, [C]; -inf for a column that is in no sum.
    """

    log_weights: Tensor

    def logits(self, user_bd: Tensor, columns_Cd: Tensor, same_bQ: Tensor | None) -> Tensor:
        logits = torch.addmm(self.log_weights, user_bd, columns_Cd.T)
        if same_bQ is not None:
            logits.scatter_(1, same_bQ, logits.gather(1, same_bQ) - self.log_weights[same_bQ])
        return logits

    def logits_of(self, scores_bC: Tensor, same_bQ: Tensor | None) -> Tensor:
        logits = scores_bC + self.log_weights
        if same_bQ is not None:
            logits.scatter_(1, same_bQ, scores_bC.gather(1, same_bQ))
        return logits

    def sum_and_gradients(
        self,
        logits_bC: Tensor,
        score_b1: Tensor,
        own_b1: Tensor,
        same_bQ: Tensor | None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_sum = logits_bC.logsumexp(dim=1, keepdim=True)
        total = (log_sum - score_b1).sum()
        probabilities = logits_bC.sub_(log_sum).exp_().scatter_(1, own_b1, 0.0)
        score_grad = torch.expm1(score_b1 - log_sum)  # p - 1, exact also if p is near 1
        return total, probabilities, score_grad


def full_loss(
    row_loss_of: RowLossOf,
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    channels: Sequence[Channel],
    targets: Tensor,
    num_global_targets: int,
    seen: SeenItems | None,
    parts: list[Tensor] | None,
) -> Tensor:
    """Return the loss of rows in which every item has a column; arguments as in `channel_cross_entropy`."""
    seen_columns = SeenColumns(seen.items, seen.counts, seen.holds(targets)) if seen is not None else None

    def loss_of(user: Tensor, item: Tensor, gain: Tensor | None) -> Tensor:
        row_loss = row_loss_of(item.new_zeros(len(item)))
        target = F.embedding(targets, item)
        most = max_logits(user.device)
        loss: Tensor = RowChunkedLoss.apply(row_loss, most, user, target, targets, item, None, gain, seen_columns)
        return loss

    return _over_channels(loss_of, users, items, channels, num_global_targets, seen, parts)


def sampled_loss(
    row_loss_of: RowLossOf,
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    channels: Sequence[Channel],
    targets: Tensor,
    candidates: Tensor,
    log_weights: Tensor,
    num_global_targets: int,
    same_sequence: Tensor | None,
    seen: SeenItems | None,
    parts: list[Tensor] | None,
) -> Tensor:
    """Return the loss of rows with a column for each candidate; arguments as in `sampled_cross_entropy`."""
    assert candidates.shape == log_weights.shape, "one weight per candidate"
    num_targets, num_candidates = len(targets), len(candidates)
    rows = torch.cat([targets, candidates])
    # Column 0 is for targets that are not candidates; in other rows its weight is 0. A target that is a candidate uses
    # the candidate's column. So each row has its target exactly once.
    log_weights_C = F.pad(log_weights.detach(), (1, 0), value=-torch.inf)
    column_R = torch.zeros(len(items[0]), dtype=torch.int64, device=targets.device)
    column_R[candidates] = torch.arange(1, num_candidates + 1, device=targets.device)
    own_B = column_R[targets]
    seen_columns = SeenColumns(column_R[seen.items], seen.counts, seen.holds(targets)) if seen is not None else None
    same_BQ = own_B[same_sequence] if same_sequence is not None else None

    def loss_of(user: Tensor, item: Tensor, gain: Tensor | None) -> Tensor:
        target, candidate = F.embedding(rows, item).split([num_targets, num_candidates])
        columns = F.pad(candidate, (0, 0, 1, 0))
        row_loss = row_loss_of(log_weights_C.to(user.dtype))
        loss: Tensor = RowChunkedLoss.apply(
            row_loss, max_logits(user.device), user, target, own_B, columns, same_BQ, gain, seen_columns
        )
        return loss

    return _over_channels(loss_of, users, items, channels, num_global_targets, seen, parts)


def _over_channels(
    loss_of: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    users: Sequence[Tensor],
    items: Sequence[Tensor],
    channels: Sequence[Channel],
    num_global_targets: int,
    seen: SeenItems | None,
    parts: list[Tensor] | None,
) -> Tensor:
    """Return the weighted sum of the channels' losses over `num_global_targets`.

    Args:
        loss_of: returns a channel's loss summed over rows, from its user vectors, item vectors and gain. It is called
            without autocast and with vectors of at least float32.
        users: per channel [B, d_c].
        items: per channel [R, d_c].
        channels: names and weights.
        num_global_targets: number of targets of the step over all ranks.
        seen: the items whose scores have a gain; None: there are none, and `loss_of` gets no gain.
        parts: a list to which each channel's loss is appended, without its weight or gradient.
    """
    total = torch.zeros((), device=users[0].device)
    for number, (user, item, channel) in enumerate(zip(users, items, channels, strict=True)):
        with torch.autocast(user.device.type, enabled=False):
            user, item = at_least_float32(user), at_least_float32(item)
            loss = loss_of(user, item, seen.gains[number].to(user.dtype) if seen is not None else None)
            total = total + channel.weight * loss
        if parts is not None:
            parts.append(loss.detach())
    return total / max(num_global_targets, 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor in float32, or unchanged if its dtype is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
