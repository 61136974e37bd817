"""The watchdog names the rank that the others wait for, and does nothing to a rank that makes progress."""

import json
import os
import time

import pytest

from distributed.training.nonfinite_guard import norm_on_host
from distributed.watchdog import Beat, Watchdog, stall_report
from distributed.world import world_of_one
from tests.distributed.spawn import run_ranks


def waiting(step, **more):
    return Beat(**{"step": step, "line": "distributed/world.py:38 sum", "collective": "all_reduce", "silent": 60.0,
                   "time": 100.0} | more)  # fmt: skip


@pytest.mark.parametrize(
    ("culprit", "said"),
    [
        (
            waiting(41, collective="", line="data/sampling/batches.py:9 fetch"),
            "rank 1: step 41, data/sampling/batches.py:9 fetch <- the",
        ),
        (waiting(42, collective=""), "rank 1: step 42, distributed/world.py:38 sum <- the others wait"),
        (waiting(42, time=10.0), "rank 1: last heartbeat 90 s ago, at step 42"),
        (None, "rank 1: no heartbeat so far; its process or machine is lost <- the others wait"),
    ],
)
def test_the_rank_that_the_others_wait_for_is_named(culprit, said):
    report = stall_report([waiting(42), culprit, waiting(42)], 0, 60.0, 15.0)
    assert said in report
    assert report.count("<-") == 1
    assert "rank 2: step 42, distributed/world.py:38 sum, waiting in all_reduce" in report


@pytest.mark.long
def test_a_thread_that_moves_is_not_ended_and_a_thread_that_hangs_is(tmp_path, capfd):
    ended = []
    with world_of_one() as world, Watchdog(world=world, run=tmp_path, seconds=0.8, end=ended.append) as watchdog:
        for step in range(8):
            watchdog.alive(step)
            time.sleep(0.2)
        assert not ended
        while not ended:  # no call of `alive`, so this counts as a stall
            time.sleep(0.05)
    assert ended == [os.EX_TEMPFAIL]
    assert "step 7, tests/distributed/test_watchdog.py" in capfd.readouterr().err
    assert "test_a_thread_that_moves" in (tmp_path / "stalls/rank-0.txt").read_text()


def test_a_rank_that_waits_for_a_gpu_waits_for_the_others(tmp_path, capfd):
    """With NCCL, ranks wait for a hanging rank where the norm is copied to the host."""

    class NormOnBusyDevice:
        def __float__(self):
            while not ended:
                time.sleep(0.05)
            return 1.0

    ended = []
    with world_of_one() as world, Watchdog(world=world, run=tmp_path, seconds=0.4, end=ended.append) as watchdog:
        watchdog.alive(3)
        norm_on_host(NormOnBusyDevice())
    assert "waiting in norm_on_host" in capfd.readouterr().err


@pytest.mark.long
def test_a_thread_that_rests_is_not_ended(tmp_path):
    ended = []
    with world_of_one() as world, Watchdog(world=world, run=tmp_path, seconds=0.4, end=ended.append) as watchdog:
        watchdog.alive(1)
        with watchdog.resting():
            time.sleep(1.2)
        assert not ended
        while not ended:  # the rest is over
            time.sleep(0.05)


def one_rank_dawdles(world, folder):
    told = []
    with Watchdog(world=world, run=folder, seconds=3.0, end=told.append) as watchdog:
        for step in range(3):
            watchdog.alive(step)
            if step == 2 and world.rank == 1:
                while world.rank not in told and not (folder / "stalls/rank-0.txt").exists():
                    time.sleep(0.1)
            world.barrier()
    if world.rank == 0:
        (folder / "told.json").write_text(json.dumps(told))


def test_ranks_that_wait_in_a_collective_name_it_and_the_one_they_wait_for(tmp_path):
    run_ranks(2, one_rank_dawdles, tmp_path)
    report = (tmp_path / "stalls/rank-0.txt").read_text()
    assert "rank 0: step 2, distributed/world.py" in report
    assert "waiting in all_reduce" in report
    assert "rank 1: step 2, tests/distributed/test_watchdog.py" in report
    assert report.index("<- the others wait for it") > report.index("rank 1:")
    assert json.loads((tmp_path / "told.json").read_text()) == [os.EX_TEMPFAIL]
