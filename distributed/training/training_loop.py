"""The loop over epochs: trains, validates, writes checkpoints, and decides when training ends."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch

from configs.schema import Config, TrainingConfig
from contracts.batch import Step
from contracts.errors import InputError
from data.sampling.batches import TrainBatches
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints, Losses
from distributed.inference.scoring import Scorer
from distributed.inputs import Inputs
from distributed.sharding import ShardedSystem
from distributed.stop_agreement import Interruption, Request
from distributed.telemetry import Telemetry
from distributed.training.epoch_work import begin_epoch
from distributed.training.loader import StepOrder, loader_of, no_collection_in_forks, num_loader_workers
from distributed.training.read_ahead import read_ahead
from distributed.training.step import TrainSteps
from distributed.training.validation import validate
from distributed.watchdog import Watchdog
from distributed.world import World
from storage.durable_files import write_text
from storage.plain_json import json_text


@dataclass(kw_only=True)
class TrainingLoop:
    """Trains a run epoch by epoch. Every rank calls every method.

    Attributes:
        loss: this rank's sum of losses in the current epoch, float64, on the device. Steps are added one by one, so
            that the sum of an interrupted epoch is that of an uninterrupted one.
        channel_losses: the same for each channel, without the channels' weights, float64 [C]; NaN if the checkpoint
            that the epoch resumed from did not record them.
    """

    config: Config
    world: World
    inputs: Inputs
    sharded: ShardedSystem
    batches: TrainBatches
    checkpoints: Checkpoints
    progress: Progress
    loss: torch.Tensor
    channel_losses: torch.Tensor
    scorer: Scorer
    telemetry: Telemetry
    interruption: Interruption
    watchdog: Watchdog

    def __post_init__(self) -> None:
        self._order = StepOrder(len(self.batches))
        workers = num_loader_workers(self.config.training.loader_workers, self.world.device)
        self._loader = loader_of(self.batches, self._order, workers, self.world)
        self._steps = TrainSteps(sharded=self.sharded, plan=self.batches.plan, config=self.config, world=self.world)
        self._saving = 0.0

    def run(self) -> bool:
        """Train until `decide` returns "stop"; return False if a stop was requested before.

        Raises:
            InputError: a checkpoint cannot be written, or too many steps in a row had to be skipped.
        """
        while decide(self.progress, self.config.training) == "train":
            if not self._train_epoch():
                return False
            self._end_epoch()
        if 0 < self.progress.step == self.progress.skipped_in_a_row:
            raise self._skipped_too_often("every step of this training")
        best = self.telemetry.epoch_of(self.progress.best_step)
        self.telemetry.say(ending(self.progress, self.config.training, best))
        return True

    def _train_epoch(self) -> bool:
        """Train the rest of the current epoch; return whether its end was reached."""
        progress, training = self.progress, self.config.training
        self.batches.set_epoch(progress.epoch)
        self._order.first, last = progress.epoch_steps, len(self.batches)
        if training.max_steps is not None:
            last = min(last, progress.epoch_steps + training.max_steps - progress.step)
        count = last - progress.epoch_steps
        if not progress.epoch_steps:
            began = time.perf_counter()
            with self.watchdog.resting():
                begin_epoch(self.sharded.system.recommender, self.inputs, self.world, self.config.seed, progress.epoch)
            progress.epoch_seconds += time.perf_counter() - began
        self.sharded.system.train()
        num_targets: list[int] = []

        with no_collection_in_forks():
            loaded = iter(self._loader)  # forks the loader's processes, so it comes before the watchdog's thread
        self.watchdog.alive(progress.step)

        def counted() -> Iterator[Step]:
            for step in read_ahead(islice(loaded, count)):
                num_targets.append(step.batch.num_global_targets)
                yield step

        shares = self._steps.run(counted(), first=progress.step)
        began, self._saving = time.perf_counter(), 0.0
        before = progress.epoch_seconds
        for number, share in enumerate(self.scorer.track(shares, count, f"epoch {progress.epoch + 1}")):
            progress.step += 1
            progress.epoch_steps += 1
            self.watchdog.alive(progress.step)
            if share is None:
                self._note_skipped()
            else:
                progress.skipped_in_a_row = 0
                progress.epoch_targets += num_targets[number]
                self.loss += share.double() * num_targets[number]
                self.channel_losses += self._steps.channel_losses
            progress.epoch_seconds = before + time.perf_counter() - began - self._saving
            request = self.interruption.agreed(progress.step, self.checkpoints.is_writing)
            if self.checkpoints.is_pending and self.interruption.nobody_writes:
                self._finish_checkpoint()
            if request == Request.STOP:
                self._write_checkpoint()
                return False
            if request == Request.CHECKPOINT and progress.epoch_steps < last:
                self._start_checkpoint()
        return True

    def _end_epoch(self) -> None:
        """Validate, record, and write a checkpoint."""
        progress = self.progress
        total, parts = self.world.sum(float(self.loss)), self.world.sum_tensor(self.channel_losses.clone()).tolist()
        loss = total / progress.epoch_targets if progress.epoch_targets else float("nan")
        seconds, trained, skipped = progress.epoch_seconds, progress.epoch_targets, progress.epoch_skipped
        progress.epoch += 1
        progress.seconds += seconds
        progress.epoch_steps = progress.epoch_targets = progress.epoch_skipped = 0
        progress.epoch_seconds = 0.0
        self.loss, self.channel_losses = torch.zeros_like(self.loss), torch.zeros_like(self.channel_losses)
        labels = self.sharded.system.recommender.loss_labels
        by_channel = {label: part / trained for label, part in zip(labels, parts, strict=True)} if trained else {}
        valid = validate(self.scorer, self.inputs, self.config)
        is_best = note_validation(progress, valid.chosen)
        # The record comes before the checkpoint. If the checkpoint is not completed, a resumed run removes the record
        # and writes it again. A record that came after the checkpoint could be lost for good.
        rate = trained / max(seconds, 1e-9)
        self.telemetry.record(
            progress.step,
            epoch=progress.epoch,
            loss=loss,
            **({"loss_by_channel": by_channel} if all(map(math.isfinite, by_channel.values())) else {}),
            **valid.record,
            seconds=seconds,
            targets_per_second=rate,
            **({"skipped_steps": skipped} if skipped else {}),
            **({"checkpoint_seconds": self._saving} if self._saving else {}),
        )
        self._write_checkpoint()
        self.telemetry.say(
            f"epoch {progress.epoch}: loss {loss:.4f}, {valid.described}{' (best)' if is_best else ''}"
            f"{valid.by_domain}, {seconds:.1f} s, {rate:,.0f} targets/s"
        )

    def _write_checkpoint(self) -> None:
        """Write a checkpoint and wait until it is on disk."""
        with self._saving_time():
            self.checkpoints.save(self.sharded, self.progress, self.losses())
            self.interruption.saved()

    def _start_checkpoint(self) -> None:
        """Copy the state and let a thread write the copy while training continues."""
        with self._saving_time():
            self.checkpoints.start(self.sharded, self.progress, self.losses())
            self.interruption.saved()

    def _finish_checkpoint(self) -> None:
        """Publish the checkpoint that `_start_checkpoint` began."""
        with self._saving_time():
            self.checkpoints.finish()

    @contextmanager
    def _saving_time(self) -> Iterator[None]:
        """Add the time spent in this context to the epoch's checkpoint time, and report progress to the watchdog."""
        began = time.perf_counter()
        yield
        self.watchdog.alive()
        self._saving += time.perf_counter() - began

    def losses(self) -> Losses:
        """Return this rank's sums of losses in the current epoch: of the whole loss, then of each channel."""
        return (float(self.loss), *self.channel_losses.tolist())

    def _note_skipped(self) -> None:
        """Count a skipped step, save its batch for inspection, and raise after too many skipped steps in a row."""
        progress, limit = self.progress, self.config.training.max_skipped_steps
        progress.epoch_skipped += 1
        progress.skipped_in_a_row += 1
        assert self.config.run is not None
        path = Path(self.config.run) / "skipped" / f"step-{progress.step:08d}.json"
        if self.world.is_first:
            path.parent.mkdir(exist_ok=True)
            spans, _ = self.batches.spans(progress.epoch_steps - 1)
            batch = {"users": spans.users.tolist(), "starts": spans.starts.tolist(), "lengths": spans.lengths.tolist()}
            write_text(path, json_text({"step": progress.step, "epoch": progress.epoch + 1, **batch}))
        self.telemetry.say(f"step {progress.step}: loss or gradient is not finite; skipped, its batch is in {path}")
        if progress.skipped_in_a_row > limit:
            raise self._skipped_too_often(
                f"training.max_skipped_steps={limit}: {progress.skipped_in_a_row} steps in a row"
            )

    def _skipped_too_often(self, which: str) -> InputError:
        return InputError(
            f"{which} had a loss or gradient that is not finite, the last at step {self.progress.step}; look at the "
            f"batches in {self.config.run}/skipped, lower training.learning_rate, set training.gradient_clip or a "
            "larger model.dim, and train a new run"
        )


def decide(progress: Progress, training: TrainingConfig) -> Literal["train", "stop"]:
    """Return whether to train another epoch."""
    return "train" if why_stop(progress, training) is None else "stop"


def why_stop(progress: Progress, training: TrainingConfig) -> str | None:
    """Return the setting that ends training at this point, in words; None if another epoch is to be trained."""
    if progress.stale_epochs >= training.patience:
        return f"{training.metric} was no better for {progress.stale_epochs} epochs (training.patience)"
    if progress.epoch >= training.max_epochs:
        return f"training.max_epochs={training.max_epochs}"
    if training.max_steps is not None and progress.step >= training.max_steps:
        return f"training.max_steps={training.max_steps}"
    return None


def ending(progress: Progress, training: TrainingConfig, best: int | None) -> str:
    """Return a line for the end of a training: why it ends, and which epoch was best.

    Args:
        progress: the state of the run.
        training: the settings of training.
        best: number of the best epoch; None if no epoch was trained.
    """
    line = f"training ends after epoch {progress.epoch}, step {progress.step}: {why_stop(progress, training)}"
    if best is None:
        return f"{line}; no epoch was trained"
    if progress.best_metric is None:
        return f"{line}; without users to validate on the latest epoch, {best}, counts as the best"
    return f"{line}; best: epoch {best}, valid {training.metric} {progress.best_metric:.4f}"


def note_validation(progress: Progress, metric: float | None) -> bool:
    """Record an epoch's validation metric and return whether this epoch is the best so far.

    Without a validation set the metric is None, and the latest epoch counts as the best.
    """
    if metric is None or progress.best_metric is None or metric > progress.best_metric:
        progress.best_metric, progress.best_step, progress.stale_epochs = metric, progress.step, 0
        return True
    progress.stale_epochs += 1
    return False
