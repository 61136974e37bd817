"""Kill -9 of a worker, of a node and of the driver, in the middle of a build on a cluster of two nodes.

The finished graph has the bytes of an undisturbed one, and what was finished is not done again: every task
leaves a trace of its start and of its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from tests.graph_builder.fault_driver import FAULT_OPTIONS, NUM_ITEMS, NUM_USERS, TracedExecutor
from tests.graph_builder.small_dataset import content, make_dataset

pytestmark = pytest.mark.ray
_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], Counter[str]]:
    """The dataset, the files of its graph, and how often each task has to run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    dataset = make_dataset(folder / "dataset", num_items=NUM_ITEMS, num_users=NUM_USERS)
    (folder / "traces").mkdir()
    executor = TracedExecutor(SerialExecutor(), str(folder / "traces"))
    build_graph(dataset, folder / "graph", FAULT_OPTIONS, 0, executor, 400)
    return folder / "dataset", content(folder / "graph"), tasks(folder / "traces", "done")


@pytest.fixture
def cluster(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    return two_nodes


def tasks(traces: Path, state: str) -> Counter[str]:
    """How often each task (label and block) was started, whether it ended or not ("any"), or ended ("done")."""
    suffixes = (".done",) if state == "done" else (".done", ".started")
    return Counter(path.name.rsplit("--", 1)[0] for path in traces.iterdir() if path.suffix in suffixes)


def start_driver(cluster: Any, dataset: Path, folder: Path) -> subprocess.Popen[bytes]:
    folder.joinpath("traces").mkdir(exist_ok=True)
    arguments = [cluster.address, dataset, folder / "graph", folder / "traces"]
    command = [sys.executable, "-m", "tests.graph_builder.fault_driver", *map(str, arguments)]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("ab"))


def wait_for_blocks(driver: subprocess.Popen[bytes], traces: Path, count: int) -> None:
    """Until so many blocks of the first triangle are done."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while sum(name.startswith("neighbors-image") for name in tasks(traces, "done")) < count:
        assert driver.poll() is None, "the build ended before it was struck"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish(driver: subprocess.Popen[bytes], folder: Path) -> None:
    assert driver.wait(_PATIENCE_SECONDS) == 0, (folder / "log").read_text()[-3000:]


def check(folder: Path, undisturbed: tuple[Path, dict[str, bytes], Counter[str]], struck: int) -> None:
    """Same bytes; and of all tasks only those that were struck ran twice."""
    _, files, expected = undisturbed
    Graph.open(folder / "graph")
    assert content(folder / "graph") == files
    # The features are read again by every call; they are checked before anything else is believed.
    started = Counter({name: count for name, count in tasks(folder / "traces", "any").items() if "reading" not in name})
    wanted = Counter({name: count for name, count in expected.items() if "reading" not in name})
    assert started.keys() == wanted.keys()
    assert (started - wanted).total() <= struck
    assert not wanted - started


@pytest.mark.slow
def test_worker_and_node_are_killed(
    cluster: Any, undisturbed: tuple[Path, dict[str, bytes], Counter[str]], tmp_path: Path
) -> None:
    driver = start_driver(cluster, undisturbed[0], tmp_path)
    wait_for_blocks(driver, tmp_path / "traces", 5)
    killed = None
    while killed is None:
        for path in (tmp_path / "traces").glob("neighbors-image*.started"):
            try:
                killed = int(path.read_text())
                os.kill(killed, signal.SIGKILL)
                break
            except (FileNotFoundError, ProcessLookupError, ValueError):
                killed = None
    wait_for_blocks(driver, tmp_path / "traces", 15)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    finish(driver, tmp_path)
    check(tmp_path, undisturbed, struck=2)


@pytest.mark.slow
def test_driver_is_killed(
    cluster: Any, undisturbed: tuple[Path, dict[str, bytes], Counter[str]], tmp_path: Path
) -> None:
    driver = start_driver(cluster, undisturbed[0], tmp_path)
    wait_for_blocks(driver, tmp_path / "traces", 15)
    driver.kill()
    driver.wait()
    time.sleep(3)  # its workers go too; nothing of it writes any more
    before = tasks(tmp_path / "traces", "done")
    assert sum(name.startswith("neighbors-image") for name in before) < 55
    finish(start_driver(cluster, undisturbed[0], tmp_path), tmp_path)
    check(tmp_path, undisturbed, struck=2)
    again = {name for name, count in tasks(tmp_path / "traces", "any").items() if count > undisturbed[2][name]}
    assert not again & before.keys() - {name for name in before if "reading" in name}
