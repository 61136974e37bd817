"""The loss that a recommender is trained with, in the form that `Recommender` calls; cross entropy is the default.

Shapes: B targets of this rank, R items with a role, K candidates, Q targets of a sequence, d_c width of channel c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from model.blocks.losses import SoftmaxRows, channel_cross_entropy, sampled_cross_entropy
from model.blocks.repeats import SeenItems
from model.blocks.row_chunks import RowLoss
from model.protocol import Channel


class Criterion(Protocol):
    """A loss over channels in two forms: over all items, and estimated from candidates."""

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
        """Return the loss over all items; see `channel_cross_entropy`."""
        ...

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
        """Return the loss with sums over all items estimated from candidates; see `sampled_cross_entropy`."""
        ...

    def row_loss(self, log_weights: Tensor) -> RowLoss:
        """Return the loss of rows whose columns have these weights, log w_c [C]; `fused_loss` calls it."""
        ...


class CrossEntropy:
    """The full and the sampled softmax."""

    full = staticmethod(channel_cross_entropy)
    sampled = staticmethod(sampled_cross_entropy)
    row_loss = SoftmaxRows
