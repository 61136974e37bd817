"""Small trained runs for the tests of serving."""

from __future__ import annotations

from pathlib import Path

import torch

from configs.schema import Config
from configs.systems.registry import SYSTEMS
from distributed.checkpoints.saving import Checkpoints
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.trainer import train
from distributed.world import world_of_one
from tests.distributed.runs import config_of

GAINS = ("model.learn_repeats=true", "evaluation.cooccurrence_weight=0.7")


def settings_of(name: str) -> tuple[str, ...]:
    """Return the settings that a system needs to rank at all."""
    return ("evaluation.cooccurrence_weight=1",) if SYSTEMS[name].scores_by_cooccurrence else ()


def trained(folders: Path, run: Path, name: str, *more: str) -> Config:
    """Train a system for an epoch, so that the run has a checkpoint; return its config."""
    settings = ("training.max_epochs=1", "model.init_std=0.5", *settings_of(name), *more)
    config = config_of(folders, run, name, *settings)
    with world_of_one() as world:
        train(config, world)
    return config


def set_repeats(config: Config, *values: float) -> None:
    """Replace the gains for repeats of a run's best checkpoint, which are almost 0 after an epoch."""
    assert config.run is not None
    with world_of_one() as world:
        inputs = open_inputs(config)
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        checkpoints = Checkpoints(config.run, world)
        progress, losses = checkpoints.load("best", sharded, inputs.fingerprints)
        repeats = sharded.system.recommender.repeats
        assert repeats is not None
        with torch.no_grad():
            repeats.weight.copy_(torch.tensor(values[: len(repeats.weight)]))
        checkpoints.save(sharded, progress, losses)
