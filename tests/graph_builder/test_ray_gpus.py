"""Blocks on the GPUs of a Ray cluster: a real Ray on this machine, which is told that there are two GPUs."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder.ray_tasks import RayExecutor

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("two_gpus")]
_PATIENCE_SECONDS = 60.0


@pytest.fixture
def started() -> Iterator[Callable[..., RayExecutor]]:
    """A function that makes executors with some options. They free their GPUs when the test ends."""
    executors: list[RayExecutor] = []

    def start(**options: Any) -> RayExecutor:
        executors.append(RayExecutor(GraphConfig(**options)))
        return executors[-1]

    yield start
    for executor in executors:
        executor.release()


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, "the other blocks do not run"
        time.sleep(0.01)


def meet(folder: Path, size: int, last: int, block: int) -> tuple[int, str]:
    """Return this process and its GPU, once `size` blocks run at the same time. Block `last` waits for the others."""
    (folder / f"{block}.begun").touch()
    wait_for(folder, "*.begun", size)
    if block == last:
        wait_for(folder, "*.done", size - 1)
    (folder / f"{block}.done").touch()
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def gpus_by_process(folder: Path, executor: RayExecutor, size: int) -> list[list[str]]:
    """Run stages whose blocks end in other orders, and return the GPUs that each process has had."""
    found: dict[int, set[str]] = defaultdict(set)
    for stage in range(8):
        (folder / str(stage)).mkdir()
        function = functools.partial(meet, folder / str(stage), size, stage % size)
        for process, gpu in executor.run_blocks(function, list(range(size)), on_gpu=True):
            found[process].add(gpu)
    assert list(executor.run_blocks(abs, [-1, -2, -3])) == [1, 2, 3]  # the cores are free
    return sorted(map(sorted, found.values()))


def test_a_process_keeps_its_gpu_and_all_gpus_are_used(tmp_path: Path, started: Any) -> None:
    executor = started()
    assert executor.gpus == 2
    assert gpus_by_process(tmp_path, executor, 2) == [["0"], ["1"]]


@pytest.mark.slow
def test_a_share_of_a_gpu_lets_several_processes_use_it(tmp_path: Path, started: Any) -> None:
    assert gpus_by_process(tmp_path, started(gpus_per_task=0.5), 4) == [["0"], ["0"], ["1"], ["1"]]


def test_blocks_on_cores_get_no_gpu(started: Any) -> None:
    executor = started(backend="cpu")
    assert executor.gpus == 0
    seen = set(executor.run_blocks(_visible, [0, 1], on_gpu=True))
    assert seen <= {"", None}


def _visible(_: int) -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def die_once(folder: Path, block: int) -> int:
    """Return the square; blocks 3 and 7 end their process at the first attempt."""
    marker = folder / str(block)
    if block in (3, 7) and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return block * block


def test_blocks_of_a_lost_actor_run_again(tmp_path: Path, started: Any) -> None:
    executor = started()
    found = executor.run_blocks(functools.partial(die_once, tmp_path), list(range(12)), on_gpu=True)
    assert list(found) == [block * block for block in range(12)]
    assert {path.name for path in tmp_path.iterdir()} == {"3", "7"}


def always_die(block: int) -> int:
    if block == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return block


@pytest.mark.slow
def test_a_block_that_ends_every_actor_is_given_up(started: Any) -> None:
    executor = started()
    executor._actors._max_retries = 1
    with pytest.raises(ray.exceptions.RayActorError):
        list(executor.run_blocks(always_die, [0, 1, 2], on_gpu=True))


def refuse(block: int) -> int:
    if block == 2:
        raise InputError("row 5: holds NaN")
    return block


def test_bad_input_arrives_as_it_was_raised_and_a_released_executor_holds_no_gpu(started: Any) -> None:
    executor = started()
    with pytest.raises(InputError, match=r"^row 5: holds NaN$"):
        list(executor.run_blocks(refuse, list(range(8)), on_gpu=True))
    assert list(executor.run_blocks(refuse, [0], on_gpu=True)) == [0]
    executor.release()
    assert list(started().run_blocks(abs, [-1, -2], on_gpu=True)) == [1, 2]  # others can have the GPUs now
