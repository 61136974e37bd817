"""Wraps a system in TorchRec's `DistributedModelParallel`, which splits or replicates its item table over ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward as apply_optimizer_in_backward
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ModuleSharder, ShardingPlan
from torchrec.optim.keyed import KeyedOptimizer
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from distributed.optimizers import NamedOptimizer, States
from distributed.torchrec.table import ShardedItemTable
from distributed.world import World
from model.blocks.item_table import TABLE, ItemTable
from model.system import RecommenderSystem

__all__ = ["FusedOptimizer", "RowWiseAdagrad", "Wrapped", "wrap"]


class FusedOptimizer(NamedOptimizer):
    """The optimiser of a split table, which updates rows inside the backward pass. A step only sets its rate."""

    def __init__(self, optimizer: KeyedOptimizer) -> None:
        super().__init__({}, optimizer)
        self._keyed = optimizer

    def states(self) -> States:
        return cast(States, self._keyed.state_dict()["state"])  # by names that TorchRec gives


@dataclass(kw_only=True)
class Wrapped:
    """A system that TorchRec has wrapped.

    Attributes:
        parallel: the wrapped modules.
        system: the same modules without the wrapper.
        fused: the optimiser inside the table; it has no parameters if the table is replicated.
        plan: TorchRec's sharding plan as text.
    """

    parallel: nn.Module
    system: RecommenderSystem
    fused: FusedOptimizer
    plan: str


def wrap(system: RecommenderSystem, optimizer: tuple[Any, float] | None, world: World) -> Wrapped:
    """Give the system a table that TorchRec shards, and wrap it.

    Args:
        system: a new system; its `ItemTable` is replaced.
        optimizer: for a table whose rows are split, its optimiser and learning rate; None: the table is replicated,
            and an optimiser outside of TorchRec updates it.
        world: this rank's place.
    """
    table = system.table
    assert isinstance(table, ItemTable)
    is_split = optimizer is not None
    system.table = ShardedItemTable(
        num_items=table.num_items, dim=table.dim, init_std=table.init_std, as_one=is_split, device="meta"
    )
    if optimizer is not None:
        kind, learning_rate = optimizer
        apply_optimizer_in_backward(kind, system.table.parameters(), {"lr": learning_rate})
    plan, sharders = _plan(system, is_split, world)
    parallel = DistributedModelParallel(
        system,
        device=world.device,
        plan=plan,
        sharders=sharders,
        data_parallel_wrapper=DefaultDataParallelWrapper(params_to_ignore=_not_for_ddp(system)),
    )
    return Wrapped(
        parallel=parallel,
        system=cast(RecommenderSystem, parallel.module),
        fused=FusedOptimizer(parallel.fused_optimizer),
        plan="\n".join(line for line in str(plan).splitlines() if line.strip()),
    )


def _plan(
    system: RecommenderSystem, is_split: bool, world: World
) -> tuple[ShardingPlan, list[ModuleSharder[nn.Module]]]:
    """Return TorchRec's plan for the table with a given sharding, and the sharders; reads this machine's memory."""
    ranks_of_node = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    topology = Topology(
        world_size=world.size,
        local_world_size=ranks_of_node,
        compute_device=world.device.type,
        hbm_cap=torch.cuda.get_device_properties(world.device).total_memory if world.device.type == "cuda" else 0,
        ddr_cap=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // ranks_of_node,
    )
    constraints: Any = {
        TABLE: ParameterConstraints(
            sharding_types=["row_wise" if is_split else "data_parallel"],
            compute_kernels=["fused" if is_split else "dense"],
        )
    }
    sharders: list[ModuleSharder[nn.Module]] = [EmbeddingCollectionSharder()]
    planner = EmbeddingShardingPlanner(topology=topology, constraints=constraints)
    return planner.collective_plan(system, sharders, dist.group.WORLD), sharders


def _not_for_ddp(system: RecommenderSystem) -> list[str]:
    """Return the parameters of the recommender if all are frozen, else none.

    DDP fails on a module without a parameter to train. It broadcasts the others from rank 0, also frozen ones, so this
    function broadcasts what DDP will not.
    """
    parameters = {f"recommender.{name}": p for name, p in system.recommender.named_parameters()}
    if any(p.requires_grad for p in parameters.values()):
        return []
    for parameter in parameters.values():
        dist.broadcast(parameter.data, src=0)
    return list(parameters)
