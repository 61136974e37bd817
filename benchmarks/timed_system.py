"""Train steps of one system with a clock, and count the items whose raw features it maps in a step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from time import perf_counter

import numpy as np
from torch import Tensor, nn

from configs.schema import Config
from contracts.batch import Step
from data.sampling.batches import TrainBatches
from distributed.inputs import Inputs, build_system
from distributed.sharding import shard
from distributed.training.epoch_work import begin_epoch
from distributed.training.final_metrics import count_parameters
from distributed.training.step import TrainSteps
from distributed.training.trainer import candidate_sampler, training_spans
from distributed.world import World


class TimedSystem:
    """A system in training on one rank.

    Attributes:
        steps_per_epoch: number of steps of an epoch.
        num_parameters: number of trained parameters, the item table included.
    """

    def __init__(self, config: Config, inputs: Inputs, world: World) -> None:
        """Build the system.

        Args:
            config: the settings; paths are not read.
            inputs: the dataset and a graph.
            world: the world of one rank.

        Raises:
            InputError: the system needs something that the dataset lacks.
        """
        self._config, self._inputs, self._world = config, inputs, world
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        self._recommender = sharded.system.recommender
        self._batches = TrainBatches(
            data=inputs.dataset,
            spans=training_spans(config, inputs.dataset),
            batch_size=config.training.batch_size,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
            planner=inputs.planner(self._recommender.needs),
            candidates=candidate_sampler(config, inputs),
        )
        self._sharded = sharded
        self._steps = TrainSteps(sharded=sharded, plan=self._batches.plan, config=config, world=world)
        self.steps_per_epoch = len(self._batches)
        self.num_parameters = count_parameters(sharded, inputs, config)
        self._read = 0
        self._items: list[int] = []
        self._mapped: list[int] = []  # of each step whose forward pass has begun
        self._recommender.register_forward_pre_hook(lambda *_: self._mapped.append(0))
        widths = feature_widths(inputs, self._recommender.needs.features, config.model.dim)
        for module in self._recommender.modules():
            if isinstance(module, nn.Linear) and module.in_features in widths:
                module.register_forward_pre_hook(self._count)

    def train(self, count: int) -> float:
        """Train the next `count` steps, and return their seconds, loading included."""
        self._sharded.system.train()
        began = perf_counter()
        for _ in self._steps.run(self._ready(count), first=self._read):
            pass
        return perf_counter() - began

    def seconds_before_epoch(self) -> float:
        """Return the seconds of what the system computes before each epoch, 0 for most; what it maps does not count."""
        if not self._recommender.epoch_buffers:
            return 0.0
        self._mapped.append(0)
        began = perf_counter()
        begin_epoch(self._recommender, self._inputs, self._world, self._config.seed, epoch=0)
        seconds = perf_counter() - began
        self._mapped.pop()
        return seconds

    @property
    def items_per_step(self) -> float:
        """The mean number of items with a role in a step."""
        return float(np.mean(self._items))

    @property
    def mapped_per_step(self) -> float | None:
        """The mean over steps of the largest number of rows that a map of raw features read in one call.

        None: the system maps no raw features.
        """
        return float(np.mean(self._mapped)) if any(self._mapped) else None

    def _ready(self, count: int) -> Iterator[Step]:
        for _ in range(count):
            number = self._read
            self._read += 1
            self._batches.set_epoch(number // len(self._batches))
            step = self._batches[number % len(self._batches)]
            plan = step.plan or self._batches.plan
            assert plan is not None
            self._items.append(plan.num_roles)
            yield step

    def _count(self, module: nn.Linear, arguments: tuple[Tensor, ...]) -> None:
        self._mapped[-1] = max(self._mapped[-1], arguments[0].numel() // module.in_features)


def feature_widths(inputs: Inputs, features: tuple[str, ...], dim: int) -> set[int]:
    """Return the widths of inputs that have raw features: of some features side by side, with or without an ID row."""
    dims = [inputs.dataset.features(name).shape[1] for name in features]
    sums = {sum(some) for count in range(1, len(dims) + 1) for some in combinations(dims, count)}
    return sums | {width + dim for width in sums}
