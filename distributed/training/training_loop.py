"""Epoch after epoch, from wherever a run stands to where it is to end, with checkpoints on the way."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader, Sampler

from configs.schema import Config, TrainingConfig
from contracts.batch import Step
from contracts.errors import InputError
from data.sampling.batches import TrainBatches
from distributed.checkpoints.checkpoint import Checkpoints, Losses
from distributed.checkpoints.index import Progress
from distributed.inference.scoring import Scorer, summarise
from distributed.inputs import Inputs
from distributed.interruption import Interruption, Wish
from distributed.sharding import ShardedSystem
from distributed.telemetry import Telemetry
from distributed.training.read_ahead import read_ahead
from distributed.training.step import TrainSteps
from distributed.watchdog import Watchdog
from distributed.world import World
from storage.durable_files import write_text
from storage.plain_json import json_text


class StepOrder(Sampler[int]):
    """Steps of an epoch, from `first` on."""

    def __init__(self, count: int) -> None:
        self.first, self._count = 0, count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self._count))

    def __len__(self) -> int:
        return self._count - self.first


def loader_of(batches: TrainBatches, order: Sampler[int], num_workers: int, world: World) -> DataLoader[Step]:
    """Steps in order, prepared by processes that stay for the whole run."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=order,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=world.device.type == "cuda",
        generator=torch.Generator(),  # so that the default one is left alone
    )


@contextmanager
def nothing_inherited_collected() -> Iterator[None]:
    """Processes forked within never destroy what they were born with.

    Garbage of the parent may own threads, as a process group of an earlier sitting does. They are not there in a forked
    process, and its first collection would wait for them for ever, or fault.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(kw_only=True)
class TrainingLoop:
    """What an epoch needs; every method is called by every rank.

    Attributes:
        loss: this rank's sum of losses in the epoch under way, float64, on the device. Steps are added one by one, so
            that an epoch in pieces has the sum of one in one piece.
        channel_losses: the same by channel, without weights, float64 [C]; NaN where a checkpoint did not know them.
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
        self._loader = loader_of(self.batches, self._order, self.config.training.loader_workers, self.world)
        self._steps = TrainSteps(sharded=self.sharded, plan=self.batches.plan, config=self.config, world=self.world)
        self._saving = 0.0

    def run(self) -> bool:
        """Train until `decide` says stop; False where somebody asked for the end before.

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
        """The rest of the epoch under way; whether it was trained to its end."""
        progress, training = self.progress, self.config.training
        self.batches.set_epoch(progress.epoch)
        self._order.first, last = progress.epoch_steps, len(self.batches)
        if training.max_steps is not None:
            last = min(last, progress.epoch_steps + training.max_steps - progress.step)
        count = last - progress.epoch_steps
        self.sharded.system.train()
        num_targets: list[int] = []

        with nothing_inherited_collected():
            loaded = iter(self._loader)  # its processes are forked before the watchdog's thread is there
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
            wish = self.interruption.agreed(progress.step, self.checkpoints.is_writing)
            if self.checkpoints.is_pending and self.interruption.nobody_writes:
                self._finish_checkpoint()
            if wish == Wish.STOP:
                self._write_checkpoint()
                return False
            if wish == Wish.CHECKPOINT and progress.epoch_steps < last:
                self._start_checkpoint()
        return True

    def _end_epoch(self) -> None:
        """Validate, record, and write a checkpoint."""
        progress, metric = self.progress, self.config.training.metric
        total, parts = self.world.sum(float(self.loss)), self.world.sum_tensor(self.channel_losses.clone()).tolist()
        loss = total / progress.epoch_targets if progress.epoch_targets else float("nan")
        seconds, trained, skipped = progress.epoch_seconds, progress.epoch_targets, progress.epoch_skipped
        progress.epoch += 1
        progress.seconds += seconds
        progress.epoch_steps = progress.epoch_targets = progress.epoch_skipped = 0
        progress.epoch_seconds = 0.0
        self.loss, self.channel_losses = torch.zeros_like(self.loss), torch.zeros_like(self.channel_losses)
        labels = [channel.label for channel in self.sharded.system.recommender.channels]
        by_channel = {label: part / trained for label, part in zip(labels, parts, strict=True)} if trained else {}
        valid = summarise(self.scorer.rank("valid"), self.inputs, self.config)["metrics"]
        is_best = note_validation(progress, valid.get(metric))
        # Before the checkpoint: a record of steps that will be taken again is removed, a lost one would stay so.
        rate = trained / max(seconds, 1e-9)
        self.telemetry.record(
            progress.step,
            epoch=progress.epoch,
            loss=loss,
            **({"loss_by_channel": by_channel} if all(map(math.isfinite, by_channel.values())) else {}),
            valid=valid,
            seconds=seconds,
            targets_per_second=rate,
            **({"skipped_steps": skipped} if skipped else {}),
            **({"checkpoint_seconds": self._saving} if self._saving else {}),
        )
        self._write_checkpoint()
        self.telemetry.say(
            f"epoch {progress.epoch}: loss {loss:.4f}, valid {metric} {valid.get(metric, float('nan')):.4f}"
            f"{' (best)' if is_best else ''}, {seconds:.1f} s, {rate:,.0f} targets/s"
        )

    def _write_checkpoint(self) -> None:
        """Write a checkpoint and wait until it is on disk."""
        with self._saving_time():
            self.checkpoints.save(self.sharded, self.progress, self._losses())
            self.interruption.saved()

    def _start_checkpoint(self) -> None:
        """Copy the state and let a thread write it while training goes on."""
        with self._saving_time():
            self.checkpoints.start(self.sharded, self.progress, self._losses())
            self.interruption.saved()

    def _finish_checkpoint(self) -> None:
        """Make the checkpoint count that `_start_checkpoint` began."""
        with self._saving_time():
            self.checkpoints.finish()

    @contextmanager
    def _saving_time(self) -> Iterator[None]:
        """Adds the time spent within to the checkpoint time of the epoch; the watchdog hears of the rank afterwards."""
        began = time.perf_counter()
        yield
        self.watchdog.alive()
        self._saving += time.perf_counter() - began

    def _losses(self) -> Losses:
        """This rank's sums of losses in the epoch under way: of the whole loss, then of each channel."""
        return (float(self.loss), *self.channel_losses.tolist())

    def _note_skipped(self) -> None:
        """Count a step whose loss or gradient was not finite, keep its batch for a look, and stop after too many."""
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
    """Whether another epoch is to be trained."""
    return "train" if why_stop(progress, training) is None else "stop"


def why_stop(progress: Progress, training: TrainingConfig) -> str | None:
    """The setting that ends training where it stands; None while another epoch is to be trained."""
    if progress.stale_epochs >= training.patience:
        return f"{training.metric} was no better for {progress.stale_epochs} epochs (training.patience)"
    if progress.epoch >= training.max_epochs:
        return f"training.max_epochs={training.max_epochs}"
    if training.max_steps is not None and progress.step >= training.max_steps:
        return f"training.max_steps={training.max_steps}"
    return None


def ending(progress: Progress, training: TrainingConfig, best: int | None) -> str:
    """One line for the end of a training: why there, and which epoch was best.

    Args:
        best: number of the best epoch; None where no epoch was trained.
    """
    line = f"training ends after epoch {progress.epoch}, step {progress.step}: {why_stop(progress, training)}"
    if best is None:
        return f"{line}; no epoch was trained"
    if progress.best_metric is None:
        return f"{line}; without users to validate on the latest epoch, {best}, counts as the best"
    return f"{line}; best: epoch {best}, valid {training.metric} {progress.best_metric:.4f}"


def note_validation(progress: Progress, metric: float | None) -> bool:
    """Record an epoch's validation metric ; whether it is the best (None: no validation set, the latest is)."""
    if metric is None or progress.best_metric is None or metric > progress.best_metric:
        progress.best_metric, progress.best_step, progress.stale_epochs = metric, progress.step, 0
        return True
    progress.stale_epochs += 1
    return False
