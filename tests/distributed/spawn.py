"""Run a function on real ranks over gloo; a failing rank's own traceback is what the test shows."""

from __future__ import annotations

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


def run_ranks(world: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call function(World, *arguments) on `world` processes; raises what a rank raised."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, args=(world, f"file://{Path(folder) / 'store'}", function, arguments), nprocs=world)


def _rank(rank: int, world: int, store: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
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
