"""Distributes a model over ranks: splits or replicates the item table, and makes the optimisers.

The order of the steps matters:

1. freeze the parameters that are not to be trained, because DDP reduces the gradients of all others;
2. choose the sharding of the table;
3. attach the fused optimiser to the table, which updates its rows inside the backward pass;
4. plan, and wrap the model in DistributedModelParallel;
5. fill the table;
6. make the optimisers of all other parameters that are trained.

A replicated (`data_parallel`) table ignores an optimiser that is attached to it, so the table must be in the dense
optimiser. A `row_wise` table must not be in it. Both are asserted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.optim import _apply_optimizer_in_backward as apply_optimizer_in_backward
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ModuleSharder, ShardingPlan
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from configs.schema import Config, TableConfig
from contracts.errors import InputError
from distributed.freezing import freeze
from distributed.gathering import rows_of_all_ranks
from distributed.world import World
from model.blocks.item_table import TABLE
from model.blocks.repeats import REPEATS
from model.system import RecommenderSystem

Sharding = Literal["data_parallel", "row_wise"]
_INIT_BLOCK = 8192  # rows that are filled from one random stream, so that any sharding fills the same table
_DENSE = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}
_TABLE = {**_DENSE, "rowwise_adagrad": RowWiseAdagrad}


@dataclass(kw_only=True)
class ShardedSystem:
    """A system that is distributed over ranks.

    Attributes:
        parallel: the wrapped modules. Calling them returns the training loss; gradients are averaged over ranks.
        system: the same modules without the wrapper, for encoding.
        optimizer: updates all parameters that are trained, including the rows of a fused table.
        dense_parameters: the trained parameters that gradient clipping uses (rows of a fused table have no `.grad`).
        sharding: how the table is distributed; None without a table.
        plan: the sharding plan as text.
    """

    parallel: nn.Module
    system: RecommenderSystem
    optimizer: KeyedOptimizer
    dense_parameters: list[nn.Parameter]
    sharding: Sharding | None
    plan: str


def choose_sharding(table: TableConfig, num_items: int, dim: int) -> Sharding:
    """Return `table.sharding`. If it is "auto", a table is replicated while its weights and Adam moments are small.

    The limit is `table.replicate_below_gib`, in float32: the weights, and two moments for each weight.
    """
    if table.sharding != "auto":
        return table.sharding
    gib = num_items * dim * 4 * 3 / 2**30
    return "data_parallel" if gib <= table.replicate_below_gib else "row_wise"


def choose_optimizer(table: TableConfig, sharding: Sharding, device_type: str) -> str:
    """Return the name of the table's optimiser.

    Raises:
        InputError: fused Adam was requested on CPU, where FBGEMM does not have it.
    """
    if table.optimizer == "auto":
        return "adam" if sharding == "data_parallel" or device_type == "cuda" else "rowwise_adagrad"
    if table.optimizer == "adam" and sharding == "row_wise" and device_type == "cpu":
        raise InputError(
            "table.optimizer=adam: a row_wise table has no fused Adam on CPU; use rowwise_adagrad, adagrad or sgd, "
            "or table.sharding=data_parallel"
        )
    return table.optimizer


def shard(system: RecommenderSystem, config: Config, num_items: int, world: World) -> ShardedSystem:
    """Distribute a new system over the ranks of the default process group.

    The table is filled with N(0, init_std). Each block of rows has its own random stream, keyed by (seed, block), so
    the table is the same for any number of ranks and either sharding. Dense parameters are broadcast from rank 0.

    Raises:
        InputError: `training.freeze` matches nothing or everything, or see `choose_optimizer`.
    """
    system.recommender.to(world.device)
    freeze(system, config.training.freeze)
    system.recommender.gather = rows_of_all_ranks
    if system.table is None:
        return _without_table(system, config)
    sharding = choose_sharding(config.table, num_items, config.model.dim)
    name = choose_optimizer(config.table, sharding, world.device.type)
    if system.table_is_frozen:
        name = "sgd"  # it takes no steps, and has no states that would need memory
    table_lr = config.table.learning_rate or config.training.learning_rate
    system.ids_as_one = sharding == "row_wise"
    if sharding == "row_wise":
        apply_optimizer_in_backward(_TABLE[name], system.table.parameters(), {"lr": table_lr})
    plan, sharders = _plan(system, sharding, world)
    wrapper = DefaultDataParallelWrapper(params_to_ignore=_not_for_ddp(system))
    parallel = DistributedModelParallel(
        system, device=world.device, plan=plan, sharders=sharders, data_parallel_wrapper=wrapper
    )
    fill_table(parallel.state_dict(), config.model.init_std, config.seed)

    dense = {key: p for key, p in in_backward_optimizer_filter(parallel.named_parameters()) if p.requires_grad}
    rows = {key: p for key, p in dense.items() if _is_table(key)}
    assert bool(rows) == (sharding == "data_parallel"), f"{sharding} table and dense optimiser disagree: {list(rows)}"
    if system.table_is_frozen:
        rows = {}
    rest = {key: p for key, p in dense.items() if not _is_table(key)}
    parts: list[tuple[str, KeyedOptimizer]] = [("fused", parallel.fused_optimizer)]
    if rows:
        parts.append(("table", KeyedOptimizerWrapper(rows, lambda p: _TABLE[name](p, lr=table_lr))))
    parts += _dense_optimizers(rest, config)
    steps = "none, because it is frozen" if system.table_is_frozen else name
    text = "\n".join(line for line in str(plan).splitlines() if line.strip()) + f"\ntable optimizer: {steps}"
    return ShardedSystem(
        parallel=parallel,
        system=parallel.module,
        optimizer=CombinedOptimizer(parts),
        dense_parameters=[*rows.values(), *rest.values()],
        sharding=sharding,
        plan=text,
    )


def unsharded(system: RecommenderSystem, device: torch.device) -> ShardedSystem:
    """Return a new system whole in this process, without a process group: for ranking, and not for training.

    The table is not filled. A checkpoint must be loaded into it.
    """
    system.recommender.to(device)
    if system.table is not None:
        system.table.to_empty(device=device)
    return ShardedSystem(
        parallel=system,
        system=system,
        optimizer=CombinedOptimizer([]),
        dense_parameters=list(system.parameters()),
        sharding=None,
        plan="not distributed",
    )


def fill_table(state: dict[str, Tensor], std: float, seed: int) -> None:
    """Fill this rank's rows of the table in place with N(0, std). A row's values do not depend on the sharding."""
    for key, value in state.items():
        if not _is_table(key):
            continue
        if isinstance(value, ShardedTensor):
            chunks = [(shard.metadata.shard_offsets[0], shard.tensor) for shard in value.local_shards()]
        else:
            chunks = [(0, value)]
        for first, rows in chunks:
            for start in range(first - first % _INIT_BLOCK, first + len(rows), _INIT_BLOCK):
                stream = np.random.Generator(np.random.Philox(key=np.array([seed, start // _INIT_BLOCK], np.uint64)))
                block = stream.standard_normal((_INIT_BLOCK, rows.shape[1]), dtype=np.float32) * np.float32(std)
                low, high = max(start, first), min(start + _INIT_BLOCK, first + len(rows))
                with torch.no_grad():
                    rows[low - first : high - first] = torch.from_numpy(block[low - start : high - start])


def _plan(
    system: RecommenderSystem, sharding: Sharding, world: World
) -> tuple[ShardingPlan, list[ModuleSharder[nn.Module]]]:
    """Return TorchRec's plan for the table with a given sharding, and the sharders; reads this machine's memory."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    topology = Topology(
        world_size=world.size,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", world.size)),
        compute_device=world.device.type,
        hbm_cap=torch.cuda.get_device_properties(world.device).total_memory if world.device.type == "cuda" else 0,
        ddr_cap=gib // world.size,
    )
    kernel = "fused" if sharding == "row_wise" else "dense"
    constraints = {TABLE: ParameterConstraints(sharding_types=[sharding], compute_kernels=[kernel])}
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


def _dense_optimizers(dense: dict[str, nn.Parameter], config: Config) -> list[tuple[str, KeyedOptimizer]]:
    """Return the optimisers of all parameters but the table: "towers", and "repeats" if repeats have learned gains."""
    training = config.training
    kind = _DENSE[training.optimizer]
    repeats = {key: p for key, p in dense.items() if key.endswith(f"{REPEATS}.weight")}
    towers = {key: p for key, p in dense.items() if key not in repeats}
    parts: list[tuple[str, KeyedOptimizer]] = []
    if towers:
        options = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
        parts.append(("towers", KeyedOptimizerWrapper(towers, lambda p: kind(p, **options))))
    if repeats:
        parts.append(("repeats", KeyedOptimizerWrapper(repeats, lambda p: kind(p, lr=training.repeat_learning_rate))))
    return parts


def _without_table(system: RecommenderSystem, config: Config) -> ShardedSystem:
    """Distribute a system without an item table: in DDP, or unwrapped if it has no parameters."""
    dense = {key: p for key, p in system.named_parameters() if p.requires_grad}
    parallel = nn.parallel.DistributedDataParallel(system, broadcast_buffers=False) if dense else system
    optimizer = CombinedOptimizer(_dense_optimizers(dense, config))
    return ShardedSystem(
        parallel=parallel,
        system=system,
        optimizer=optimizer,
        dense_parameters=list(dense.values()),
        sharding=None,
        plan="no item table",
    )


def _is_table(key: str) -> bool:
    return key.endswith(f"embeddings.{TABLE}.weight")
