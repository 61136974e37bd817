"""Nodes whose object store, disk or memory is full: a real Ray that is told so."""

import time
from contextlib import contextmanager

import numpy as np
import pytest
import ray

from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder.ray_tasks import RayExecutor

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("own_ray")]


@contextmanager
def node(**system):
    ray.init(
        address="local",
        num_cpus=1,
        object_store_memory=80_000_000,
        include_dashboard=False,
        log_to_driver=False,
        _system_config=system,
    )
    try:
        yield RayExecutor(GraphConfig())
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_full_object_store_is_said() -> None:
    # Ray takes a disk for full above this share of it.
    with node(local_fs_capacity_threshold=1e-6, local_fs_monitor_interval_ms=10) as executor:
        assert [len(found) for found in executor.run_blocks(np.ones, [3, 5])] == [3, 5]
        with pytest.raises(InputError, match=r"object store of a node is full .*free space there, or start Ray with"):
            list(executor.run_blocks(np.ones, [100_000_000]))
        # It is usable afterwards.
        assert [len(found) for found in executor.run_blocks(np.ones, [4])] == [4]


def test_a_full_memory_is_said() -> None:
    # Ray takes memory for full above this share of it, and kills what runs.
    with (
        node(memory_usage_threshold=0.001, memory_monitor_refresh_ms=50, task_oom_retries=1) as executor,
        pytest.raises(InputError, match=r"memory is too small for the tasks.*raise graph_options.cpus_per_task"),
    ):
        list(executor.run_blocks(time.sleep, [60]))
