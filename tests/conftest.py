"""Settings and fixtures of all tests: one thread per process, and a small dataset with its graph to read."""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch

from tests import marker_guard, ray_clusters
from tests.slow_tests import COLLECTED

pytest_plugins = ["tests.ray_clusters"]

# Tests run several ranks at a time, which would compete for the cores if each had several threads.
torch.set_num_threads(1)
marker_guard.watch()

# Without a GPU, Triton's kernels run in its interpreter. Triton asks for this variable when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude imported objects from garbage collection. There are a million, and each collection would scan them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_setupnodes() -> None:
    """Set the environment of the processes that run tests in parallel, and of the commands that tests start."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # not 1, because tests of Numba's parallel loops need two threads


@pytest.hookimpl(tryfirst=True)  # before pytest selects by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker_guard.mark_by_what_it_calls(item)
        item.config.stash.setdefault(COLLECTED, []).append(item)
    ray_clusters.in_order(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with marker_guard.running(item):
        return (yield)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a synthetic dataset (`dataset`) and its graph (`graph`), shared by all tests that only read them.

    Tests write to `tmp_path` instead. If a test has changed this folder, the session ends with an error.
    """
    from configs.loading import load_config
    from graph_builder.build import build_graph
    from graph_builder.executor import SerialExecutor
    from jobs.prepare_data import prepare
    from tests.fingerprints import differing, fingerprints

    root = tmp_path_factory.mktemp("folders")
    dataset = prepare("synthetic", str(root / "dataset"), num_users=120, num_items=70, seed=3)
    options = load_config(None, ["graph_options.num_centers=4"]).graph_options
    build_graph(dataset, str(root / "graph"), options, 0, SerialExecutor())
    before = fingerprints(root)
    yield root
    changed = differing(before, fingerprints(root))
    assert not changed, f"a test has changed the inputs that all tests share: {', '.join(changed)}"


@pytest.fixture(scope="session")
def two_domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two small datasets and their graphs: `A` with `GA`, and `B`, which has no images, with `GB`.

    `one` and `Gone` hold the same as one dataset and one graph. Tests only read them.
    """
    from graph_builder.graph import Graph
    from tests.data.two_datasets import make_two, write_as_one, write_graph_as_one
    from tests.fingerprints import differing, fingerprints

    root = tmp_path_factory.mktemp("domains")
    one = write_as_one(root / "one", make_two(root))
    write_graph_as_one(root / "Gone", one, [Graph.open(root / name) for name in ("GA", "GB")])
    before = fingerprints(root)
    yield root
    changed = differing(before, fingerprints(root))
    assert not changed, f"a test has changed the inputs that all tests share: {', '.join(changed)}"
