"""Runs the tasks of a stage on a Ray cluster, with Ray Data; every node must see the input and the work folder."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from tqdm import tqdm

from configs.schema import ClusterConfig
from contracts.errors import InputError
from contracts.terminal import shows_bars

# Tasks that start after one has failed do nothing, so that none writes when the error is shown.
_STOP = "stop"


class RayExecutor:
    """Runs the tasks on as many workers as `cluster.num_workers` says, of the cluster that this process has joined.

    A task of a worker or node that is lost is done again by another.
    """

    def __init__(self, cluster: ClusterConfig, work: Path, is_verbose: bool = False) -> None:
        """Use the cluster that `distributed.ray.cluster.connect` has joined.

        Args:
            cluster: the number of workers and their cores.
            work: the work folder.
            is_verbose: whether Ray Data's own lines are shown.
        """
        self._cluster = cluster
        self._stop = work / _STOP
        self._is_verbose = is_verbose

    def run(self, function: Callable[[int], None], tasks: Sequence[int], label: str) -> None:
        """See `work.Executor`."""
        self._stop.unlink(missing_ok=True)
        rows = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=len(tasks))
        done = rows.map_batches(
            _run_task,
            fn_kwargs={"function": function, "stop": str(self._stop), "threads": int(self._cluster.cpus_per_worker)},
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.TaskPoolStrategy(size=min(self._cluster.most_workers, len(tasks))),
            num_cpus=self._cluster.cpus_per_worker,
        )
        failed: dict[str, Any] | None = None
        with _in_order(self._is_verbose):
            for row in tqdm(done.iter_rows(), label, len(tasks), unit="part", disable=not shows_bars(), leave=False):
                if row["error"] and failed is None:
                    failed = row
                    self._stop.touch()
        self._stop.unlink(missing_ok=True)
        if failed is not None:
            if failed["errno"]:
                raise OSError(int(failed["errno"]), str(failed["error"]))
            raise InputError(str(failed["error"]))


@contextmanager
def _in_order(is_verbose: bool) -> Iterator[None]:
    """Within this context, Ray Data gives results in the order of the tasks and prints nothing of its own."""
    context = ray.data.DataContext.get_current()
    before = context.execution_options.preserve_order, context.enable_progress_bars, context.print_on_execution_start
    logger = logging.getLogger("ray.data")
    level = logger.level
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not is_verbose:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars, context.print_on_execution_start = (
            before
        )
        logger.setLevel(level)


def _run_task(
    batch: dict[str, np.ndarray], *, function: Callable[[int], None], stop: str, threads: int
) -> dict[str, Any]:
    """Run one task. Errors of the user's are returned, because Ray would wrap them in a traceback."""
    text, number = "", 0
    if not os.path.exists(stop):
        pa.set_cpu_count(max(1, threads))
        try:
            function(int(batch["task"][0]))
        except InputError as error:
            text = str(error)
        except OSError as error:
            text, number = f"{error.strerror or error}", error.errno or errno.EIO
    return {"error": [text], "errno": [number]}
