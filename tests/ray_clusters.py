"""The Ray clusters of the tests. Starting a cluster takes many seconds, so tests share clusters where possible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def _ray_until_the_end() -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def shared_ray(_ray_until_the_end: None) -> None:
    """A local Ray cluster for two workers. It keeps running for the next test that shares it."""
    from configs.schema import ClusterConfig
    from distributed.ray.cluster import connect

    connect(ClusterConfig(address="local", num_workers=2))


@pytest.fixture
def first_ray(_ray_until_the_end: None) -> None:
    """No Ray cluster is running. The test starts one, as a command does, and the tests that share one use it next."""
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def two_gpus(_ray_until_the_end: None) -> None:
    """A local Ray cluster that is told that it has two GPUs. It keeps running for the next test that shares it."""
    import ray

    if ray.is_initialized() and ray.cluster_resources().get("GPU") == 2:
        return
    ray.shutdown()
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """No Ray cluster is running before or after the module, because its cluster has settings of its own."""
    import ray

    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def _nodes() -> Iterator[Any]:
    from benchmarks.faults import cluster_of_two

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "")  # cluster_of_two changes it; the patch restores the old value
        with cluster_of_two() as cluster:
            yield cluster


@pytest.fixture
def two_nodes(_nodes: Any) -> Any:
    """A Ray cluster of a head node without cores and two nodes with one core each.

    A node that an earlier test removed is replaced. Processes connect by the cluster's `address`; this process does
    not connect.
    """
    while len(_nodes.worker_nodes) < 2:
        _nodes.add_node(num_cpus=1)
    _nodes.wait_for_nodes()
    return _nodes


def in_order(items: list[pytest.Item]) -> None:
    """Sort tests so that those that share a cluster are next to one another, at the end; each cluster starts once."""
    clusters = ("first_ray", "shared_ray", "two_gpus", "own_ray", "two_nodes")

    def group(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return max((number for number, cluster in enumerate(clusters, 1) if cluster in names), default=0)

    items.sort(key=group)
