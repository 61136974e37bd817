"""The loss that a recommender is trained with, in the form that `Recommender` calls; cross entropy is the default.

Shapes: B targets of this rank, R items with a role, K candidates, Q targets of a sequence, C columns of logits, d_c
width of channel c.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.blocks.losses import (
    SoftmaxRows,
    channel_cross_entropy,
    full_loss,
    sampled_cross_entropy,
    sampled_loss,
)
from model.blocks.repeats import SeenItems
from model.blocks.row_chunks import RowLoss
from model.protocol import Channel


class Criterion:
    """A loss over channels in two forms: over all items, and estimated from candidates.

    A loss of its own implements `row_loss`; the two forms follow from it.
    """

    def row_loss(self, log_weights: Tensor) -> RowLoss:
        """Return the loss of rows whose columns have these weights, log w_c [C], in the dtype of the logits."""
        raise NotImplementedError

    def full(
        self,
        users: Sequence[Tensor],
        items: Sequence[Tensor],
        channels: Sequence[Channel],
        targets: Tensor,
        num_global_targets: int,
        seen: SeenItems | None = None,
        parts: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the sum over channels of weight * loss / num_global_targets, with all R items as candidates.

        Arguments, dtypes and memory are those of `channel_cross_entropy`. For B = 0 the result is 0 and connected to
        users and items.
        """
        return full_loss(self.row_loss, users, items, channels, targets, num_global_targets, seen, parts)

    def sampled(
        self,
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
        """Return `full` with the sums over all items estimated from K candidates.

        Arguments, dtypes and memory are those of `sampled_cross_entropy`.
        """
        return sampled_loss(
            self.row_loss,
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


class CrossEntropy(Criterion):
    """The full and the sampled softmax, which have faster forms than their rows: for few logits, and on GPUs."""

    row_loss = SoftmaxRows

    def __init__(self, use_kernel: bool = True) -> None:
        """Say whether the softmax kernel may compute the losses where it can."""
        self.use_kernel = use_kernel

    def full(
        self,
        users: Sequence[Tensor],
        items: Sequence[Tensor],
        channels: Sequence[Channel],
        targets: Tensor,
        num_global_targets: int,
        seen: SeenItems | None = None,
        parts: list[Tensor] | None = None,
    ) -> Tensor:
        return channel_cross_entropy(users, items, channels, targets, num_global_targets, seen, parts, self.use_kernel)

    def sampled(
        self,
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
        return sampled_cross_entropy(
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
            self.use_kernel,
        )
