"""Run a task on every rank through Ray Train: one process per worker, one process group, restarts on failure."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import ray.train
from ray.experimental import tqdm_ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from configs.errors import InputError
from configs.loading import parse_config
from configs.schema import Config
from distributed.interruption import STOP_FILE, STOPPED_FILE
from distributed.ray_cluster import workers_use_gpu
from distributed.run_storage import RunStorage

Task = Literal["train", "evaluate", "recommend"]


def run_on_workers(task: Task, config: Config, **arguments: Any) -> None:
    """Run a task on `cluster.num_workers` ranks of the connected cluster and wait for it.

    Training is restarted up to `cluster.max_failures` times, each time from its latest checkpoint; the
    other tasks are not. With [least, most] workers it starts on as many as there is room for, goes on with fewer when
    a node is lost, and with more when there is room again. Results are in the files that the task writes.

    Raises:
        InputError: a worker met bad input.
        TrainingFailedError: a worker failed more often than allowed.
    """
    assert config.run is not None
    # Passed on to workers: print must reach their stdout, by which a bar's updates travel, not a logger.
    os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"
    gpu = workers_use_gpu(config.cluster)
    # Ray keeps its own state of the run here; ours is in RUN, so this folder can go when all is well.
    storage = RunStorage(config.run)
    path, files = storage.arrow
    if not storage.is_remote:
        (storage.local / "ray").mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        worker_function,
        # A plain dict crosses the process border and is validated again there; no object is unpickled.
        train_loop_config={
            "task": task,
            "config": config.model_dump(mode="json"),
            "arguments": arguments,
            "watched": sys.stderr.isatty(),
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
            failure_config=FailureConfig(max_failures=config.cluster.max_failures if task == "train" else 0),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        bad_input = _input_error(error)
        if bad_input is not None:
            raise bad_input from None
        raise
    shutil.rmtree(storage.local / "ray", ignore_errors=True)
    storage.remove("ray")
    # Workers' lines reach the driver through Ray's log monitor, a little late; let a job have the last word.
    time.sleep(1.0)


@contextmanager
def stopping_on_sigterm(storage: RunStorage) -> Iterator[None]:
    """Within, SIGTERM asks training to write a checkpoint and end; a second one ends this process.

    It does what anyone may: put the file `stop` into the run's folder.
    """
    for name in (STOP_FILE, STOPPED_FILE):
        storage.discard(name)

    def ask() -> None:
        storage.local.mkdir(parents=True, exist_ok=True)
        (storage.local / STOP_FILE).touch()
        storage.push([STOP_FILE])

    with first_sigterm(ask):
        yield


@contextmanager
def first_sigterm(ask: Callable[[], None]) -> Iterator[None]:
    """Within, the first SIGTERM calls `ask`, and a second one ends this process.

    Enter it after `ray.init`, which takes the signal for itself.
    """

    def answer(number: int, frame: object) -> None:  # noqa: ARG001
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ask()

    before = signal.signal(signal.SIGTERM, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def on_worker(job: dict[str, Any]) -> None:
    """What each worker process runs; heavy imports happen here, once the process exists."""
    quiet_libraries()
    from distributed import encoding, trainer
    from distributed.telemetry import unwatched
    from distributed.world import World

    world = World.current(ray.train.torch.get_device())
    config = parse_config(job["config"], "sent by the job")
    tasks: dict[str, Callable[..., Any]] = {
        "train": trainer.train,
        "evaluate": encoding.evaluate,
        "recommend": encoding.recommend,
    }
    # One bar, drawn by the driver from what rank 0 sends; none where nobody watches.
    track = _bar if job["watched"] and world.is_first else unwatched
    arguments = job["arguments"]
    if job["task"] == "train":
        arguments = {**arguments, "is_leaving": lambda: ray.train.get_preemption_info() is not None}
    tasks[job["task"]](config, world, track=track, **arguments)


# What `run_on_workers` has workers run; the fault injection puts its own around it.
worker_function: Callable[[dict[str, Any]], None] = on_worker


def _bar(loop: Iterable[Any], total: int, label: str) -> Iterator[Any]:
    """A `telemetry.Track` that the driver's terminal shows while the loop runs."""
    bar = tqdm_ray.tqdm(desc=label, total=total)
    try:
        for item in loop:
            yield item
            bar.update(1)
    finally:
        bar.close()


def quiet_libraries() -> None:
    """Keep what FBGEMM, TorchRec and torch log while loading and planning out of the driver's output.

    The plan itself is printed and saved; errors still come through.
    """
    for name in (None, "torch"):  # torch's own loggers do not inherit from the root
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*ShardedTensor")  # raised at our lines, about TorchRec's class
    for category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|torchrec|fbgemm_gpu)\b")


def _input_error(error: TrainingFailedError) -> InputError | None:
    """The InputError behind a failed run, if that is what it was."""
    failures = getattr(error, "worker_failures", {}) or {}
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, InputError):
                return cause
            text = str(cause)
            marker = f"{InputError.__name__}: "
            if marker in text:
                return InputError(text.rpartition(marker)[2].strip())
            cause = cause.__cause__
    return None
