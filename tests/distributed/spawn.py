"""Runs a function on real ranks over gloo. If a rank fails, the test shows the traceback of that rank.

Most of a rank's time would be spent on imports. So ranks are forked from one process that has imported everything
once for all tests. That process joins no process group, opens no connection and computes nothing, so a forked rank
starts in the state of a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from distributed.world import World

_IMPORTED_ONCE = ["distributed.inference.restore", "distributed.training.trainer", "tests.distributed.toy", "pytest"]
multiprocessing.get_context("forkserver").set_forkserver_preload(_IMPORTED_ONCE)


def run_ranks(world: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call function(World, *arguments) in `world` processes. Raises the error of a rank that fails."""
    with tempfile.TemporaryDirectory() as folder:
        common = (world, f"file://{Path(folder) / 'store'}", dict(os.environ), function, arguments)
        mp.start_processes(_rank, args=common, nprocs=world, start_method="forkserver")


def _rank(
    rank: int,
    world: int,
    store: str,
    environment: dict[str, str],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.clear()  # the process that ranks are forked from has an earlier environment
    os.environ.update(environment)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    function(World.current(torch.device("cpu")), *arguments)
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not a normal exit: on a busy machine about one exit in sixty aborted, because a thread of torch was still
    # running after the last line of Python.
    os._exit(0)
