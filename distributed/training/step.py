"""Takes optimiser steps in TorchRec's pipeline, which overlaps the stages of successive steps.

While step n computes, later steps are in these stages:

| stage | step | on CUDA |
|---|---|---|
| collate: order, candidates, union, plan | n + 3, by a thread, and `loader_workers` processes before it | host |
| copy to the device | n + 2 | own stream, from pinned memory |
| exchange of ids (split table) | n + 1, started before the forward of n and awaited after it | own stream |
| lookup, exchange of rows, views, towers, loss, backward, optimiser | n | default stream |

DDP sums dense gradients in buckets during the backward pass. The rows of step n + 1 are read after step n has updated
them, so the overlap changes no result. On CPU only the exchange of ids overlaps; the other stages run one after the
other. A system without an item table is trained without the pipeline (`_StepByStep`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.streamable import Pipelineable

from configs.schema import Config
from contracts.batch import Batch, Step
from contracts.item_plan import ItemPlan
from distributed.random_streams import seed_for
from distributed.sharding import ShardedSystem
from distributed.training.nonfinite_guard import GuardedOptimizer, finite_gradient
from distributed.world import World
from model.blocks.item_table import item_feature


@dataclass(kw_only=True)
class DeviceStep(Pipelineable):
    """A step in the form that TorchRec's pipeline needs.

    Attributes:
        feature: the item ids to look up, which TorchRec exchanges between ranks ahead of time; None without a table.
        plan: the item plan of the step.
        batch: the batch of the step.
        number: the number of the step in the run.
    """

    feature: KeyedJaggedTensor | None
    plan: ItemPlan
    batch: Batch
    number: int

    def to(self, device: torch.device, non_blocking: bool = False) -> DeviceStep:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        feature = self.feature.to(device, non_blocking) if self.feature is not None else None
        # A plan that is on the device already stays the same object. The plan of the whole catalogue is used in every
        # step and caches its transposed rows.
        plan = self.plan if self.plan.union_ids.device.type == device.type else self.plan.map(move)
        return DeviceStep(feature=feature, plan=plan, batch=self.batch.map(move), number=self.number)

    def record_stream(self, stream: torch.Stream) -> None:
        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        if self.feature is not None:
            self.feature.record_stream(stream)
        self.plan.map(record)
        self.batch.map(record)


class _StepByStep:
    """Takes the place of TorchRec's pipeline for a system without an item table, which the pipeline cannot train.

    Nothing overlaps. There are no ids or rows to exchange ahead of time, and DDP sums gradients in the backward pass.
    """

    def __init__(
        self,
        optimizer: GuardedOptimizer,
        device: torch.device,
        forward: Callable[[DeviceStep], tuple[Tensor, Tensor]],
    ) -> None:
        self._optimizer, self._device, self._forward = optimizer, device, forward

    def progress(self, steps: Iterator[DeviceStep]) -> Tensor:
        """Take the next step and return this rank's share of its loss; StopIteration if there is none."""
        step = next(steps).to(self._device, non_blocking=True)
        self._optimizer.zero_grad()
        loss, share = self._forward(step)
        loss.backward()
        self._optimizer.step()
        return share

    def detach(self) -> None:
        """Do nothing, because there are no modules to detach from."""


class TrainSteps:
    """Takes optimiser steps. The shares of the loss that ranks compute sum to the mean over the global batch."""

    def __init__(self, *, sharded: ShardedSystem, plan: ItemPlan | None, config: Config, world: World) -> None:
        """Prepare the pipeline.

        Args:
            sharded: the system to train.
            plan: the item plan of the whole catalogue; None if every step has its own plan.
            config: the run's settings.
            world: this rank's place.
        """
        self.sharded, self.world = sharded, world
        self._precision = config.training.precision
        self._plan = plan.map(lambda tensor: tensor.to(world.device)) if plan else None
        self._feature = self._feature_of(self._plan) if self._plan else None
        self._seed = config.seed
        self._optimizer = GuardedOptimizer(sharded.optimizer, sharded.dense_parameters, config.training.gradient_clip)
        if sharded.sharding == "row_wise":  # its rows are updated in the backward pass, before the optimiser's step
            sharded.system.recommender.register_forward_pre_hook(
                lambda _, arguments: (finite_gradient(arguments[0]), *arguments[1:])
            )
        self._pipeline: TrainPipelineSparseDist[DeviceStep, Tensor] | _StepByStep
        if sharded.sharding is None:
            self._pipeline = _StepByStep(self._optimizer, world.device, self._forward)
        else:
            self._pipeline = TrainPipelineSparseDist(
                sharded.parallel, self._optimizer, world.device, custom_model_fwd=self._forward
            )

    def run(self, steps: Iterable[Step], first: int = 0) -> Iterator[Tensor | None]:
        """Take the steps and yield this rank's share of each loss, in order: a scalar on the device.

        Yields None for a step that all ranks skipped because its loss or gradient was not finite. When the share of a
        step is yielded, the weights are those after that step. Up to two further steps have then been read.

        Args:
            steps: the steps to take.
            first: the number of the first of them in the run. Random numbers depend on it.
        """
        ready = (self._device_step(step, number) for number, step in enumerate(steps, first))
        try:
            while True:
                try:
                    share: Tensor = self._pipeline.progress(ready)
                except StopIteration:  # TorchRec raises this when no step is left
                    return
                yield None if self._optimizer.skipped else share
        finally:
            self._pipeline.detach()

    @property
    def channel_losses(self) -> Tensor:
        """This rank's sum of cross entropies for each channel, [C], on the device (`Recommender.channel_losses`).

        They belong to the step whose share was yielded last.
        """
        losses = self.sharded.system.recommender.channel_losses
        assert losses is not None, "no step was taken"
        return losses

    def _device_step(self, step: Step, number: int) -> DeviceStep:
        if step.plan is None:
            assert self._plan is not None
            return DeviceStep(feature=self._feature, plan=self._plan, batch=step.batch, number=number)
        return DeviceStep(feature=self._feature_of(step.plan), plan=step.plan, batch=step.batch, number=number)

    def _feature_of(self, plan: ItemPlan) -> KeyedJaggedTensor | None:
        system = self.sharded.system
        return item_feature(plan.union_ids, system.ids_as_one) if system.table is not None else None

    def _forward(self, step: DeviceStep) -> tuple[Tensor, Tensor]:
        seed_for("step", self._seed, step.number, self.world.rank)
        enabled = self._precision == "bfloat16"
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=enabled):
            share: Tensor = self.sharded.parallel(step)
        # DDP and TorchRec average gradients over ranks, but shares must be summed: multiply by the number of ranks.
        return self._optimizer.watch(share) * self.world.size, share.detach()
