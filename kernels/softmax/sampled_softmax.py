"""The softmax cross entropy over candidates as one autograd function whose logits are never in memory.

It computes what `model.blocks.losses.sampled_cross_entropy` defines, for one channel. The slow twin is
`kernels.reference.sampled_softmax`. One pass over the columns gives the sums and the users' gradient, as in the forward
of FlashAttention (Dao et al., 2022). That a loss need not write its logits is known from Cut Cross-Entropy (Wijmans et
al., 2024).

Launches for each channel: two kernels in the forward, one in the backward, and a few of torch's operators on numbers
and vectors of the rows. The marks take one or two launches for all channels.

Shapes: B rows, C columns, S splits, Q targets of a sequence, L seen items, d width of a vector, W words of marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.softmax.tiles import Tiles, power_of_two, split_size, tiles_of

COLUMNS_OF_A_WORD = 16
BLOCK_ENTRIES, BLOCK_TARGETS = 1024, 16


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What the loss knows about pairs of rows and columns, which is the same for all channels.

    Attributes:
        own: int32 [B], the column of each row's target; -1: the target has no column.
        marks: int32 [B, W], as `mark` returns them; None: no pair has a mark.
        seen_targets: float32 [B], 1 for rows that have seen their target, else 0; None: there is no gain.
    """

    own: Tensor
    marks: Tensor | None = None
    seen_targets: Tensor | None = None


def mark_bytes(num_rows: int, num_columns: int) -> int:
    """Return the bytes of the marks: a quarter of a byte for each pair."""
    return 4 * num_rows * -(-num_columns // COLUMNS_OF_A_WORD)


def mark(num_columns: int, same_BQ: Tensor | None, seen_BL: Tensor | None) -> Tensor | None:
    """Return marks int32 [B, W] of the columns of each row's sequence, and of those that the row has seen.

    Args:
        num_columns: C.
        same_BQ: int64, columns of the targets of the same sequence; None: there are none.
        seen_BL: int64, columns of seen items; None: there are none. In both, -1 stands for no column, and a column may
            come twice.
    """
    from kernels.softmax.triton_kernels import mark_pairs

    marked = [(bit, columns) for bit, columns in ((1, same_BQ), (2, seen_BL)) if columns is not None]
    if not marked:
        return None
    words = -(-num_columns // COLUMNS_OF_A_WORD)
    marks = torch.zeros(len(marked[0][1]), words, dtype=torch.int32, device=marked[0][1].device)
    for bit, columns in marked:
        count, width = columns.numel(), columns.shape[1]
        if count:
            grid = (-(-count // BLOCK_ENTRIES),)
            mark_pairs[grid](marks, columns.int().contiguous(), count, width, words, BIT=bit, BLOCK=BLOCK_ENTRIES)
    return marks


def dot_precision() -> str:
    """Return how products of float32 are computed: in TF32 only where torch's own products may be."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


class SampledSoftmax(torch.autograd.Function):
    """Sums, over the rows, -s_t + log(exp(s_t) + sum over columns c but the target's of w_c * exp(l_c)).

    l_c is the inner product of the row's vector and the column's, s_t that of the row's vector and its target's. The
    gain is added to both for items that the row has seen. w_c is 1 for columns of the same sequence.

    The forward computes the gradients by users and targets too, which is possible because the loss is a scalar. The
    backward scales them and computes the columns' gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        user_Bd: Tensor,
        target_Bd: Tensor,
        columns_Cd: Tensor,
        log_weights_C: Tensor,
        gain: Tensor | None,
        pairs: Pairs,
        tiles: Tiles | None = None,
    ) -> Tensor:
        """Compute the sum, a float32 scalar.

        Args:
            ctx: autograd's context.
            user_Bd: vectors of the rows, float32 or bfloat16.
            target_Bd: vectors of their targets, of the same dtype.
            columns_Cd: vectors of the columns, of the same dtype.
            log_weights_C: float32, log w; -inf for a column that is in no sum. They get no gradient.
            gain: a float32 scalar; None if `pairs.seen_targets` is None.
            pairs: own columns and marks.
            tiles: sizes of tiles; None: chosen by the width and the dtype.
        """
        tiles = tiles if tiles is not None else tiles_of(user_Bd.shape[1], itemsize=user_Bd.element_size())
        user_Bd, target_Bd, columns_Cd = (x.contiguous() for x in (user_Bd, target_Bd, columns_Cd))
        log_weights_C = log_weights_C.float().contiguous()
        parts = _sum_over_columns(user_Bd, columns_Cd, log_weights_C, gain, pairs, tiles)
        losses_B, others_B, totals_B, user_grad_Bd, gain_grads_B = _add_targets(user_Bd, target_Bd, gain, pairs, *parts)
        ctx.save_for_backward(user_Bd, columns_Cd, log_weights_C, gain, others_B, totals_B, user_grad_Bd, gain_grads_B)
        ctx.pairs, ctx.tiles = pairs, tiles
        return losses_B.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        user_Bd, columns_Cd, log_weights_C, gain, others_B, totals_B, user_grad_Bd, gain_grads_B = ctx.saved_tensors
        column_grad_Cd = _sum_over_rows(user_Bd, columns_Cd, log_weights_C, gain, ctx.pairs, ctx.tiles, totals_B, grad)
        gain_grad = grad * gain_grads_B.sum() if gain_grads_B is not None else None
        target_grad_Bd = (-grad * others_B)[:, None] * user_Bd
        by_vectors = (grad * user_grad_Bd, target_grad_Bd, column_grad_Cd)
        return *(x.to(user_Bd.dtype) for x in by_vectors), None, gain_grad, None, None


def _sum_over_columns(
    user_Bd: Tensor, columns_Cd: Tensor, log_weights_C: Tensor, gain: Tensor | None, pairs: Pairs, tiles: Tiles
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what the kernel of this name writes: log sums [S, B], means [S, B, d] and seen shares [S, B]."""
    from kernels.softmax.triton_kernels import sum_over_columns

    (num_rows, width), num_columns = user_Bd.shape, len(columns_Cd)
    size, splits = split_size(num_rows, num_columns, tiles, user_Bd.device)
    log_sums = user_Bd.new_empty(splits, num_rows, dtype=torch.float32)
    means = user_Bd.new_empty(splits, num_rows, width, dtype=torch.float32)
    seen_shares = torch.empty_like(log_sums) if pairs.seen_targets is not None else None
    if num_rows:
        sum_over_columns[-(-num_rows // tiles.kept), splits](
            user_Bd, columns_Cd, log_weights_C, pairs.own, pairs.marks, gain, log_sums, means, seen_shares,
            num_rows, num_columns, _words(pairs), size,
            WIDTH=width, HEAD=tiles.head, TAIL=tiles.tail, MARKED=pairs.marks is not None,
            GAINED=pairs.seen_targets is not None, PRECISION=dot_precision(),
            BLOCK_ROWS=tiles.kept, BLOCK_COLUMNS=tiles.passed, num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return log_sums, means, seen_shares


def _add_targets(
    user_Bd: Tensor,
    target_Bd: Tensor,
    gain: Tensor | None,
    pairs: Pairs,
    log_sums_SB: Tensor,
    means_SBd: Tensor,
    seen_shares_SB: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Return what the kernel of this name writes: losses, others and totals [B], gradients [B, d] and [B]."""
    from kernels.softmax.triton_kernels import add_targets

    num_rows, width = user_Bd.shape
    losses, others, totals = (user_Bd.new_empty(num_rows, dtype=torch.float32) for _ in range(3))
    user_grad = user_Bd.new_empty(num_rows, width, dtype=torch.float32)
    gain_grads = torch.empty_like(losses) if pairs.seen_targets is not None else None
    if num_rows:
        add_targets[(-(-num_rows // BLOCK_TARGETS),)](
            user_Bd, target_Bd, log_sums_SB, means_SBd, seen_shares_SB, gain, pairs.seen_targets,
            losses, others, totals, user_grad, gain_grads, num_rows, len(log_sums_SB),
            WIDTH=width, SIZE=power_of_two(width), GAINED=gain_grads is not None, BLOCK_ROWS=BLOCK_TARGETS,
        )  # fmt: skip
    return losses, others, totals, user_grad, gain_grads


def _sum_over_rows(
    user_Bd: Tensor,
    columns_Cd: Tensor,
    log_weights_C: Tensor,
    gain: Tensor | None,
    pairs: Pairs,
    tiles: Tiles,
    totals_B: Tensor,
    scale: Tensor,
) -> Tensor:
    """Return the columns' gradient, float32 [C, d], times `scale`, a scalar on the device."""
    from kernels.softmax.triton_kernels import sum_over_rows

    (num_rows, width), num_columns = user_Bd.shape, len(columns_Cd)
    size, splits = split_size(num_columns, num_rows, tiles, user_Bd.device)
    grads = columns_Cd.new_empty(splits, num_columns, width, dtype=torch.float32)
    if num_columns:
        sum_over_rows[-(-num_columns // tiles.kept), splits](
            user_Bd, columns_Cd, log_weights_C, pairs.own, pairs.marks, gain, totals_B, scale, grads,
            num_rows, num_columns, _words(pairs), size,
            WIDTH=width, HEAD=tiles.head, TAIL=tiles.tail, MARKED=pairs.marks is not None,
            GAINED=pairs.seen_targets is not None, PRECISION=dot_precision(),
            BLOCK_ROWS=tiles.passed, BLOCK_COLUMNS=tiles.kept, num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return grads[0] if splits == 1 else grads.sum(dim=0)


def _words(pairs: Pairs) -> int:
    return pairs.marks.shape[1] if pairs.marks is not None else 0
