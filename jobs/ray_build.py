"""Where `jobs/build_graph.py` runs its blocks: on a Ray cluster. This module is imported only if it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from configs.schema import Config
from contracts.terminal import shows_bars
from distributed.ray.cluster import check_seen_by_all_nodes, cluster_in_words, connect
from distributed.ray.relay import naming_ray_logs
from graph_builder.ray_tasks import RayExecutor

__all__ = ["check_seen_by_all_nodes", "on_ray"]


@contextmanager
def on_ray(config: Config) -> Iterator[RayExecutor]:
    """Connect to the cluster of the config, or start one, and yield an executor on it.

    Raises:
        InputError: no cluster can be joined, or its machines are too small for a task.
    """
    if shows_bars():  # someone who watches should know what the first seconds are for
        print(f"building the graph with Ray: {cluster_in_words(config.cluster)}", flush=True)
    connect(config.cluster)
    executor = RayExecutor(config.graph_options)
    with naming_ray_logs():
        yield executor
