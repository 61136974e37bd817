"""The tensors of a checkpoint: what they are, how ranks write them and read them, and whether they are whole.

Tensors go through torch.distributed.checkpoint into one safetensors file per rank; a row-wise table
is saved as the row ranges each rank holds and read back as the ranges each rank needs, so W ranks
save and any W' ranks load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from contracts.errors import InputError
from distributed.checkpoints.index import Progress
from distributed.sharding import ShardedSystem
from distributed.world import World
from storage.fingerprints import file_digest

# Sums over the targets of an epoch so far: of the loss, and of each channel's own (none: not known).
Losses = tuple[float, ...]
NO_LOSSES: Losses = (0.0,)


def state_of(sharded: ShardedSystem, losses: Losses, rank: int) -> dict[str, Any]:
    """What a rank writes: all tensors, and its own losses of the epoch under way (float64)."""
    total, *of_channels = (torch.tensor(part, dtype=torch.float64) for part in losses)
    own = {f"loss/{rank}": total}
    if of_channels:
        own[f"channel_losses/{rank}"] = torch.stack(of_channels)
    return {**tensors_of(sharded), **own}


def tensors_of(sharded: ShardedSystem) -> dict[str, Any]:
    """Weights and optimiser state, flat by name."""
    tensors = weights_of(sharded)
    for parameter, state in sharded.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{parameter}/{name}": value for name, value in state.items()})
    return tensors


def weights_of(sharded: ShardedSystem) -> dict[str, Any]:
    """What scoring needs, flat by name."""
    return {f"model/{key}": value for key, value in sharded.system.state_dict().items()}


def make_optimizer_state(sharded: ShardedSystem) -> None:
    """Adam and Adagrad make their state at the first step: take one of zero gradients, before a load overwrites all."""
    for parameter in sharded.dense_parameters:
        parameter.grad = torch.zeros_like(parameter)
    sharded.optimizer.step()
    sharded.optimizer.zero_grad(set_to_none=True)


def write_tensors(aside: Path, state: dict[str, Any], world: World, group: dist.ProcessGroup | None) -> dict[str, str]:
    """Write this rank's files; SHA-256 by name, once they are on disk. A collective of the group."""
    writer = dcp.HuggingFaceStorageWriter(str(aside), save_distributed=True)
    dcp.save(state, storage_writer=writer, process_group=group, no_dist=world.size == 1)
    own = aside.glob(f"shard-{world.rank + 1:05d}-*.safetensors")
    return {path.name: file_digest(path, flush=True) for path in own}


def fill(sharded: ShardedSystem, path: Path, progress: Progress, world: World, *, weights_only: bool = False) -> Losses:
    """Read a checkpoint into the tensors of `sharded`; returns this rank's losses. See `Checkpoints.load`."""
    if not weights_only:
        make_optimizer_state(sharded)
    reader = dcp.HuggingFaceStorageReader(str(path))
    stored = reader.read_metadata().state_dict_metadata
    wanted = weights_of(sharded) if weights_only else tensors_of(sharded)
    missing = sorted(set(wanted) - set(stored))
    if missing:
        raise InputError(
            f"checkpoint {path}: lacks {missing[0]} and {len(missing) - 1} more; it belongs to another model or "
            "table.optimizer; use the run's own config.yaml or a new run folder"
        )
    for key, value in wanted.items():
        entry = stored[key]
        assert isinstance(entry, TensorStorageMetadata)
        if entry.size != value.size():
            raise InputError(
                f"checkpoint {path}: {key} has shape {tuple(entry.size)}, model {tuple(value.size())}; "
                "it belongs to another model or dataset; use the run's own config.yaml or a new run folder"
            )
    losses = {
        key: torch.zeros(entry.size, dtype=torch.float64)
        for key, entry in stored.items()
        if key.startswith(("loss/", "channel_losses/")) and isinstance(entry, TensorStorageMetadata)
    }
    dcp.load({**wanted, **losses}, storage_reader=reader, no_dist=world.size == 1)
    return losses_of_rank(losses, progress.world, world.rank, world.size)


def losses_of_rank(stored: Mapping[str, torch.Tensor], num_written: int, rank: int, num_ranks: int) -> Losses:
    """What a rank goes on from: its own losses where as many ranks wrote them, else those of all on the first rank.

    Args:
        stored: float64, "loss/<rank>" [] and "channel_losses/<rank>" [C] of each rank that wrote; checkpoints of
            earlier versions lack the latter.
    """
    of_ranks = []
    for other in range(num_written):
        total = stored.get(f"loss/{other}", torch.zeros((), dtype=torch.float64)).reshape(1)
        of_channels = stored.get(f"channel_losses/{other}", torch.zeros(0, dtype=torch.float64))
        of_ranks.append(torch.cat([total, of_channels]))
    if num_written == num_ranks:
        own = of_ranks[rank]
    else:
        own = sum(of_ranks[1:], of_ranks[0]) if rank == 0 else torch.zeros_like(of_ranks[0])
    return tuple(own.tolist())


def find_damage(path: Path, progress: Progress, world: World) -> str:
    """What is wrong with a checkpoint's files, the same on all ranks; "" where nothing is."""
    names = sorted(progress.files)
    found = "" if names else f"{path}: progress.json names no files"
    for name in names[world.rank :: world.size]:
        if not (path / name).exists():
            found = found or f"{path}: {name} is missing"
        elif file_digest(path / name) != progress.files[name]:
            found = found or f"{path}: {name} is not as it was written (SHA-256 differs)"
    return next((damage for damage in world.gather(found) if damage), "")


def first_line(error: BaseException) -> str:
    """What the system said: of a failure on several ranks, that of the first."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
