"""A preparation that was killed continues, and ends with the bytes of an undisturbed one. So does one on Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import InputError
from data.prepare.engine.executor import SerialExecutor
from data.prepare.engine.plan import Rules
from data.prepare.engine.workplace import Workplace, prepared
from tests.data.engine.memory_source import MemorySource
from tests.data.engine.preparing import (
    HELD_OUT,
    SIZES,
    DyingExecutor,
    TracedExecutor,
    source_of_random_rows,
    write_prepared,
)
from tests.fingerprints import Fingerprint, fingerprints

_ROOT = Path(__file__).resolve().parents[3]
_PATIENCE_SECONDS = 120


def place(folder: Path, executor: Any) -> Workplace:
    return Workplace(folder=folder / "work", executor=lambda _: nullcontext(executor), sizes=SIZES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Fingerprint], list[str]]:
    """The files of the dataset, and the tasks that made them, in order."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_prepared(root / "dataset", place(root, TracedExecutor(SerialExecutor(), root / "traces")))
    assert not (root / "work").exists()
    return fingerprints(root / "dataset"), tasks(root / "traces", "ended")


def tasks(traces: Path, state: str) -> list[str]:
    lines = traces.read_text().splitlines() if traces.exists() else []
    return [" ".join(line.split()[1:-1]) for line in lines if line.startswith(state)]


def _die(folder: str, left: int, rules: Rules) -> None:
    write_prepared(Path(folder) / "dataset", place(Path(folder), DyingExecutor(left)), rules)


@pytest.mark.long
@pytest.mark.parametrize("rules", [Rules(), HELD_OUT], ids=["all items", "some held out"])
def test_killed_in_every_stage(rules: Rules, tmp_path: Path) -> None:
    """The process is killed again and again, each time after a few more tasks."""
    executor = TracedExecutor(SerialExecutor(), tmp_path / "traces")
    write_prepared(tmp_path / "undisturbed", place(tmp_path, executor), rules)
    files, expected = fingerprints(tmp_path / "undisturbed"), tasks(tmp_path / "traces", "ended")
    kills = 0
    while True:
        # Forked, so that nothing is imported again.
        process = multiprocessing.get_context("fork").Process(target=_die, args=(str(tmp_path), 7, rules))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "dataset").exists()
        kills += 1
    assert kills == (len(expected) - 1) // 7  # no task was done twice
    assert fingerprints(tmp_path / "dataset") == files
    assert not (tmp_path / "work").exists()


def test_other_rules_start_afresh(undisturbed: tuple[dict[str, Fingerprint], list[str]], tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die, args=(str(tmp_path), 40, Rules()))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    executor = TracedExecutor(SerialExecutor(), tmp_path / "traces")
    with prepared(source_of_random_rows(), Rules(min_user_interactions=2), place(tmp_path, executor)):
        pass
    assert tasks(tmp_path / "traces", "ended")[0] == undisturbed[1][0]  # from the first task on


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    from configs.schema import ClusterConfig
    from data.prepare.engine.ray_stages import RayExecutor

    executor = RayExecutor(ClusterConfig(num_workers=2), tmp_path / "work")
    write_prepared(tmp_path / "dataset", place(tmp_path, executor), HELD_OUT)
    write_prepared(tmp_path / "here", place(tmp_path, SerialExecutor()), HELD_OUT)
    assert fingerprints(tmp_path / "dataset") == fingerprints(tmp_path / "here")
    broken = MemorySource(table=source_of_random_rows().table, rows_of_chunk=500, broken=2)
    with pytest.raises(InputError) as raised, prepared(broken, Rules(), place(tmp_path, executor)):
        pass
    assert str(raised.value) == "memory: chunk 2 is broken; restore it"
    assert not (tmp_path / "work").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_and_a_node_and_the_driver_are_killed(
    two_nodes: Any,
    undisturbed: tuple[dict[str, Fingerprint], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    traces = tmp_path / "traces"
    driver = _start(two_nodes, tmp_path)
    _wait_for(driver, traces, 4)
    os.kill(int(traces.read_text().splitlines()[-1].split()[-1]), signal.SIGKILL)
    _wait_for(driver, traces, 12)
    two_nodes.remove_node(two_nodes.list_all_nodes()[-1], allow_graceful=False)
    _wait_for(driver, traces, 20)
    driver.kill()
    driver.wait()
    time.sleep(3)  # its workers go too; nothing of it writes any more
    before = tasks(traces, "ended")
    assert _start(two_nodes, tmp_path).wait(_PATIENCE_SECONDS) == 0, (tmp_path / "log").read_text()[-3000:]
    assert fingerprints(tmp_path / "dataset") == undisturbed[0]
    ended = tasks(traces, "ended")
    assert not Counter(undisturbed[1]) - Counter(ended)
    # The worker, the node's and the driver's: at most five tasks were struck, and what had ended was not done again.
    assert len(tasks(traces, "started")) <= len(undisturbed[1]) + 5
    assert (Counter(ended) - Counter(undisturbed[1])).total() <= 1
    assert 20 <= len(before) + 5 < len(undisturbed[1])


def _start(cluster: Any, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.data.engine.preparing", cluster.address, str(folder), "0.2"]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("ab"))


def _wait_for(driver: subprocess.Popen[bytes], traces: Path, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(tasks(traces, "started")) < count:
        assert driver.poll() is None, "it ended before it was struck"
        assert time.monotonic() < deadline
        time.sleep(0.01)
