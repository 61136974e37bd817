"""Measure training steps on one rank: time by part, bytes sent, memory, and rows looked up.

The steps are those of the trainer. The calls that it makes are timed, so the parts add up to the step.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.cases import PARTS, Case
from benchmarks.cost_model import Group, ModelShape, StepShape, step_flops
from benchmarks.hashed_graph import HashedGraph
from benchmarks.socket_bytes import RankConnections
from benchmarks.step_clock import Clock, time_calls, timed_loader
from configs.loading import parse_config
from configs.schema import Config
from contracts.batch import Batch, Step
from contracts.item_plan import ItemPlan
from data.dataset import Dataset
from data.sampling.batches import TrainBatches
from distributed.inputs import Inputs, build_system
from distributed.sharding import ShardedSystem, shard
from distributed.training.loader import num_loader_workers
from distributed.training.step import TrainSteps
from distributed.training.trainer import training_batches
from distributed.world import World
from storage.durable_files import write_text

_READ_AHEAD = 2


@dataclass
class Training:
    """The objects of a training, created as `distributed.training.trainer` creates them.

    Attributes:
        sharded: the sharded system.
        batches: the batches.
        plan: the item plan of the whole catalogue; None if every step has its own.
        run: takes the given training steps, and yields after each.
    """

    sharded: ShardedSystem
    batches: TrainBatches
    plan: ItemPlan | None
    run: Callable[[Iterable[Step]], Iterator[Tensor]]


def open_training(config: Config, graph: HashedGraph | None, world: World) -> Training:
    """Create the system, the batches and the training step of a configured run on this rank."""
    assert config.dataset is not None
    inputs = Inputs(Dataset.open(config.dataset), graph)  # type: ignore[arg-type]
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    torch.manual_seed(config.seed * 1_000_003 + world.rank)
    batches = training_batches(config, inputs, inputs.planner(sharded.system.recommender.needs), world)
    return Training(
        sharded, batches, batches.plan, TrainSteps(sharded=sharded, plan=batches.plan, config=config, world=world).run
    )


def groups_of(batch: Batch) -> tuple[Group, ...]:
    """Return the groups of sequences in a batch, as the towers process them."""
    return tuple(Group(group.count, group.length, group.states) for group in batch.groups)


def shape_of(step: Step, plan: ItemPlan) -> StepShape:
    """Return the sizes of this rank's part of a step."""
    batch = step.batch
    linked = [plan.cooccurrence, *plan.views.values(), *plan.centers.values(), *plan.sampled_centers.values()]
    return StepShape(
        groups=groups_of(batch),
        targets=len(batch.targets),
        columns=plan.num_roles if batch.candidates is None else len(batch.candidates) + 1,
        union=len(plan.union_ids),
        roles=plan.num_roles,
        sparse_entries=sum(len(rows.indices) for rows in linked if rows is not None),
    )


def measure(case: Case, world: World) -> None:
    """Take the steps of a case; rank 0 writes one record per rank to `case.output`."""
    config = parse_config(case.config, "of the case")
    start_rss = _memory("VmRSS")
    graph = case.graph(Dataset.open(config.dataset or "").num_items) if config.model.name == "mdsrec" else None
    training = open_training(config, graph, world)
    record = _timed_steps(training, case, num_loader_workers(config.training.loader_workers, world.device), world)
    record["start_bytes"] = start_rss
    record["dense_parameters"] = float(sum(p.numel() for p in training.sharded.dense_parameters))
    record["row_wise"] = float(training.sharded.sharding == "row_wise")
    model = ModelShape.of(config, len(case.modalities), case.num_centers)
    record |= _mean_shape(training, case, model)
    records = _gather(record, world)
    if world.is_first:
        write_text(Path(case.output), json.dumps({"ranks": records}))


def _timed_steps(training: Training, case: Case, loader_workers: int, world: World) -> dict[str, float]:
    """Seconds of a step and of its parts, bytes sent a step (-1 where they do not go over gloo), peak memory."""
    training.sharded.system.train()
    connections = RankConnections() if dist.get_backend() == "gloo" else None
    clock = Clock(world.device)
    time_calls(training.sharded, clock)
    batches = training.batches
    # More steps than are measured, so that the pipeline reads ahead during every measured step.
    numbers = [number % len(batches) for number in range(case.warmup + case.steps + _READ_AHEAD)]
    loader = DataLoader(batches, batch_size=None, sampler=numbers, num_workers=loader_workers)
    shares = training.run(timed_loader(loader, clock))
    for _ in range(case.warmup):
        next(shares)
    world.barrier()
    sent = connections.bytes_sent() if connections else 0
    clock.restart()
    began = time.perf_counter()
    for _ in range(case.steps):
        next(shares)
    parts = clock.seconds()
    world.barrier()
    record = {"seconds": (time.perf_counter() - began) / case.steps}
    record |= {part: parts.get(part, 0.0) / case.steps for part in PARTS}
    record["bytes_sent"] = (connections.bytes_sent() - sent) / case.steps if connections else -1.0
    record["peak_bytes"] = _memory("VmHWM")
    is_cuda = world.device.type == "cuda"
    record["peak_device_bytes"] = float(torch.cuda.max_memory_allocated(world.device)) if is_cuda else 0.0
    return record


def _mean_shape(training: Training, case: Case, model: ModelShape) -> dict[str, float]:
    """Return the mean sizes of this rank's part of the measured steps. The same batches are assembled again for it."""
    batches = training.batches
    total: dict[str, float] = defaultdict(float)
    for number in range(case.warmup, case.warmup + case.steps):
        ready = batches[number % len(batches)]
        plan = ready.plan or training.plan
        assert plan is not None
        shape = shape_of(ready, plan)
        counted = asdict(shape) | {
            "global_targets": ready.batch.num_global_targets,
            "history_items": int(ready.batch.lengths.sum()),
            "padded_items": sum(group.count * group.length for group in shape.groups),
            "sequences": sum(group.count for group in shape.groups),
            "candidates": 0 if ready.batch.candidates is None else len(ready.batch.candidates),
            "flops": step_flops(model, shape),
        }
        del counted["groups"]
        for name, value in counted.items():
            total[name] += value / case.steps
    return dict(total)


def _gather(record: dict[str, float], world: World) -> list[dict[str, float]]:
    """Return every rank's record. All ranks have the same names, so only the numbers are sent."""
    names = sorted(record)
    own = torch.tensor([record[name] for name in names], dtype=torch.float64, device=world.device)
    everyone = [torch.empty_like(own) for _ in range(world.size)]
    dist.all_gather(everyone, own)
    return [dict(zip(names, numbers.tolist(), strict=True)) for numbers in everyone]


def _memory(field: str) -> float:
    """Return VmRSS or VmHWM (the highest VmRSS so far) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return float(line.split()[1]) * 1024
    raise AssertionError(f"no {field} in /proc/self/status")
