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

from kernels.softmax.tiles import Tiles, power_of_two, split_size, tiles_on

COLUMNS_OF_A_WORD = 16
BLOCK_ENTRIES, BLOCK_TARGETS = 1024, 4


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
            with torch.cuda.device_of(marks):
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
            tiles: sizes of tiles; None: those for the width and the device.
        """
        tiles = tiles if tiles is not None else tiles_on(user_Bd.device, user_Bd.shape[1])
        assert tiles is not None, "vectors are too wide"
        assert tiles.head + tiles.tail >= user_Bd.shape[1], "vectors are wider than their tiles"
        problem = _Problem(
            users=user_Bd.contiguous(),
            columns=columns_Cd.contiguous(),
            log_weights=log_weights_C.float().contiguous(),
            gain=gain,
            pairs=pairs,
            tiles=tiles,
            precision=dot_precision(),
        )
        with torch.cuda.device_of(user_Bd):  # Triton launches on the current device
            losses_B, others_B, totals_B, user_grad_Bd, gain_grads_B = problem.rows(target_Bd.contiguous())
        ctx.save_for_backward(
            problem.users, problem.columns, problem.log_weights, gain, others_B, totals_B, user_grad_Bd, gain_grads_B
        )
        ctx.others = {"pairs": pairs, "tiles": tiles, "precision": problem.precision}
        return losses_B.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        users, columns, log_weights, gain, others_B, totals_B, user_grad_Bd, gain_grads_B = ctx.saved_tensors
        problem = _Problem(users=users, columns=columns, log_weights=log_weights, gain=gain, **ctx.others)
        with torch.cuda.device_of(users):
            column_grad_Cd = problem.column_grad(totals_B, grad)
        target_grad_Bd = (-grad * others_B)[:, None] * users
        gain_grad = grad * gain_grads_B.sum() if gain_grads_B is not None else None
        by_vectors = (grad * user_grad_Bd, target_grad_Bd, column_grad_Cd)
        return *(x.to(users.dtype) for x in by_vectors), None, gain_grad, None, None


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What the kernels of the forward and the backward both read, and their launches."""

    users: Tensor
    columns: Tensor
    log_weights: Tensor
    gain: Tensor | None
    pairs: Pairs
    tiles: Tiles
    precision: str

    def rows(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Return the rows' losses, others and totals [B], and gradients [B, d] and [B], as `add_targets` has them."""
        from kernels.softmax.triton_kernels import add_targets, sum_over_columns

        (num_rows, width), num_columns, tiles = self.users.shape, len(self.columns), self.tiles
        size, splits = split_size(num_rows, num_columns, tiles, self.users.device)
        means = self.users.new_empty(splits, num_rows, width, dtype=torch.float32)
        log_sums = self.users.new_empty(splits, num_rows, dtype=torch.float32)
        losses, others, totals = (self.users.new_empty(num_rows, dtype=torch.float32) for _ in range(3))
        user_grad = self.users.new_empty(num_rows, width, dtype=torch.float32)
        seen_shares = gain_grads = None
        if self.pairs.seen_targets is not None:
            seen_shares, gain_grads = torch.empty_like(log_sums), torch.empty_like(losses)
        if num_rows:
            sum_over_columns[-(-num_rows // tiles.kept), splits](
                *self._operands, log_sums, means, seen_shares, num_rows, num_columns, self._words, size,
                BLOCK_ROWS=tiles.kept, BLOCK_COLUMNS=tiles.passed, **self._constants,
            )  # fmt: skip
            add_targets[(-(-num_rows // BLOCK_TARGETS),)](
                self.users, targets, log_sums, means, seen_shares, self.gain, self.pairs.seen_targets,
                losses, others, totals, user_grad, gain_grads, num_rows, splits,
                WIDTH=width, SIZE=power_of_two(width), GAINED=gain_grads is not None, BLOCK_ROWS=BLOCK_TARGETS,
            )  # fmt: skip
        return losses, others, totals, user_grad, gain_grads

    def column_grad(self, totals: Tensor, scale: Tensor) -> Tensor:
        """Return the columns' gradient, float32 [C, d], times `scale`, a scalar on the device."""
        from kernels.softmax.triton_kernels import sum_over_rows

        (num_rows, width), num_columns, tiles = self.users.shape, len(self.columns), self.tiles
        size, splits = split_size(num_columns, num_rows, tiles, self.users.device)
        grads = self.columns.new_empty(splits, num_columns, width, dtype=torch.float32)
        if num_columns:
            sum_over_rows[-(-num_columns // tiles.kept), splits](
                *self._operands, totals, scale, grads, num_rows, num_columns, self._words, size,
                BLOCK_ROWS=tiles.passed, BLOCK_COLUMNS=tiles.kept, **self._constants,
            )  # fmt: skip
        return grads[0] if splits == 1 else grads.sum(dim=0)

    @property
    def _operands(self) -> tuple[Tensor | None, ...]:
        return self.users, self.columns, self.log_weights, self.pairs.own, self.pairs.marks, self.gain

    @property
    def _words(self) -> int:
        return self.pairs.marks.shape[1] if self.pairs.marks is not None else 0

    @property
    def _constants(self) -> dict[str, Any]:
        return {
            "WIDTH": self.users.shape[1],
            "HEAD": self.tiles.head,
            "TAIL": self.tiles.tail,
            "MARKED": self.pairs.marks is not None,
            "GAINED": self.pairs.seen_targets is not None,
            "PRECISION": self.precision,
            "num_warps": self.tiles.warps,
            "num_stages": self.tiles.stages,
        }
