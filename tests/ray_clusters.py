"""The Ray clusters of the tests. Starting one takes many seconds, so tests share one wherever they can."""

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
    """A local Ray of this process for two workers, which stays up for the next test that shares it."""
    from configs.schema import ClusterConfig
    from distributed.ray.cluster import connect

    connect(ClusterConfig(address="local", num_workers=2))


@pytest.fixture
def first_ray(_ray_until_the_end: None) -> None:
    """No Ray is up: the test starts one as a command does, and leaves it to the tests that share one."""
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """No Ray is up before the module and none after it: its Ray has settings that no other test wants."""
    import ray

    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def _nodes() -> Iterator[Any]:
    from benchmarks.faults import cluster_of_two

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "")  # cluster_of_two sets it: so it is taken back
        with cluster_of_two() as cluster:
            yield cluster


@pytest.fixture
def two_nodes(_nodes: Any) -> Any:
    """A Ray cluster of a head without cores and two nodes of one core each; a node that a test took away is replaced.

    Processes join it by its `address`. This process does not.
    """
    while len(_nodes.worker_nodes) < 2:
        _nodes.add_node(num_cpus=1)
    _nodes.wait_for_nodes()
    return _nodes


def in_order(items: list[pytest.Item]) -> None:
    """Put tests that share a cluster next to one another, at the end, so that each cluster starts once."""
    clusters = ("first_ray", "shared_ray", "own_ray", "two_nodes")

    def group(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return max((number for number, cluster in enumerate(clusters, 1) if cluster in names), default=0)

    items.sort(key=group)
