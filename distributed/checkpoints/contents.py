"""Writes and reads the tensors of a checkpoint, and checks its files for damage.

torch.distributed.checkpoint writes one safetensors file per rank. Each rank saves its own row range of a row-wise
table, and reads the row range that it needs. So any number of ranks can load a checkpoint, whatever number wrote it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from contracts.errors import InputError
from distributed.checkpoints.progress import Progress
from distributed.sharding import ShardedSystem
from distributed.world import World
from storage.fingerprints import file_digest

# Sums over the targets of an epoch so far: of the loss, then of each channel's loss. Without channels: not recorded.
Losses = tuple[float, ...]
NO_LOSSES: Losses = (0.0,)


def state_of(sharded: ShardedSystem, losses: Losses, rank: int) -> dict[str, Any]:
    """Return what a rank writes: all tensors, and its own losses of the current epoch (float64)."""
    total, *of_channels = (torch.tensor(part, dtype=torch.float64) for part in losses)
    own = {f"loss/{rank}": total}
    if of_channels:
        own[f"channel_losses/{rank}"] = torch.stack(of_channels)
    return {**tensors_of(sharded), **own}


def tensors_of(sharded: ShardedSystem) -> dict[str, Any]:
    """Return weights and optimiser states by name, in one flat dict."""
    tensors = weights_of(sharded)
    for parameter, state in sharded.optimizer.states().items():
        tensors.update({f"optimizer/{parameter}/{name}": value for name, value in state.items()})
    return tensors


def weights_of(sharded: ShardedSystem) -> dict[str, Any]:
    """Return the weights by name, in one flat dict; ranking needs nothing else."""
    return {f"model/{key}": value for key, value in sharded.system.state_dict().items()}


def make_optimizer_state(sharded: ShardedSystem) -> None:
    """Create the states of the optimisers, so that a checkpoint can be loaded into them.

    Adam and Adagrad create their states at their first step. So this takes a step with zero gradients, whose effects
    the load overwrites.
    """
    for parameter in sharded.dense_parameters:
        parameter.grad = torch.zeros_like(parameter)
    sharded.optimizer.step()
    sharded.optimizer.zero_grad()


def write_tensors(aside: Path, state: dict[str, Any], world: World, group: dist.ProcessGroup | None) -> dict[str, str]:
    """Write this rank's files and return the SHA-256 of each, by name. A collective of the group.

    The files are on disk when this returns.
    """
    writer = dcp.HuggingFaceStorageWriter(str(aside), save_distributed=True)
    dcp.save(state, storage_writer=writer, process_group=group, no_dist=world.size == 1)
    own = aside.glob(f"shard-{world.rank + 1:05d}-*.safetensors")
    return {path.name: file_digest(path, flush=True) for path in own}


def fill(sharded: ShardedSystem, path: Path, progress: Progress, world: World, *, weights_only: bool = False) -> Losses:
    """Read a checkpoint into the tensors of `sharded`, and return this rank's losses; see `Checkpoints.load`.

    Raises:
        InputError: the checkpoint lacks a tensor of the model, or has it with another shape.
    """
    if not weights_only:
        make_optimizer_state(sharded)
    reader = dcp.HuggingFaceStorageReader(str(path))
    stored = reader.read_metadata().state_dict_metadata
    wanted = weights_of(sharded) if weights_only else tensors_of(sharded)
    missing = sorted(set(wanted) - set(stored))
    if missing:
        raise InputError(
            f"checkpoint {path}: lacks {missing[0]} and {len(missing) - 1} more tensors; it was written with another "
            "model or table.optimizer; use the run's own config.yaml or a new run folder"
        )
    for key, value in wanted.items():
        entry = stored[key]
        assert isinstance(entry, TensorStorageMetadata)
        if entry.size != value.size():
            raise InputError(
                f"checkpoint {path}: {key} has shape {tuple(entry.size)}, but the model's has {tuple(value.size())}; "
                "it was written with another model or dataset; use the run's own config.yaml or a new run folder"
            )
    losses = {
        key: torch.zeros(entry.size, dtype=torch.float64)
        for key, entry in stored.items()
        if key.startswith(("loss/", "channel_losses/")) and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process may have no group
        dcp.load({**wanted, **losses}, storage_reader=reader, no_dist=world.size == 1)
    return losses_of_rank(losses, progress.world, world.rank, world.size)


def losses_of_rank(stored: Mapping[str, torch.Tensor], num_written: int, rank: int, num_ranks: int) -> Losses:
    """Return the losses that a rank continues with.

    If the number of ranks is the same, each rank continues with its own losses. Otherwise rank 0 continues with the
    sum over all ranks, and the others with 0.

    Args:
        stored: float64, "loss/<rank>" [] and "channel_losses/<rank>" [C] of each rank that wrote the checkpoint.
            Checkpoints of earlier versions lack the latter.
        num_written: number of ranks that wrote the checkpoint.
        rank: this rank.
        num_ranks: number of ranks that read it.
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
    """Return the first damage of a checkpoint's files, the same on all ranks; "" if there is none. A collective."""
    names = sorted(progress.files)
    found = "" if names else f"{path}: progress.json names no files"
    for name in names[world.rank :: world.size]:
        if not (path / name).exists():
            found = found or f"{path}: {name} is missing"
        elif file_digest(path / name) != progress.files[name]:
            found = found or f"{path}: {name} is damaged (SHA-256 differs from progress.json)"
    return next((damage for damage in world.gather(found) if damage), "")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; of a failure on several ranks, of the first rank's error."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
