"""One optimiser step of a sharded system."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.contracts import ItemPlan, Step
from configs.schema import Config
from distributed.sharding import ShardedSystem
from distributed.world import World


@dataclass
class TrainStep:
    """One optimiser step on a batch; returns this rank's share of the loss (shares add up to the mean)."""

    sharded: ShardedSystem
    plan: ItemPlan | None  # of the whole catalogue, on the device; None where every step brings its own
    config: Config
    world: World

    def __call__(self, step: Step) -> Tensor:
        step = step.map(lambda tensor: tensor.to(self.world.device, non_blocking=True))
        plan = step.plan or self.plan
        assert plan is not None
        self.sharded.optimizer.zero_grad(set_to_none=True)
        share: Tensor = self.sharded.parallel(plan, step.batch)
        # DDP and TorchRec average gradients over ranks; shares must be summed.
        (share * self.world.size).backward()
        clip = self.config.training.gradient_clip
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.sharded.dense_parameters, clip)
        self.sharded.optimizer.step()
        return share.detach()
