"""Train one trial in one process: the job it gets, the outcome it returns, and the interface of executors."""

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
from distributed.output import speaking_as
from distributed.stop_agreement import STOP_FILE, STOPPED_FILE
from distributed.training.trainer import train
from distributed.world import world_of_one
from storage.durable_files import write_text


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one attempt to train a trial ended.

    Attributes:
        trial: the trial's name.
        state: "stopped" means that a file `stop` ended it, with a checkpoint if training had begun.
        error: the error in one line, if the trial failed.
        traceback: the traceback, if the trial failed.
    """

    trial: str
    state: Literal["finished", "stopped", "failed"]
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process needs to train a trial, as plain values; the config is a dict."""

    trial: str
    config: dict[str, Any]
    threads: int
    use_gpu: bool


def stop_file(job: Job) -> Path:
    """Return the file STUDY/stop. While it exists, no trial of the study begins."""
    return Path(job.config["run"]).parents[1] / STOP_FILE


class TrialExecutor(Protocol):
    """Trains trials.

    Attributes:
        threads: threads of each trial.
        use_gpu: whether each trial has a GPU.
    """

    threads: int
    use_gpu: bool

    def run_trials(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Train the jobs and yield an outcome for each, as they end. A trial that fails does not raise."""
        ...


class SerialTrials:
    """Trains one trial after the other, in this process."""

    threads, use_gpu = 1, False

    def run_trials(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        yield from map(run_trial, jobs)


def run_trial(job: Job) -> Outcome:
    """Train a trial from its latest checkpoint, in a world of one rank. Errors are returned in the outcome."""
    if stop_file(job).exists():
        return Outcome(trial=job.trial, state="stopped")
    try:
        config = parse_config(job.config, f"of trial {job.trial}")
        assert config.run is not None
        run = Path(config.run)
        run.mkdir(parents=True, exist_ok=True)
        if not (run / "config.yaml").exists():  # so that the folder is known as a run, even if this process is killed
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
