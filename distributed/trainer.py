"""The life of a run on a rank: open, shard, resume, train with early stopping, evaluate the best, write."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from configs.contracts import Step
from configs.loading import dump_config
from configs.schema import Config, TrainingConfig
from data.batches import TrainBatches
from data.negatives import CandidateSampler, target_counts
from data.sequences import SequenceArrays
from data.spans import TrainingSpans
from distributed.checkpoint import Checkpoints, Progress, find_checkpoint
from distributed.host_memory import keep_freed_memory
from distributed.inputs import Inputs, build_system, open_inputs
from distributed.read_ahead import read_ahead
from distributed.scoring import SPLITS, Scorer, summarise
from distributed.sharding import ShardedSystem, choose_optimizer, choose_sharding, shard
from distributed.step import TrainSteps
from distributed.telemetry import Telemetry, Track, unwatched, versions, write_text
from distributed.world import World


def train(config: Config, world: World, track: Track = unwatched) -> dict[str, Any]:
    """Train to early stopping and return what RUN/metrics.json holds.

    Called by every rank with the same config. Continues from RUN/checkpoints if there are any; all ranks
    see the same metrics, so they take every decision alike.
    """
    assert config.run is not None
    if world.device.type == "cpu":
        keep_freed_memory()
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    checkpoints = Checkpoints(config.run, world, config.training.keep_checkpoints)
    # Dropout and gate noise differ between ranks; a resume overwrites this stream with the saved one.
    torch.manual_seed(config.seed * 1_000_003 + world.rank)
    progress = _resume(checkpoints, sharded, inputs, world)
    telemetry = Telemetry(config.run, world, progress.step)
    if world.is_first:
        write_text(Path(config.run) / "config.yaml", dump_config(config))
        write_text(Path(config.run) / "plan.txt", sharded.plan + "\n")
    telemetry.say(sharded.plan)

    scorer = Scorer(sharded, inputs, config, world, track)
    if sharded.dense_parameters or sharded.sharding:
        _train_epochs(config, world, inputs, sharded, checkpoints, progress, scorer, telemetry)
        progress = (
            checkpoints.load("best", sharded, inputs.fingerprints, weights_only=True)
            if checkpoints.exists()
            else progress
        )
    metrics = final_metrics(config, inputs, scorer, sharded, checkpoints, world)
    telemetry.close()
    return metrics


def check_trainable(config: Config, inputs: Inputs, device_type: str) -> None:
    """Everything a rank would refuse, refused before any is started.

    Raises:
        InputError: the model does not fit the dataset or graph, the table's optimiser does not exist there,
            or there is nothing to train on.
    """
    recommender = build_system(config, inputs).recommender
    planner = inputs.planner(recommender.needs)
    if recommender.needs.id_rows:
        sharding = choose_sharding(config.table, inputs.dataset.num_items, config.model.dim)
        choose_optimizer(config.table, sharding, device_type)
        TrainBatches(inputs.dataset, training_spans(config, inputs.dataset), 1, 0, 0, 1, planner)


def _train_epochs(
    config: Config,
    world: World,
    inputs: Inputs,
    sharded: ShardedSystem,
    checkpoints: Checkpoints,
    progress: Progress,
    scorer: Scorer,
    telemetry: Telemetry,
) -> None:
    """Epoch after epoch until `decide` says stop; a validation and a checkpoint after each."""
    batches = TrainBatches(
        inputs.dataset,
        training_spans(config, inputs.dataset),
        config.training.batch_size,
        config.seed,
        world.rank,
        world.size,
        scorer.planner,
        candidate_sampler(config, inputs),
    )
    steps = TrainSteps(sharded, batches.plan, config, world)
    loader = loader_of(batches, config.training.loader_workers, world)
    while decide(progress, config.training) == "train":
        began = time.perf_counter()
        loss, taken, trained = _train_epoch(steps, batches, loader, progress, config, scorer.track)
        seconds = time.perf_counter() - began
        progress.epoch += 1
        progress.step += taken
        progress.seconds += seconds
        valid = summarise(scorer.rank("valid"), inputs, config)["metrics"]
        is_best = note_validation(progress, valid.get(config.training.metric))
        checkpoints.save(sharded, progress)
        telemetry.record(
            progress.step,
            epoch=progress.epoch,
            loss=loss,
            valid=valid,
            seconds=seconds,
            targets_per_second=trained / seconds,
        )
        telemetry.say(
            f"epoch {progress.epoch}: loss {loss:.4f}, valid {config.training.metric} "
            f"{valid.get(config.training.metric, float('nan')):.4f}{' (best)' if is_best else ''}, "
            f"{seconds:.1f} s, {trained / seconds:,.0f} targets/s"
        )


def _train_epoch(
    steps: TrainSteps,
    batches: TrainBatches,
    loader: Iterable[Step],
    progress: Progress,
    config: Config,
    track: Track,
) -> tuple[float, int, int]:
    """One pass over the training targets in the epoch's order; the mean loss per target, steps and targets trained."""
    batches.set_epoch(progress.epoch)
    count = len(batches)
    if config.training.max_steps is not None:
        count = min(count, config.training.max_steps - progress.step)
    steps.sharded.system.train()
    num_targets: list[int] = []

    def counted() -> Iterator[Step]:
        for step in read_ahead(islice(loader, count)):
            num_targets.append(step.batch.num_global_targets)
            yield step

    losses = list(track(steps.run(counted()), count, f"epoch {progress.epoch + 1}"))
    # One synchronisation an epoch: reading a loss every step would stall the device.
    local = torch.stack(losses).double().cpu() * torch.tensor(num_targets)
    return steps.world.sum(float(local.sum())) / sum(num_targets), count, sum(num_targets)


def loader_of(batches: TrainBatches, num_workers: int, world: World) -> DataLoader[Step]:
    """Steps of an epoch in order, prepared by processes that stay for the whole run."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(len(batches)),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=world.device.type == "cuda",
        generator=torch.Generator(),  # the default one is that of dropout, and part of a checkpoint
    )


def training_spans(config: Config, data: SequenceArrays) -> TrainingSpans:
    """What a step trains at once of a user's sequence."""
    return TrainingSpans(data, config.training.unit, config.model.max_length, config.training.window_overlap)


def candidate_sampler(config: Config, inputs: Inputs) -> CandidateSampler | None:
    """What draws the candidates of a step; None for a full softmax."""
    options, data, graph = config.training.negatives, inputs.dataset, inputs.graph
    if options.draws is None:
        return None
    counted = options.in_batch or options.popularity_share > 0
    modalities = config.model.mdsrec.modalities or (graph.modalities if graph else ())
    return CandidateSampler(
        target_counts(data, data.popularity()) if counted else None,
        options.draws,
        options.popularity_share,
        options.popularity_power,
        options.in_batch,
        config.seed,
        None if counted else data.num_items,
        options.hard_share,
        [graph.neighbors(m) for m in modalities] if graph and options.hard_share else (),
    )


def decide(progress: Progress, training: TrainingConfig) -> Literal["train", "stop"]:
    """Whether another epoch is to be trained."""
    if progress.epoch >= training.max_epochs or progress.stale_epochs >= training.patience:
        return "stop"
    if training.max_steps is not None and progress.step >= training.max_steps:
        return "stop"
    return "train"


def note_validation(progress: Progress, metric: float | None) -> bool:
    """Record an epoch's validation metric ; whether it is the best (None: no validation set, the latest is)."""
    if metric is None or progress.best_metric is None or metric > progress.best_metric:
        progress.best_metric, progress.best_step, progress.stale_epochs = metric, progress.step, 0
        return True
    progress.stale_epochs += 1
    return False


def final_metrics(
    config: Config,
    inputs: Inputs,
    scorer: Scorer,
    sharded: ShardedSystem,
    checkpoints: Checkpoints,
    world: World,
) -> dict[str, Any]:
    """Rank valid and test with the weights as they are; the content of RUN/metrics.json, written by rank 0."""
    splits: dict[str, dict[str, Any]] = {split: summarise(scorer.rank(split), inputs, config) for split in SPLITS}
    epochs = _epochs(config)
    metrics = {
        "model": config.model.name,
        **{split: found.pop("metrics") for split, found in splits.items()},
        "details": splits,
        "epochs": len(epochs),
        "seconds_per_epoch": _mean([record["seconds"] for record in epochs]),
        "targets_per_second": _mean([record["targets_per_second"] for record in epochs]),
        "num_parameters": count_parameters(sharded, inputs, config),
        "num_workers": world.size,
        "seed": config.seed,
        "fingerprints": inputs.fingerprints,
        "versions": versions(),
    }
    if checkpoints.exists():
        metrics["best_step"] = find_checkpoint(checkpoints.run, "best", inputs.fingerprints)[1].step
    if world.is_first:
        assert config.run is not None
        write_text(Path(config.run) / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def count_parameters(sharded: ShardedSystem, inputs: Inputs, config: Config) -> int:
    """Trained numbers of the whole system, however the table is spread."""
    towers = sum(p.numel() for p in sharded.system.recommender.parameters())
    return towers + (inputs.dataset.num_items * config.model.dim if sharded.sharding else 0)


def _resume(checkpoints: Checkpoints, sharded: ShardedSystem, inputs: Inputs, world: World) -> Progress:
    if not checkpoints.exists():
        return Progress(fingerprints=inputs.fingerprints, world=world.size)
    progress = checkpoints.load("latest", sharded, inputs.fingerprints)
    progress.world = world.size
    return progress


def _epochs(config: Config) -> list[dict[str, Any]]:
    path = Path(config.run or "") / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
