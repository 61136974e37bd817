"""Takes the optimiser steps of a training, in TorchRec's pipeline or one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from configs.schema import Config
from contracts.batch import Step
from contracts.item_plan import ItemPlan
from distributed.matmul_precision import training_matmul_precision
from distributed.random_streams import seed_for
from distributed.sharding import ShardedSystem
from distributed.training.device_step import DeviceStep
from distributed.training.nonfinite_guard import GuardedOptimizer, finite_gradient
from distributed.training.steps_in_turn import StepsInTurn
from distributed.world import World


class _Pipeline(Protocol):
    def progress(self, steps: Iterator[DeviceStep]) -> Tensor: ...
    def detach(self) -> None: ...


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
        self._pipeline: _Pipeline
        if sharded.uses_torchrec:
            from distributed.torchrec.pipeline import TorchRecSteps

            self._pipeline = TorchRecSteps(
                parallel=sharded.parallel,
                optimizer=self._optimizer,
                device=world.device,
                forward=self._forward,
                step_type=DeviceStep,
            )
        else:
            self._pipeline = StepsInTurn(self._optimizer, world.device, self._forward)

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
                    with training_matmul_precision(self.world.device):
                        share: Tensor = self._pipeline.progress(ready)
                except StopIteration:  # no step is left
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

    def _feature_of(self, plan: ItemPlan) -> Any:
        table = self.sharded.system.table
        return table.feature(plan.union_ids) if table is not None else None

    def _forward(self, step: DeviceStep) -> tuple[Tensor, Tensor]:
        seed_for("step", self._seed, step.number, self.world.rank)
        enabled = self._precision == "bfloat16"
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=enabled):
            share: Tensor = self.sharded.parallel(step)
        # DDP and TorchRec average gradients over ranks, but shares must be summed: multiply by the number of ranks.
        return self._optimizer.watch(share) * self.world.size, share.detach()
