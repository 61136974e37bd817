"""Optimiser steps of a sharded system, overlapped by TorchRec's pipeline.

| stage | step | on CUDA |
|---|---|---|
| collate: order, candidates, union, plan | n + 3, by a thread, and `loader_workers` processes before it | host |
| copy to the device | n + 2 | own stream, from pinned memory |
| exchange of ids (split table) | n + 1, started before the forward of n and awaited after it | own stream |
| lookup, exchange of rows, views, towers, loss, backward, optimiser | n | default stream |

DDP sums dense gradients in buckets during the backward. Rows of step n + 1 are read after step n has updated
them, so overlap changes no number. On CPU the stages run one after the other, but for the exchange of ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from distributed.training.guard import GuardedOptimizer, finite_gradient
from distributed.world import World
from model.blocks.item_table import item_feature


@dataclass(kw_only=True)
class DeviceStep(Pipelineable):
    """A step that TorchRec can move, and whose `feature` it exchanges ahead of time."""

    feature: KeyedJaggedTensor | None
    plan: ItemPlan
    batch: Batch
    number: int

    def to(self, device: torch.device, non_blocking: bool = False) -> DeviceStep:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        feature = self.feature.to(device, non_blocking) if self.feature is not None else None
        # A plan that is there stays the same object: the catalogue's keeps its transposed rows from step to step.
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


class TrainSteps:
    """Trains steps; a rank's shares of the loss add up to the mean over the global batch."""

    def __init__(self, *, sharded: ShardedSystem, plan: ItemPlan | None, config: Config, world: World) -> None:
        """`plan` is that of the whole catalogue; None where every step brings its own."""
        self.sharded, self.world = sharded, world
        self._precision = config.training.precision
        self._plan = plan.map(lambda tensor: tensor.to(world.device)) if plan else None
        self._feature = self._feature_of(self._plan) if self._plan else None
        self._seed = config.seed
        self._optimizer = GuardedOptimizer(sharded.optimizer, sharded.dense_parameters, config.training.gradient_clip)
        if sharded.sharding == "row_wise":  # whose rows are updated before the optimiser is asked
            sharded.system.recommender.register_forward_pre_hook(
                lambda _, arguments: (finite_gradient(arguments[0]), *arguments[1:])
            )
        self._pipeline: TrainPipelineSparseDist[DeviceStep, Tensor] = TrainPipelineSparseDist(
            sharded.parallel, self._optimizer, world.device, custom_model_fwd=self._forward
        )

    def run(self, steps: Iterable[Step], first: int = 0) -> Iterator[Tensor | None]:
        """One optimiser step each; yields this rank's share of each loss, in order, still on the device.

        None stands for a step that was not taken, on any rank, as its loss or gradient was not finite.
        Reads up to two steps ahead. Weights are as after step n when its share is yielded.

        Args:
            first: the number of the first step in the run, which its random numbers depend on.
        """
        ready = (self._device_step(step, number) for number, step in enumerate(steps, first))
        try:
            while True:
                try:
                    share: Tensor = self._pipeline.progress(ready)
                except StopIteration:  # how it says that no step is left
                    return
                yield None if self._optimizer.skipped else share
        finally:
            self._pipeline.detach()

    @property
    def channel_losses(self) -> Tensor:
        """Of the step whose share was yielded last: this rank's sum of each channel's cross entropies, [C], on the
        device (`Recommender.channel_losses`)."""
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
        # DDP and TorchRec average gradients over ranks; shares must be summed.
        return self._optimizer.watch(share) * self.world.size, share.detach()
