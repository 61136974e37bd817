"""A trial in a process: what it is told, how it is trained, what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from configs.loading import dump_config, parse_config
from contracts.errors import InputError
from distributed.checkpoints.run_storage import RunStorage
from distributed.interruption import STOP_FILE, STOPPED_FILE
from distributed.output import speaking_as
from distributed.training.trainer import train
from distributed.world import world_of_one
from storage.durable_files import write_text


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt at a trial ended: "stopped", with a checkpoint if it had begun, because of a file `stop`."""

    trial: str
    state: Literal["finished", "stopped", "failed"]
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process needs to train a trial: plain values, the config as a dict."""

    trial: str
    config: dict[str, Any]
    threads: int
    use_gpu: bool


def stop_file(job: Job) -> Path:
    """What ends a study where it is there, `STUDY/stop`: no trial of it begins any more."""
    return Path(job.config["run"]).parents[1] / STOP_FILE


class TrialExecutor(Protocol):
    """Trains trials.

    Attributes:
        threads: of each trial.
        use_gpu: whether each has a GPU.
    """

    threads: int
    use_gpu: bool

    def run_trials(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """An outcome per job, as they end. Never raises for a trial that fails."""
        ...


class SerialTrials:
    """One trial after the other, in this process."""

    threads, use_gpu = 1, False

    def run_trials(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        yield from map(run_trial, jobs)


def run_trial(job: Job) -> Outcome:
    """Train from the latest checkpoint on, in a world of one; whatever goes wrong is the outcome."""
    if stop_file(job).exists():
        return Outcome(trial=job.trial, state="stopped")
    try:
        config = parse_config(job.config, f"of trial {job.trial}")
        assert config.run is not None
        run = Path(config.run)
        run.mkdir(parents=True, exist_ok=True)
        if not (run / "config.yaml").exists():  # or a folder that a killed process leaves would not be known as a run
            write_text(run / "config.yaml", dump_config(config))
        for name in (STOP_FILE, STOPPED_FILE):
            RunStorage(config.run).discard(name)
        torch.set_num_threads(job.threads)
        device = torch.device("cuda", 0) if job.use_gpu else torch.device("cpu")
        if job.use_gpu:
            torch.cuda.set_device(device)
        with speaking_as(job.trial), world_of_one(device) as world:
            metrics = train(config, world)
    except InputError as error:
        return Outcome(trial=job.trial, state="failed", error=str(error), traceback=traceback.format_exc())
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(trial=job.trial, state="failed", error=line[:500], traceback=traceback.format_exc())
    return Outcome(trial=job.trial, state="finished" if metrics is not None else "stopped")
