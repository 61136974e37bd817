"""A driver whose local Ray is killed ends too, and prints how to continue (with a real Ray: docs/log.md)."""

import os
import subprocess
import sys

import pytest

from distributed.checkpoints.run_storage import RunStorage
from distributed.ray import cluster as ray_cluster
from distributed.ray.launch import end_if_ray_is_lost


@pytest.fixture
def raylet(monkeypatch):
    """A process that stands for the raylet of this process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        monkeypatch.setattr(ray_cluster, "_started", {"raylet": process})
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("index", "status", "move"),
    [(True, os.EX_TEMPFAIL, "continues from its latest checkpoint"), (False, 1, "starts from the beginning")],
)
def test_the_end_of_a_ray_process_ends_the_driver(tmp_path, raylet, capfd, index, status, move):
    ended = []
    if index:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/index.json").write_text("{}")
    end_if_ray_is_lost(RunStorage(str(tmp_path)), 0.0, ended.append)
    assert ended == []
    raylet.kill()
    for _ in range(2):  # first while the process ends, then after it has ended
        end_if_ray_is_lost(RunStorage(str(tmp_path)), 60.0, ended.append)
        raylet.wait()
    assert ended == [status, status]
    line = f"error: Ray's process raylet was ended from outside; the same command {move}\n"
    assert capfd.readouterr().err == line * 2


def test_ray_processes_leave_the_process_group_and_are_watched(monkeypatch, tmp_path):
    for name in ("raylet", "monitor"):
        (tmp_path / name).symlink_to("/bin/sleep")
    monkeypatch.setattr(ray_cluster, "_started", {})
    before = ray_cluster.services.ConsolePopen
    with ray_cluster._own_process_groups():
        processes = [ray_cluster.services.ConsolePopen([str(tmp_path / n), "60"]) for n in ("raylet", "monitor")]
    assert ray_cluster.services.ConsolePopen is before
    try:
        assert list(ray_cluster._started) == ["raylet"]
        assert all(os.getpgid(process.pid) == process.pid != os.getpgrp() for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
