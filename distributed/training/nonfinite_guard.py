"""Skips steps whose loss or gradient is not finite, because they would make the weights infinite or NaN.

A gradient whose norm exceeds float32 counts as not finite. Its squares would make Adam's moments infinite, and the
parameters would never change again. (This happens. If dropout leaves a row of zeros, a post-norm layer magnifies the
gradients a million times; at a width of 8 such rows occur.)

Before the backward pass, ranks add up their losses. If the sum is not finite, every rank runs the backward pass from
a loss of 0, because a rank that left out its collectives would stall the others. Then no rank's optimiser takes the
step.

If the losses are finite and a gradient is not, the dense parameters are not updated on any rank, because all ranks
have the same summed gradients. The rows of a split table are updated inside the backward pass, with those numbers of
their gradients that are finite (`finite_gradient`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distributed.optimizers import Optimizers


class GuardedOptimizer:
    """An optimiser that clips the norm of the dense gradients and skips a step if the norm or the loss is not finite.

    Attributes:
        skipped: whether the latest step was skipped. It is the same on all ranks, because all ranks have the same
            summed gradients.
        norm: the norm of the dense gradients of the latest step.
    """

    def __init__(self, optimizer: Optimizers, dense: Sequence[nn.Parameter], clip: float | None) -> None:
        self._optimizer = optimizer
        self._dense, self._clip = dense, clip
        self._loss: Tensor | None = None
        self.skipped = False
        self.norm = 0.0

    def watch(self, share: Tensor) -> Tensor:
        """Return the loss for the backward pass: this rank's share, or 0 if any rank's share is not finite.

        A collective. The share is a scalar on the device.
        """
        total = share.detach().clone()
        dist.all_reduce(total)
        self._loss = total
        return torch.where(torch.isfinite(total), share, torch.zeros_like(share))

    def zero_grad(self) -> None:
        self._optimizer.zero_grad()

    def step(self) -> None:
        """Take the step unless the loss or a gradient is not finite. A step waits for the device only here."""
        gradients = [p.grad for p in self._dense if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
        if self._loss is not None:
            norm = norm + 0 * self._loss  # makes the norm NaN if the loss is infinite or NaN
        self.norm = norm_on_host(norm)
        self.skipped = not math.isfinite(self.norm)
        if self.skipped:
            return
        if self._clip is not None and gradients:
            torch.nn.utils.clip_grads_with_norm_(self._dense, self._clip, norm)
        self._optimizer.step()


def norm_on_host(norm: Tensor) -> float:
    """Return a norm as a number. On a GPU this waits for all work of the step, also for its collectives.

    With NCCL a rank waits here, and not in a function of torch.distributed, for a rank that hangs. The watchdog
    therefore knows this function's name.
    """
    return float(norm)


def finite_gradient(rows: Tensor) -> Tensor:
    """Return the same rows; in their gradient, numbers that are not finite are replaced by 0."""
    if rows.requires_grad:
        rows.register_hook(lambda gradient: torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))
    return rows
