"""Distributes a model over ranks: splits or replicates the item table, and makes the optimisers.

The order of the steps matters:

1. freeze the parameters that are not to be trained, because DDP reduces the gradients of all others;
2. choose the sharding of the table;
3. if there are several ranks or the table is split, let TorchRec wrap the model. A split table gets an optimiser that
   updates its rows inside the backward pass;
4. fill the table;
5. make the optimisers of all other parameters that are trained.

A replicated (`data_parallel`) table ignores an optimiser that is attached to it, so the table must be in the dense
optimiser. A `row_wise` table must not be in it. Both are asserted.

One process with a whole table needs no TorchRec: its table stays an `nn.Embedding`, and nothing wraps the system.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from configs.schema import Config, TableConfig
from contracts.errors import InputError
from distributed.freezing import freeze
from distributed.gathering import rows_of_all_ranks
from distributed.optimizers import NamedOptimizer, Optimizers, Updates
from distributed.world import World
from model.blocks.item_table import TABLE
from model.blocks.repeats import REPEATS
from model.system import RecommenderSystem

Sharding = Literal["data_parallel", "row_wise"]
_INIT_BLOCK = 8192  # rows that are filled from one random stream, so that any sharding fills the same table
_DENSE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


@dataclass(kw_only=True)
class ShardedSystem:
    """A system that is distributed over ranks.

    Attributes:
        parallel: the wrapped modules. Calling them returns the training loss; gradients are averaged over ranks.
        system: the same modules without the wrapper, for encoding.
        optimizer: updates all parameters that are trained, including the rows of a fused table.
        dense_parameters: the trained parameters that gradient clipping uses (rows of a fused table have no `.grad`).
        sharding: how the table is distributed; None without a table.
        uses_torchrec: whether TorchRec has wrapped the modules.
        plan: the sharding plan as text.
    """

    parallel: nn.Module
    system: RecommenderSystem
    optimizer: Optimizers
    dense_parameters: list[nn.Parameter]
    sharding: Sharding | None
    uses_torchrec: bool = False
    plan: str


def choose_sharding(table: TableConfig, num_items: int, dim: int) -> Sharding:
    """Return `table.sharding`. If it is "auto", a table is replicated while its weights and Adam moments are small.

    The limit is `table.replicate_below_gib`, in float32: the weights, and two moments for each weight.
    """
    if table.sharding != "auto":
        return table.sharding
    gib = num_items * dim * 4 * 3 / 2**30
    return "data_parallel" if gib <= table.replicate_below_gib else "row_wise"


def choose_optimizer(table: TableConfig, sharding: Sharding) -> str:
    """Return the name of the table's optimiser.

    Raises:
        InputError: Adam was requested for a table whose rows are split. FBGEMM's Adam, which would update them, exists
            on CUDA only, and counts its steps outside of the state that checkpoints hold.
    """
    if table.optimizer == "auto":
        return "adam" if sharding == "data_parallel" else "rowwise_adagrad"
    if table.optimizer == "adam" and sharding == "row_wise":
        raise InputError(
            "table.optimizer=adam: is not for a row_wise table, because a resumed training would differ from one that "
            "was never stopped; use rowwise_adagrad, adagrad or sgd, or table.sharding=data_parallel"
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
    name = choose_optimizer(config.table, sharding)
    if system.table_is_frozen:
        name = "sgd"  # it takes no steps, and has no states that would need memory
    rate = config.table.learning_rate or config.training.learning_rate
    parallel: nn.Module
    parts: dict[str, Updates] = {}
    uses_torchrec = _needs_torchrec(sharding, world)
    if uses_torchrec:
        kind = _table_optimizer(name) if sharding == "row_wise" else None
        wrapped = _torchrec(sharding).wrap(system, (kind, rate) if kind else None, world)
        parallel, system, plan = wrapped.parallel, wrapped.system, wrapped.plan
        parts["fused"] = wrapped.fused
    else:
        assert system.table is not None
        system.table.to_empty(device=world.device)
        parallel, plan = system, "all rows are in this process"
    fill_table(parallel.state_dict(), config.model.init_std, config.seed)

    # The parameters that no optimiser updates inside the backward pass.
    outside = {key: p for key, p in parallel.named_parameters() if not hasattr(p, "_in_backward_optimizers")}
    dense = {key: p for key, p in outside.items() if p.requires_grad}
    rows = {key: p for key, p in dense.items() if _is_table(key)}
    assert bool(rows) == (sharding == "data_parallel"), f"{sharding} table and dense optimiser disagree: {list(rows)}"
    if system.table_is_frozen:
        rows = {}
    rest = {key: p for key, p in dense.items() if not _is_table(key)}
    if rows:
        parts["table"] = NamedOptimizer(rows, _table_optimizer(name)(list(rows.values()), lr=rate))
    parts |= _dense_optimizers(rest, config)
    steps = "none, because it is frozen" if system.table_is_frozen else name
    return ShardedSystem(
        parallel=parallel,
        system=system,
        optimizer=Optimizers(parts),
        dense_parameters=[*rows.values(), *rest.values()],
        sharding=sharding,
        uses_torchrec=uses_torchrec,
        plan=f"{plan}\ntable optimizer: {steps}",
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
        optimizer=Optimizers({}),
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


def _needs_torchrec(sharding: Sharding, world: World) -> bool:
    return world.size > 1 or sharding == "row_wise"


def _torchrec(sharding: Sharding) -> ModuleType:
    """Return the module that wraps a system for TorchRec.

    Raises:
        InputError: TorchRec or FBGEMM is not installed.
    """
    try:
        from distributed.torchrec import parallel
    except ImportError as error:
        raise InputError(
            f"table.sharding={sharding}: a table on several ranks, or with split rows, needs TorchRec and FBGEMM "
            f"({error}); install them, as `make install` does; a new run needs neither with cluster.num_workers=1 and "
            "table.sharding=data_parallel"
        ) from None
    return parallel


def _table_optimizer(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return the class of a table's optimiser; `_torchrec` says what it raises."""
    if name == "rowwise_adagrad":
        found: Callable[..., torch.optim.Optimizer] = _torchrec("row_wise").RowWiseAdagrad
        return found
    return _DENSE[name]


def _dense_optimizers(dense: dict[str, nn.Parameter], config: Config) -> dict[str, Updates]:
    """Return the optimisers of all parameters but the table: "towers", and "repeats" if repeats have learned gains."""
    training = config.training
    kind = _DENSE[training.optimizer]
    repeats = {key: p for key, p in dense.items() if key.endswith(f"{REPEATS}.weight")}
    towers = {key: p for key, p in dense.items() if key not in repeats}
    parts: dict[str, Updates] = {}
    if towers:
        options = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
        parts["towers"] = NamedOptimizer(towers, kind(list(towers.values()), **options))
    if repeats:
        parts["repeats"] = NamedOptimizer(repeats, kind(list(repeats.values()), lr=training.repeat_learning_rate))
    return parts


def _without_table(system: RecommenderSystem, config: Config) -> ShardedSystem:
    """Distribute a system without an item table: in DDP, or unwrapped if it has no parameters."""
    dense = {key: p for key, p in system.named_parameters() if p.requires_grad}
    with warnings.catch_warnings():
        # torch 2.13 has a new name for the argument, which torch 2.11 does not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        parallel = nn.parallel.DistributedDataParallel(system, broadcast_buffers=False) if dense else system
    optimizer = Optimizers(_dense_optimizers(dense, config))
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
