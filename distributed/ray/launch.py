"""Runs a task on all ranks through Ray Train, and starts a training again when workers are lost."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from configs.loading import parse_config
from configs.schema import Config
from contracts.terminal import shows_bars
from distributed.checkpoints.run_storage import RunStorage
from distributed.output import distant_bar, end_lines, show
from distributed.rank_task import RankError, Task, one_line, run_task
from distributed.ray.cluster import wait_for_loss, workers_use_gpu
from distributed.ray.relay import expect_end, ray_logs
from distributed.telemetry import unwatched
from distributed.world import World

_LAST_LINES = 10.0  # seconds to wait at most for the last lines of rank 0
_LOOK_EVERY = 0.5  # seconds to wait for a loss of Ray before checking whether the task has ended


def run_on_ray(task: Task, config: Config, storage: RunStorage, **arguments: Any) -> None:
    """Run a task on `cluster.num_workers` ranks of the connected cluster and wait until it ends.

    A training that loses workers or nodes is started again from its latest checkpoint, up to `cluster.max_failures`
    times. Other tasks are not started again. With [least, most] workers, a training starts with as many as the
    cluster has room for. It continues with fewer when a node is lost, and with more when the cluster has room again.

    Args:
        task: "train", "evaluate" or "recommend".
        config: the settings.
        storage: the run's folder or URI.
        arguments: further arguments of the task's function.

    Raises:
        RankError: an error of a rank that would occur at every attempt, or more losses of workers than allowed.
    """
    # Workers inherit this. Their lines are sent through stdout, so print must write there and not to a logger.
    os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"
    ended, told = expect_end(), False
    allowed, losses = config.cluster.max_failures if task == "train" else 0, 0
    while True:
        try:
            with _ending_with_ray(storage):
                _trainer(task, config, storage, arguments).fit()
            break
        except TrainingFailedError as error:
            of_ranks = [failure for _, failure in sorted(_failures(error).items()) if isinstance(failure, RankError)]
            if not told and not any(failure.refused for failure in of_ranks):
                show(ray_logs(), "err")
                told = True
            if of_ranks:
                raise of_ranks[0] from None
            if not isinstance(error, WorkerGroupError):  # of Ray's controller, which makes its own further attempts
                raise RankError(f"Ray Train failed: {one_line(error)}", str(error) + "\n", False) from None
            losses += 1
            print(_lost(error, losses, allowed), flush=True)
            if 0 <= allowed < losses:
                limit = f", more often than cluster.max_failures={allowed} allows"
                end = limit if task == "train" else "; repeat the command"
                raise RankError(f"workers were lost{end}", str(error) + "\n", False) from None
    shutil.rmtree(storage.local / "ray", ignore_errors=True)
    storage.remove("ray")
    # Workers' lines arrive a little late, through Ray's log monitor. Wait, so that the job prints its last line last.
    ended.wait(_LAST_LINES)


@contextmanager
def _ending_with_ray(storage: RunStorage) -> Iterator[None]:
    """Within this context, end this process soon after the Ray that it started is lost.

    This happens if, for example, a batch system ends all processes of a job.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            end_if_ray_is_lost(storage, _LOOK_EVERY)

    thread = threading.Thread(target=watch, name="ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def end_if_ray_is_lost(storage: RunStorage, seconds: float, end: Callable[[int], object] = os._exit) -> None:
    """If the Ray that this process started ends within some seconds, print what to do next and end this process.

    Otherwise Ray's library would end it: at once without a message, or after a minute with a page of messages.

    Args:
        storage: the run's folder or URI.
        seconds: how long to wait for a loss of Ray.
        end: ends this process; called with the exit code.
    """
    name = wait_for_loss(seconds)
    if name is None:
        return
    can_continue = (storage.local / "checkpoints" / "index.json").exists()
    move = "continues from its latest checkpoint" if can_continue else "starts from the beginning"
    os.write(2, f"error: Ray's process {name} was ended from outside; the same command {move}\n".encode())
    end(os.EX_TEMPFAIL if can_continue else 1)


class _Trainer(TorchTrainer):
    """Ray's trainer without its handler of Ctrl-C, which ends ranks without a checkpoint; see `stop_signals.py`."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _trainer(task: Task, config: Config, storage: RunStorage, arguments: dict[str, Any]) -> _Trainer:
    """Return the trainer for one attempt at the task."""
    gpu = workers_use_gpu(config.cluster)
    # Ray saves its own state of the run here. This project's state is elsewhere in RUN, so `run_on_ray` deletes this
    # folder after a success.
    path, files = storage.arrow
    if not storage.is_remote:
        (storage.local / "ray").mkdir(parents=True, exist_ok=True)
    return _Trainer(
        worker_function,
        # Workers get a plain dict and validate it again, so that no object of this project is unpickled.
        train_loop_config={
            "task": task,
            "config": config.model_dump(mode="json"),
            "arguments": arguments,
            "watched": shows_bars(),
        },
        scaling_config=ScalingConfig(
            num_workers=config.cluster.num_workers,
            elastic_resize_monitor_interval_s=config.cluster.resize_seconds,
            use_gpu=gpu,
            resources_per_worker={"CPU": config.cluster.cpus_per_worker, **({"GPU": 1} if gpu else {})},
        ),
        run_config=RunConfig(
            name=f"{task}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=f"{path}/ray",
            storage_filesystem=files,
            # `run_on_ray` decides about restarts, because it distinguishes a rank's own error from a lost worker.
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _failures(error: TrainingFailedError) -> dict[int, BaseException]:
    """Return the error or loss of each failed rank, by rank; empty for an error of Ray's controller."""
    return getattr(error, "worker_failures", None) or {}


def _lost(error: TrainingFailedError, losses: int, allowed: int) -> str:
    """Return a line for the user: which ranks failed, how, and what happens next."""
    found = [f"rank {rank}: {one_line(failure)[:200]}" for rank, failure in sorted(_failures(error).items())]
    text = "; ".join(found[:2]) + (f"; and {len(found) - 2} more" if len(found) > 2 else "")
    line = f"lost workers ({text})"
    if 0 <= allowed < losses:
        return line
    limit = "without limit" if allowed < 0 else f"of {allowed}"
    return f"{line}; starting again from the latest checkpoint, restart {losses} {limit} (cluster.max_failures)"


def on_worker(job: dict[str, Any]) -> None:
    """Run the task in a worker process of Ray.

    Args:
        job: the dict that `_trainer` makes: the task, the config, the task's arguments, and whether a bar is shown.
    """
    world = World.current(ray.train.torch.get_device())
    # If the driver has a terminal, rank 0 sends it the state of the progress bar, and the driver draws the bar.
    track = distant_bar if job["watched"] and world.is_first else unwatched
    arguments = job["arguments"]
    if job["task"] == "train":
        arguments = {**arguments, "is_leaving": lambda: ray.train.get_preemption_info() is not None}
    try:
        run_task(job["task"], parse_config(job["config"], "sent by the job"), world, track, **arguments)
    except RankError:
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # the driver reports the error in one line
        raise
    if world.is_first:
        end_lines()


# The function that workers run. Fault injection in tests and benchmarks replaces this function by a wrapper.
worker_function: Callable[[dict[str, Any]], None] = on_worker
