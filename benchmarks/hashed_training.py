"""Make a training on a hashed graph, so that steps of any size can be taken without building a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.hashed_graph import HashedGraph
from configs.schema import Config
from data.sampling.batches import TrainBatches
from data.sampling.item_planner import ItemPlanner
from data.sequences import SequenceArrays
from distributed.inputs import Inputs
from distributed.sharding import ShardedSystem, shard
from distributed.training.step import TrainSteps
from distributed.training.trainer import training_batches
from distributed.world import World
from model.blocks.item_table import ItemTable
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_criterion, build_model
from tests.sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class HashedTraining:
    """The objects of a training, as `distributed.training.trainer` makes them.

    Attributes:
        sharded: the system and its optimisers.
        batches: the batches.
        steps: takes optimiser steps.
    """

    sharded: ShardedSystem
    batches: TrainBatches
    steps: TrainSteps


def hashed_training(config: Config, data: SequenceArrays, graph: HashedGraph, world: World) -> HashedTraining:
    """Make a training. Weights, batches and random numbers depend on the config's seed alone.

    Args:
        config: the run's settings.
        data: the sequences.
        graph: a graph over the same items.
        world: this rank's place.
    """
    info = CatalogueInfo(
        num_items=data.num_items,
        modalities=graph.modalities,
        feature_dims={},
        num_centers={m: graph.num_centers(m) for m in graph.modalities},
    )
    torch.manual_seed(config.seed)
    recommender = build_model(config.model, info)
    recommender.criterion = build_criterion(config.training, data.num_items)
    table = ItemTable(num_items=data.num_items, dim=config.model.dim, init_std=config.model.init_std, device="meta")
    planner = ItemPlanner(needs=recommender.needs, num_items=data.num_items, graph=graph, features={})
    batches = training_batches(config, Inputs(data, graph), planner, world)  # type: ignore[arg-type]
    sharded = shard(RecommenderSystem(table, recommender), config, data.num_items, world)
    steps = TrainSteps(sharded=sharded, plan=batches.plan, config=config, world=world)
    return HashedTraining(sharded=sharded, batches=batches, steps=steps)


def long_histories(num_users: int, num_items: int, longest: int, seed: int = 0) -> Sequences:
    """Return random sequences of `longest` / 2 to `longest` training items, and two more for validation and test."""
    random = np.random.default_rng(seed)
    lengths = random.integers(longest // 2, longest + 1, num_users) + 2
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = random.integers(0, num_items, offsets[-1])
    return Sequences(num_items, num_users, offsets, items, lengths - 2, lengths - 1)
