"""Steps that would poison the weights are not taken: a loss or gradient that is not finite.

So is a gradient whose norm float32 cannot hold: its squares would make Adam's moments infinite, and the parameters
would never move again. (A post-norm layer magnifies gradients a million times where dropout leaves it a row of zeros,
which at a width of 8 does happen.)

The sum of all ranks' losses says, before the backward, whether any is not finite. Then every rank goes backward from 0
(ranks that stay out of a collective would stall the rest), and no rank's optimiser takes the step. Where the losses
are finite and a gradient is not, the dense parameters, whose gradients all ranks share, stay as they were; rows of a
split table are updated inside the backward, from what is finite in their gradients (`finite_gradient`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.optim.keyed import KeyedOptimizer, OptimizerWrapper


class GuardedOptimizer(OptimizerWrapper):
    """Clips the norm of the dense gradients and takes no step when it, or the loss, is not finite.

    Attributes:
        skipped: whether the latest step was not taken; the same on all ranks, as summed gradients are.
        norm: of the dense gradients of the latest step.
    """

    def __init__(self, optimizer: KeyedOptimizer, dense: Sequence[nn.Parameter], clip: float | None) -> None:
        super().__init__(optimizer)
        self._dense, self._clip = dense, clip
        self._loss: Tensor | None = None
        self.skipped = False
        self.norm = 0.0

    def watch(self, share: Tensor) -> Tensor:
        """The loss to go backward from: the share, or 0 where any rank's is not finite. A collective."""
        total = share.detach().clone()
        dist.all_reduce(total)
        self._loss = total
        return torch.where(torch.isfinite(total), share, torch.zeros_like(share))

    def step(self, closure: Any = None) -> None:
        """Take the step unless something is not finite. The one wait for the device in a step."""
        gradients = [p.grad for p in self._dense if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
        if self._loss is not None:
            norm = norm + 0 * self._loss  # infinite or not a number: so is the norm
        self.norm = float(norm)
        self.skipped = not math.isfinite(self.norm)
        if self.skipped:
            return
        if self._clip is not None and gradients:
            torch.nn.utils.clip_grads_with_norm_(self._dense, self._clip, norm)
        super().step(closure)


def finite_gradient(rows: Tensor) -> Tensor:
    """The same rows; what is not finite in the gradient that comes back is taken for 0."""
    if rows.requires_grad:
        rows.register_hook(lambda gradient: torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))
    return rows
