"""Builds a graph on a cluster, leaving a trace of every task: python -m tests.graph_builder.fault_driver ..."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from graph_builder.build import build_graph
from tests.graph_builder.small_dataset import OPTIONS, make_dataset

NUM_ITEMS, NUM_USERS = 480, 200
FAULT_OPTIONS = OPTIONS.model_copy(update={"rows_per_task": 48, "block_rows": 48, "kmeans_iterations": 3})
# So that something is running whenever a test strikes.
_SECONDS_PER_TASK = 0.05


def traced(function: Callable[[Any], Any], label: str, traces: str, block: Any) -> Any:
    """Runs a task between two files: <label>--<block>--<unique>.started holds the pid, and .done follows."""
    name = f"{label}--{str(block).replace(' ', '')}--{uuid.uuid4().hex}"
    started = Path(traces) / f"{name}.started"
    started.write_text(str(os.getpid()))
    time.sleep(_SECONDS_PER_TASK)
    result = function(block)
    started.rename(started.with_suffix(".done"))
    return result


class TracedExecutor:
    """Any executor, with a trace of its labelled blocks."""

    def __init__(self, inner: Any, traces: str) -> None:
        self.inner = inner
        self.traces = traces
        self.gpus = inner.gpus
        self.seconds = inner.seconds

    def run_blocks(
        self, function: Callable[[Any], Any], blocks: Sequence[Any], *, label: str | None = None, on_gpu: bool = False
    ) -> Iterator[Any]:
        if label:
            function = functools.partial(traced, function, label, self.traces)
        return self.inner.run_blocks(function, blocks, label=label, on_gpu=on_gpu)

    def release(self) -> None:
        self.inner.release()


def main(address: str, dataset: str, graph: str, traces: str) -> None:
    """Joins the cluster and builds."""
    import ray

    from graph_builder.ray_tasks import RayExecutor

    ray.init(address=address, logging_level=logging.WARNING)
    source = make_dataset(Path(dataset), num_items=NUM_ITEMS, num_users=NUM_USERS, keep=True)
    build_graph(source, graph, FAULT_OPTIONS, 0, TracedExecutor(RayExecutor(FAULT_OPTIONS), traces), 400)


if __name__ == "__main__":
    main(*sys.argv[1:])
