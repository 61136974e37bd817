"""Prepares a table with the engine and dies when asked to: python -m tests.data.engine.preparing ..."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.schema import ClusterConfig
from data.prepare.cold import ColdRule, with_cold
from data.prepare.engine.plan import Rules, Sizes
from data.prepare.engine.work import Executor
from data.prepare.engine.workplace import Workplace, prepared
from data.writing import DatasetContent, write_folder
from tests.data.engine.memory_source import MemorySource

SIZES = Sizes(bucket_bytes=500, segment_rows=400, range_rows=600, group_rows=100)


def source_of_random_rows(count: int = 3000) -> MemorySource:
    """Rows of which the k-core leaves some, after several rounds."""
    random = np.random.default_rng(1)
    texts = [pa.array(random.zipf(1.6, count) % most, pa.int64()).cast(pa.large_string()) for most in (700, 400)]
    table = pa.table({"user": texts[0], "item": texts[1], "timestamp": random.integers(0, 1000, count)})
    return MemorySource(table=table, rows_of_chunk=500, rows_of_block=200)


class TracedExecutor:
    """Any executor; each task leaves a line in a file when it starts and when it ends."""

    def __init__(self, inner: Executor, traces: Path, seconds: float = 0.0) -> None:
        self.inner = inner
        self.traces = traces
        self.seconds = seconds

    def run(self, function: Callable[[int], None], tasks: Sequence[int], label: str) -> None:
        assert isinstance(function, partial)
        *where, task = function.args  # Traces are left by tasks that are not done yet.
        inner = partial(traced, task, str(self.traces), label, self.seconds)
        self.inner.run(partial(function.func, *where, inner), tasks, label)


def traced(function: Callable[[int], None], traces: str, label: str, seconds: float, task: int) -> None:
    """Run a task between two lines."""
    _append(traces, f"started {label} {task} {os.getpid()}")
    time.sleep(seconds)
    function(task)
    _append(traces, f"ended {label} {task} {os.getpid()}")


def _append(traces: str, line: str) -> None:
    file = os.open(traces, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


class DyingExecutor:
    """Runs tasks in this process, and kills it with SIGKILL before the task of a given number is done."""

    def __init__(self, left: int) -> None:
        self.left = left

    def run(self, function: Callable[[int], None], tasks: Sequence[int], label: str) -> None:
        del label
        for task in tasks:
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            function(task)


HELD_OUT = Rules(cold=ColdRule(share=0.2))  # some items are held out of training


def write_prepared(folder: Path, place: Workplace, rules: Rules = Rules()) -> None:  # noqa: B008 - it is frozen
    """Prepare the random rows and write a dataset."""
    with prepared(source_of_random_rows(), rules, place) as found:
        content = DatasetContent(
            sequences=found.sequences,
            user_source_ids=found.user_ids,
            item_source_ids=found.item_ids,
            split=found.split,
            dropped=found.dropped,
            item_columns=None if found.cold is None else with_cold(None, found.cold),
        )
        write_folder(str(folder), content, overwrite=False)


def main(address: str, root: str, seconds: str) -> None:
    """Prepare on a cluster, leaving traces."""
    from data.prepare.engine.ray_stages import RayExecutor
    from distributed.ray.cluster import connect

    folder = Path(root)
    cluster = ClusterConfig(address=address, num_workers=2)
    connect(cluster)
    executor = TracedExecutor(RayExecutor(cluster, folder / "work"), folder / "traces", float(seconds))
    work = Workplace(folder=folder / "work", executor=lambda _: _entered(executor), sizes=SIZES)
    write_prepared(folder / "dataset", work)


def _entered(executor: Executor):  # type: ignore[no-untyped-def]
    import contextlib

    return contextlib.nullcontext(executor)


if __name__ == "__main__":
    main(*sys.argv[1:])
