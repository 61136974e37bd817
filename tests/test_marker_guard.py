"""A test without the marker `ray` or `ranks` cannot start Ray or spawn processes."""

import multiprocessing
import subprocess
import sys

import pytest

from tests.distributed.spawn import run_ranks


@pytest.mark.parametrize(
    "command", [["/some/where/gcs_server", "--port=0"], [sys.executable, "-m", "ray.scripts.scripts", "start"]]
)
def test_ray_does_not_start_in_a_test_without_its_marker(command):
    with pytest.raises(pytest.fail.Exception, match=r"starts Ray: put @pytest.mark.ray above the test"):
        subprocess.Popen(command)


def test_processes_are_not_spawned_in_a_test_without_its_marker():
    process = multiprocessing.get_context("spawn").Process(target=print)
    with pytest.raises(pytest.fail.Exception, match=r"spawns processes: put @pytest.mark.ranks above the test"):
        process.start()


def test_other_commands_need_no_marker():
    assert subprocess.run([sys.executable, "-c", "print('gcs_server')"], capture_output=True).returncode == 0


def test_a_test_that_calls_run_ranks_has_the_marker(request):
    marked = request.node.get_closest_marker("ranks")
    assert marked is not None
    if marked is None:
        run_ranks(1, print)


@pytest.mark.ray
def test_with_the_marker_what_starts_ray_is_started():
    with pytest.raises(FileNotFoundError):
        subprocess.Popen(["/not/there/gcs_server"])
