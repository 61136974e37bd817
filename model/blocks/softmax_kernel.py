"""The softmax losses through the GPU kernel of `kernels/softmax`, and the condition under which it is used.

Shapes: B targets of this rank, R items with a role, K candidates, Q targets of a sequence, L seen items, d_c width of
channel c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.softmax.availability import kernel_runs_on
from kernels.softmax.sampled_softmax import Pairs, SampledSoftmax, dot_precision, mark, mark_bytes
from kernels.softmax.tiles import tiles_on
from model.blocks.repeats import SeenItems

# Most bytes of the marks of pairs: two bits for each row and column, if the batch has gains or shared sequences.
MAX_MARK_BYTES = 2**28


def kernel_covers(users: Sequence[Tensor], num_columns: int, has_marks: bool) -> bool:
    """Return whether the kernel computes this loss: on a GPU where it runs, in TF32, and within its bounds.

    In full float32 it has no tensor cores, and it computes four products where torch's operators compute three.

    Args:
        users: per channel [B, d_c]; float64 is not covered.
        num_columns: number of candidates, or of all items.
        has_marks: whether rows have seen items, or targets of the same sequence.
    """
    device = users[0].device
    return (
        device.type == "cuda"
        and all(torch.promote_types(x.dtype, torch.float32) == torch.float32 for x in users)
        and dot_precision() == "tf32"
        and (not has_marks or mark_bytes(len(users[0]), num_columns) <= MAX_MARK_BYTES)
        and kernel_runs_on(device)
        and all(tiles_on(device, x.shape[1]) is not None for x in users)
    )


def kernel_loss(
    num_items: int,
    targets: Tensor,
    candidates: Tensor | None,
    log_weights: Tensor | None,
    same_sequence: Tensor | None,
    seen: SeenItems | None,
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return a function of a channel's users [B, d_c], items [R, d_c] and gain: the sum over b of the softmax loss.

    Args:
        num_items: R.
        targets: int64 [B], rows of the items.
        candidates: int64 [K], distinct rows of the items; None: all items are.
        log_weights: float32 [K]; None: all weights are 1.
        same_sequence: int64 [B, Q], as in `sampled_cross_entropy`.
        seen: as in `channel_cross_entropy`.
    """
    column_R = torch.arange(num_items, device=targets.device)
    rows, weights = targets, torch.zeros(num_items, device=targets.device)
    if candidates is not None and log_weights is not None:
        column_R = torch.full_like(column_R, -1)
        column_R[candidates] = torch.arange(len(candidates), device=targets.device)
        rows, weights = torch.cat([targets, candidates]), log_weights.detach()
    own_B = column_R[targets]
    same_BQ = own_B[same_sequence] if same_sequence is not None else None
    seen_BL = column_R[seen.items].where(seen.counts > 0, -1) if seen is not None else None
    pairs = Pairs(
        own=own_B.int(),
        marks=mark(len(weights), same_BQ, seen_BL),
        seen_targets=seen.holds(targets).float() if seen is not None else None,
    )

    def loss_of(user: Tensor, item: Tensor, gain: Tensor | None) -> Tensor:
        target, columns = F.embedding(rows, item), item
        if candidates is not None:
            target, columns = target.split([len(targets), len(candidates)])
        loss: Tensor = SampledSoftmax.apply(user, target, columns, weights, gain, pairs)
        return loss

    return loss_of
