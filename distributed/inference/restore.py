"""Opens a finished run: its settings, its inputs, and a model filled from one of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from configs.loading import load_config, override_config
from configs.places import listed, shown
from configs.schema import Config
from contracts.errors import InputError
from distributed.checkpoints.index import find_checkpoint
from distributed.checkpoints.run_storage import RunStorage
from distributed.checkpoints.saving import Checkpoints
from distributed.host_memory import keep_freed_memory
from distributed.inputs import Inputs, build_system, open_inputs
from distributed.sharding import ShardedSystem, shard, unsharded
from distributed.world import World
from storage.uris import is_uri


def run_config(run: str, overrides: Iterable[str] = (), checkpoint: str = "best") -> Config:
    """Return the config that a run was trained with, with some knobs overridden.

    Args:
        run: the run's folder or URI.
        overrides: settings "name=value" of evaluation, cluster, dataset or graph.
        checkpoint: "latest", "best" or a step. For a URI, its progress record is then on this node.

    Raises:
        InputError: there is no run, its dataset or graph is gone, or an override of any other knob.
    """
    storage = RunStorage(run)
    storage.pull(checkpoint, tensors=False)
    path = storage.local / "config.yaml"
    if not path.exists():
        raise InputError(f"run {run}: has no {path.name}; name a run folder that jobs/train.py wrote")
    config = override_config(load_config(str(path)), overrides, ("evaluation", "cluster", "dataset", "graph"))
    if config.dataset is None:
        raise InputError(f"run {run}: its {path.name} names no dataset; restore the file from a copy")
    for name, places in (("dataset", config.dataset), ("graph", config.graph if config.reads_graph else None)):
        for folder in listed(places):
            if not is_uri(folder) and not Path(folder).exists():
                now = [name.upper() if place == folder else place for place in listed(places)]
                raise InputError(
                    f"run {run}: its {name} {folder} is not there; if it has moved, say where it is now with --set "
                    f"{name}={shown(now)}, or in Python with mdsrec.load(..., {name}=...)"
                )
    return config.model_copy(update={"run": run})


def restore(config: Config, checkpoint: str, world: World) -> tuple[Inputs, ShardedSystem, int | None]:
    """Open a run's inputs and fill its model from a checkpoint.

    Returns:
        The inputs, the filled system, and the step of the checkpoint. The step is None for a model without
        parameters, which has no checkpoint.
    """
    assert config.run is not None
    if world.device.type == "cpu":
        keep_freed_memory()
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    return inputs, sharded, _fill(sharded, config, checkpoint, inputs, world)


def restore_alone(config: Config, checkpoint: str, device: torch.device) -> tuple[Inputs, ShardedSystem, int | None]:
    """Do the same as `restore` in this process, without a process group, for ranking only."""
    assert config.run is not None
    inputs = open_inputs(config)
    sharded = unsharded(build_system(config, inputs), device)
    return inputs, sharded, _fill(sharded, config, checkpoint, inputs, World.alone(device))


def _fill(sharded: ShardedSystem, config: Config, checkpoint: str, inputs: Inputs, world: World) -> int | None:
    """Load the weights of a checkpoint and return its step; None for a model without parameters."""
    assert config.run is not None
    if not (sharded.dense_parameters or sharded.sharding):
        return None
    checkpoints = Checkpoints(config.run, world)
    progress, _ = checkpoints.load(checkpoint, sharded, inputs.fingerprints, weights_only=True)
    return progress.step


def check_restorable(config: Config, checkpoint: str) -> None:
    """Raise the errors that a rank of `evaluate` or `recommend` would raise, before any rank is started.

    Raises:
        InputError: the run's dataset or graph is gone or damaged, or there is no such checkpoint.
    """
    assert config.run is not None
    inputs = open_inputs(config)
    build_system(config, inputs)
    if config.model.system.is_trained:
        find_checkpoint(str(RunStorage(config.run).local), checkpoint, inputs.fingerprints)
