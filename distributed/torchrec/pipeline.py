"""Takes steps in TorchRec's pipeline, which overlaps the stages of successive steps.

While step n computes, later steps are in these stages:

| stage | step | on CUDA |
|---|---|---|
| collate: order, candidates, union, plan | n + 3, by a thread, and `loader_workers` processes before it | host |
| copy to the device | n + 2 | own stream, from pinned memory |
| exchange of ids (split table) | n + 1, started before the forward of n and awaited after it | own stream |
| lookup, exchange of rows, views, towers, loss, backward, optimiser | n | default stream |

DDP sums dense gradients in buckets during the backward pass. The rows of step n + 1 are read after step n has updated
them, so the overlap changes no result. On CPU only the exchange of ids overlaps; the other stages run one after the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.streamable import Pipelineable

Step = TypeVar("Step")


class TorchRecSteps(Generic[Step]):
    """Takes steps in TorchRec's pipeline."""

    def __init__(
        self,
        *,
        parallel: nn.Module,
        optimizer: Any,
        device: torch.device,
        forward: Callable[[Step], tuple[Tensor, Tensor]],
        step_type: type[Step],
    ) -> None:
        """Prepare the pipeline.

        Args:
            parallel: the wrapped modules.
            optimizer: only its methods `zero_grad` and `step` are called.
            device: the device of this rank.
            forward: returns the loss for the backward pass, and what `progress` returns.
            step_type: the class of steps, with the methods `to` and `record_stream`.
        """
        # TorchRec checks that a step is Pipelineable. The class of steps cannot say so itself without TorchRec.
        Pipelineable.register(step_type)
        self._pipeline: TrainPipelineSparseDist[Any, Tensor] = TrainPipelineSparseDist(
            parallel, cast(torch.optim.Optimizer, optimizer), device, custom_model_fwd=forward
        )

    def progress(self, steps: Iterator[Step]) -> Tensor:
        """Take the next step and return this rank's share of its loss; StopIteration if there is none."""
        share: Tensor = self._pipeline.progress(steps)
        return share

    def detach(self) -> None:
        """Give the model back its own forward, which TorchRec has replaced."""
        self._pipeline.detach()
