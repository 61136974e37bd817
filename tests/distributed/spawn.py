"""Run a function on real ranks over gloo; a failing rank's own traceback is what the test shows.

Ranks are forked from one process that has imported what they need, once for all tests: most of a rank's time would go
into its imports. That process does nothing but import: it joins no group, opens no connection and computes nothing, so
that a rank begins as a new process does.
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

_IMPORTED_ONCE = ["distributed.inference.encoding", "distributed.training.trainer", "tests.distributed.toy", "pytest"]
multiprocessing.get_context("forkserver").set_forkserver_preload(_IMPORTED_ONCE)


def run_ranks(world: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call function(World, *arguments) on `world` processes; raises what a rank raised."""
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
    os.environ.clear()  # what the process that ranks are forked from has is of an earlier moment
    os.environ.update(environment)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    function(World.current(torch.device("cpu")), *arguments)
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's end: on a busy machine one exit in some sixty aborted there, a thread of torch's
    # still running after the last line of Python.
    os._exit(0)
