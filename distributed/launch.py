"""Runs a task on all its ranks: a single rank in this process, several ranks through Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from configs.schema import Config
from contracts.errors import InputError, TaskFailed
from contracts.terminal import shows_bars
from distributed.checkpoints.run_storage import RunStorage
from distributed.output import local_bar
from distributed.rank_task import RankError, Task, run_task
from distributed.ray.temporary_folder import keep_sockets_short
from distributed.run_location import device_type, runs_in_this_process
from distributed.stop_signals import stopping_on_signals
from distributed.telemetry import unwatched
from distributed.training.loader import num_loader_workers
from distributed.world import world_of_one
from storage.durable_files import write_text

ERROR_FILE = "error.txt"  # the file in a run's folder with the traceback of a task that failed


def run_on_workers(task: Task, config: Config, **arguments: Any) -> None:
    """Run a task on `cluster.num_workers` ranks and wait until it ends. Its results are in the files that it writes.

    A single rank runs in this process, without Ray, if no cluster is named and this is not a submitted job. It
    computes the same numbers and writes the same files as a Ray worker would. SIGTERM and SIGINT stop a training
    after a checkpoint.

    Args:
        task: "train", "evaluate" or "recommend".
        config: the settings; `run` must be set.
        arguments: further arguments of the task's function. They must be plain values, because Ray sends them.

    Raises:
        InputError: the cluster cannot be joined, or a rank found bad input.
        TaskFailed: any other error of a rank; its traceback is in RUN/error.txt.
    """
    assert config.run is not None
    storage = RunStorage(config.run)
    with suppress(OSError):
        (storage.local / ERROR_FILE).unlink(missing_ok=True)
    try:
        if runs_in_this_process(config.cluster):
            _run_in_this_process(task, config, storage, arguments)
        else:
            _run_through_ray(task, config, storage, arguments)
    except RankError as error:
        if error.refused:
            raise InputError(error.message) from None
        where = _save_report(storage.local, error.report)
        raise TaskFailed(f"{task} failed, {error.message}; the traceback is in {where}") from None


def _run_in_this_process(task: Task, config: Config, storage: RunStorage, arguments: dict[str, Any]) -> None:
    kind = device_type(config.cluster)
    assert kind is not None
    device = torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if num_loader_workers(config.training.loader_workers, device):
        keep_sockets_short()
    track = local_bar if shows_bars() else unwatched
    with _threads_of_a_worker(config.cluster.cpus_per_worker) as threads, world_of_one(device) as world:
        on = "a GPU" if kind == "cuda" else f"CPU ({threads} thread{'s' if threads > 1 else ''})"
        print(f"running in this process, without Ray, on {on}: cluster.num_workers is 1", flush=True)
        with _stopping(task, storage):
            run_task(task, config, world, track, **arguments)


def _run_through_ray(task: Task, config: Config, storage: RunStorage, arguments: dict[str, Any]) -> None:
    from distributed.ray import launch as ray_train
    from distributed.ray.cluster import cluster_in_words, connect, wait_for_room

    kind, workers = device_type(config.cluster), config.cluster.num_workers
    count = f"{workers}" if isinstance(workers, int) else f"{workers[0]} to {workers[1]}"
    on = {"cpu": " on CPU", "cuda": " on GPUs", None: ""}[kind]
    s = "" if count == "1" else "s"
    print(f"running with {count} worker{s}{on}: {cluster_in_words(config.cluster)}", flush=True)
    connect(config.cluster)
    wait_for_room(config.cluster)
    # The signal may have been sent to Ray's processes too. The handler therefore checks whether Ray is ending, and no
    # call to Ray is made meanwhile.
    with _stopping(task, storage, lambda: ray_train.end_if_ray_is_lost(storage, 2.0)):
        ray_train.run_on_ray(task, config, storage, **arguments)


def _stopping(
    task: Task, storage: RunStorage, then: Callable[[], object] = lambda: None
) -> AbstractContextManager[None]:
    return stopping_on_signals(storage, then) if task == "train" else nullcontext()


@contextmanager
def _threads_of_a_worker(cpus: float) -> Iterator[int]:
    """Within this context, use as many threads as Ray gives a worker with so many CPUs; yields the number.

    OMP_NUM_THREADS decides if it is set. Otherwise it is the number of CPUs, rounded down, and at least 1.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, int(cpus)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _save_report(run: Path, report: str) -> str:
    """Write a traceback to the run's folder, or to stderr if that fails; return where it is, for a message."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / ERROR_FILE, report)
    except OSError:
        print(report, file=sys.stderr, flush=True)
        return "the lines above"
    return str(run / ERROR_FILE)
