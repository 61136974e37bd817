"""Trains a run on one rank: resumes, trains with early stopping, evaluates and writes the metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from configs.loading import dump_config
from configs.model_options import own_knobs
from configs.schema import Config, TrainingConfig
from configs.systems.bert4rec import BERT4RecConfig
from contracts.rows import Rows
from data.sampling.batches import TrainBatches, check_targets
from data.sampling.grouping import grouping_for
from data.sampling.item_planner import ItemPlanner
from data.sampling.masks import Masks
from data.sampling.negatives import CandidateSampler, target_counts
from data.sampling.spans import TrainingSpans
from data.sampling.user_share import UserShare
from data.sequences import SequenceArrays
from distributed.checkpoints.contents import NO_LOSSES, Losses
from distributed.checkpoints.index import feature_key
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.run_storage import RunStorage
from distributed.checkpoints.saving import SMALL, Checkpoints
from distributed.host_memory import keep_freed_memory
from distributed.inference.scoring import Scorer
from distributed.inference.split_results import upload_ranks
from distributed.inputs import Inputs, build_system, open_inputs
from distributed.sharding import ShardedSystem, choose_optimizer, choose_sharding, shard
from distributed.stop_agreement import STOP_FILE, STOPPED_FILE, Interruption
from distributed.telemetry import Telemetry, Track, unwatched
from distributed.training.epoch_work import begin_epoch
from distributed.training.final_metrics import final_metrics
from distributed.training.start import check_start, start
from distributed.training.training_loop import TrainingLoop, decide
from distributed.watchdog import Watchdog
from distributed.world import World
from storage.durable_files import write_text


def train(
    config: Config, world: World, track: Track = unwatched, is_leaving: Callable[[], bool] = lambda: False
) -> dict[str, Any] | None:
    """Train a run to its end and return the content of RUN/metrics.json; None if RUN/stop stopped it before.

    Every rank calls this with the same config. Training resumes from RUN/checkpoints if there are any. All ranks
    compute the same metrics, so they take the same decisions.

    Args:
        config: the settings; `run` and `dataset` must be set.
        world: this rank's place.
        track: shows progress.
        is_leaving: whether a machine of the run is about to be taken away. All ranks call it at the same step, and it
            must return the same value on all of them.

    Raises:
        InputError: bad inputs, a damaged checkpoint, no space for a checkpoint, or too many skipped steps.
    """
    assert config.run is not None
    if world.device.type == "cpu":
        keep_freed_memory()
    checkpoints = Checkpoints(config.run, world, config.training.keep_checkpoints)
    checkpoints.bring()
    storage, stored_config = checkpoints.storage, dump_config(config)
    run = storage.local
    config = config.model_copy(update={"run": str(run)})
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    features = {feature_key(name): feature for name, feature in sharded.system.recommender.module_features.items()}
    recorded = inputs.result_fingerprints | inputs.encoders | features
    progress, losses, begun = Progress(fingerprints=recorded), NO_LOSSES, None
    if checkpoints.exists():
        progress, losses = checkpoints.resume(sharded, inputs.result_fingerprints)
    else:
        begun = start(config, inputs, sharded, world)
        progress.fingerprints |= begun.fingerprints if begun else {}
    telemetry = Telemetry(run=str(run), world=world, resumed_step=progress.step, epochs=progress.epoch)
    if world.is_first:
        write_text(run / "config.yaml", stored_config)
        write_text(run / "plan.txt", sharded.plan + "\n")
    if begun:
        begun.announce(run, telemetry)
    _announce(sharded, progress, config.training, world, telemetry)
    with Watchdog(world=world, run=run, seconds=config.training.stall_seconds) as watchdog:
        scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world, track=watchdog.watching(track))
        if sharded.dense_parameters or sharded.sharding:
            loop = TrainingLoop(
                config=config,
                world=world,
                inputs=inputs,
                sharded=sharded,
                batches=training_batches(config, inputs, scorer.encoder.planner, world),
                checkpoints=checkpoints,
                progress=progress,
                loss=torch.tensor(losses[0], dtype=torch.float64, device=world.device),
                channel_losses=_channel_losses(losses, len(sharded.system.recommender.loss_labels), progress, world),
                scorer=scorer,
                telemetry=telemetry,
                interruption=Interruption(
                    training=config.training, storage=storage, world=world, is_leaving=is_leaving
                ),
                watchdog=watchdog,
            )
            if not loop.run():
                telemetry.close()
                if world.is_first:
                    storage.rename(STOP_FILE, STOPPED_FILE)
                return None
            if not checkpoints.exists():  # no epoch was trained, so the run's first weights are its best
                if not (begun and begun.has_epoch_buffers(sharded.system.recommender)):
                    with watchdog.resting():
                        begin_epoch(sharded.system.recommender, inputs, world, config.seed, 0)
                progress.best_step = progress.step
                checkpoints.save(sharded, progress, loop.losses())
            checkpoints.load("best", sharded, inputs.fingerprints, weights_only=True)
        metrics = final_metrics(config, inputs, scorer, sharded, checkpoints, progress, world)
    telemetry.close()
    if world.is_first:
        _upload(storage)
    return metrics


def _upload(storage: RunStorage) -> None:
    """Upload the files of a finished run, metrics.json last; nothing happens if the run is a local folder."""
    run = storage.local
    upload_ranks(storage, run / "metrics.json")
    boards = [str(path.relative_to(run)) for path in (run / "tensorboard").glob("*")]
    storage.push([*(name for name in SMALL if (run / name).exists()), *boards], ["metrics.json"])


def _announce(
    sharded: ShardedSystem, progress: Progress, training: TrainingConfig, world: World, telemetry: Telemetry
) -> None:
    """Say how the item table is split, and at which step a run continues."""
    if sharded.sharding:
        telemetry.say(f"Where the rows of the item table are, by rank (also in plan.txt):\n{sharded.plan}")
    if not progress.step:
        return
    if decide(progress, training) == "stop":
        telemetry.say(f"nothing is left to train: the run is at step {progress.step}, after epoch {progress.epoch}")
        return
    ranks = "1 rank" if world.size == 1 else f"{world.size} ranks"
    telemetry.say(f"continuing from step {progress.step}, in epoch {progress.epoch + 1}, on {ranks}")


def _channel_losses(losses: Losses, num_channels: int, progress: Progress, world: World) -> torch.Tensor:
    """Return the channels' losses of a checkpoint, float64 [C] on the device.

    They are NaN within an epoch whose checkpoint was written by an earlier version, which did not record them.
    """
    unknown = float("nan") if progress.epoch_steps else 0.0
    return torch.tensor(losses[1:] or [unknown] * num_channels, dtype=torch.float64, device=world.device)


def training_batches(config: Config, inputs: Inputs, planner: ItemPlanner, world: World) -> TrainBatches:
    """Return the batches of one rank, grouped for its device.

    Raises:
        InputError: there is nothing to train on, or the dataset contradicts itself.
    """
    spans = training_spans(config, inputs.dataset)
    check_targets(spans)  # before the sampler, which cannot be built without targets
    sampler = candidate_sampler(config, inputs)
    options = config.training
    return TrainBatches(
        data=inputs.dataset,
        spans=spans,
        batch_size=options.batch_size,
        seed=config.seed,
        rank=world.rank,
        world=world.size,
        planner=planner,
        candidates=sampler,
        step_plans=config.model.is_contrastive,
        grouping=grouping_for(world.device.type, config.model.max_length),
        warm=inputs.warm,
        domains=inputs.dataset.domains if options.domains == "apart" else (),
    )


def check_trainable(config: Config, inputs: Inputs) -> None:
    """Raise the errors of a config before any rank is started.

    This builds the model, but does not allocate the rows of its item table. Batches, plans and the sampler of
    candidates are not built; only their inputs are checked. Of the checkpoint that a new run starts from, names, shapes
    and checksums are read.

    Args:
        config: the settings.
        inputs: the opened dataset and graph.

    Raises:
        InputError: the model does not fit the dataset or graph, the table's optimiser does not fit its sharding, there
            is nothing to train on, or the run cannot start as configured (`start.plan_start`).
    """
    system = build_system(config, inputs)
    needs = system.recommender.needs
    inputs.check_needs(needs)
    check_start(config, inputs, system)
    if needs.id_rows:
        sharding = choose_sharding(config.table, inputs.dataset.num_items, config.model.dim)
        choose_optimizer(config.table, sharding)
    if config.model.system.is_trained:
        check_targets(training_spans(config, inputs.dataset))
        _candidate_sources(config, inputs)


def training_spans(config: Config, data: SequenceArrays) -> TrainingSpans:
    """Return the spans that the steps of an epoch train: those of the sequences of `training.user_share`."""
    unit = config.training.unit
    assert unit != "auto", "Config replaces auto by the unit that it stands for"
    masks: Masks | None = None
    if unit == "masks":
        knobs = own_knobs(config.model, BERT4RecConfig)
        unit, masks = knobs.rows, Masks(ratio=knobs.mask_ratio, last_share=knobs.last_share, seed=config.seed)
    return TrainingSpans(
        data=UserShare(config.training.user_share, config.seed).of(data),
        unit=unit,
        max_length=config.model.max_length,
        overlap=config.training.window_overlap,
        masks=masks,
    )


def candidate_sampler(config: Config, inputs: Inputs) -> CandidateSampler | None:
    """Return the sampler of a step's candidates; None if every item is a candidate (full softmax)."""
    options = config.training.negatives
    if options.draws is None:
        return None
    counts, neighbors = _candidate_sources(config, inputs)
    return CandidateSampler(
        counts=counts,
        num_draws=options.draws,
        popularity_share=options.popularity_share,
        popularity_power=options.popularity_power,
        in_batch=options.in_batch,
        seed=config.seed,
        num_items=None if counts is not None else inputs.dataset.num_items,
        hard_share=options.hard_share,
        neighbors=neighbors,
        warm=inputs.warm,
    )


def _candidate_sources(config: Config, inputs: Inputs) -> tuple[np.ndarray | None, list[Rows]]:
    """Return the arrays that candidates are drawn from: target counts int64 [N], and neighbours int64 [N, H] each.

    Counts are None, and there are no neighbours, if the config does not need them. There is one array of neighbours
    for each modality.

    Raises:
        InputError: the dataset contradicts itself.
    """
    options, graph = config.training.negatives, inputs.graph
    if options.draws is None:
        return None, []
    counted = options.in_batch or options.popularity_share > 0
    counts = None
    if counted:
        popularity = inputs.popularity
        counts = target_counts(inputs.users.of(inputs.dataset), popularity)
        if config.training.unit == "masks":  # a first item can be masked, and so be a target
            counts = popularity.astype(np.int64)
    if graph is None or not options.hard_share:
        return counts, []
    chosen = config.model.graph_modalities
    assert inputs.relations is not None
    return counts, [inputs.relations.neighbors(m) for m in (chosen if chosen is not None else graph.modalities)]
