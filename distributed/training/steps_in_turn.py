"""Takes steps one after the other; on CUDA the next step is copied to the device meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from distributed.training.device_step import DeviceStep
from distributed.training.nonfinite_guard import GuardedOptimizer


class StepsInTurn:
    """Takes the steps of a model whose table is whole in this process, or that has none.

    There are no ids or rows to exchange ahead of time. If there are several ranks, DDP sums gradients in the backward
    pass.
    """

    def __init__(
        self,
        optimizer: GuardedOptimizer,
        device: torch.device,
        forward: Callable[[DeviceStep], tuple[Tensor, Tensor]],
    ) -> None:
        self._optimizer, self._forward = optimizer, forward
        self._steps = CopiedAhead(device) if device.type == "cuda" else Copied(device)

    def progress(self, steps: Iterator[DeviceStep]) -> Tensor:
        """Take the next step and return this rank's share of its loss; StopIteration if there is none."""
        step = self._steps.next(steps)
        self._optimizer.zero_grad()
        loss, share = self._forward(step)
        loss.backward()
        self._optimizer.step()
        return share

    def detach(self) -> None:
        """Do nothing, because there are no modules to detach from."""


class Copied:
    """Copies each step to the device when it is needed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def next(self, steps: Iterator[DeviceStep]) -> DeviceStep:
        """Return the next step on the device; StopIteration if there is none."""
        return next(steps).to(self._device)


class CopiedAhead(Copied):
    """Copies a step to a CUDA device while the step before it computes: from pinned memory, on a stream of its own.

    One step more than the current one is therefore in the device's memory.

    Args:
        device: the CUDA device.
        cuda: the module with CUDA's streams; tests replace it.
    """

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        super().__init__(device)
        self._cuda, self._copies = cuda, cuda.Stream(device)
        self._ahead: DeviceStep | None = None

    def next(self, steps: Iterator[DeviceStep]) -> DeviceStep:
        step = self._ahead or self._copy(next(steps))
        self._ahead = None
        compute = self._cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        # The step's memory belongs to the stream of copies, which must not reuse it before this step has computed.
        step.record_stream(compute)
        following = next(steps, None)
        self._ahead = None if following is None else self._copy(following)
        return step

    def _copy(self, step: DeviceStep) -> DeviceStep:
        with self._cuda.stream(self._copies):
            return step.to(self._device, non_blocking=True)
