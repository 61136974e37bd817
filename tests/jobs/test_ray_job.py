"""`ray job submit` works on a real local cluster with token authentication; cluster.yaml fits Ray's schema."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from jobs import prepare_data

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a head node with a dashboard and a token; yield its address and the environment of a client."""
    folder = tmp_path_factory.mktemp("cluster")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    dashboard, port = free_port(), free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    # A folder of its own, so that no other Ray joins this cluster. Its name is short, because sockets are in it.
    scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environment["RAY_TMPDIR"] = scratch
    # As in an activated environment, so that "python" in a job is this Python.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    start = [
        *RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "start.log").open("w") as log:
        head = subprocess.Popen(start, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for_agent((address, environment))
        yield address, environment
    finally:
        # `ray stop` would end every Ray on the machine, also the developer's.
        # `--block` keeps the node's processes in this process group, but it ignores SIGTERM.
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(30)
        shutil.rmtree(scratch, ignore_errors=True)


def wait_for_agent(cluster):
    """Wait until the node's agent accepts jobs, some seconds after `ray start` returns."""
    deadline = time.monotonic() + 120
    while (tried := submit(cluster, "true")).returncode:
        assert time.monotonic() < deadline, tried.stdout[-2000:] + tried.stderr[-2000:]
        time.sleep(2)


def submit(cluster, *command):
    address, environment = cluster
    line = [*RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--", *command]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_as_a_submitted_job(cluster, tmp_path):
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    made = CliRunner().invoke(
        prepare_data.main,
        ["--format", "synthetic", "--num-users", "100", "--num-items", "50", "--output", str(dataset)],
    )
    assert made.exit_code == 0, made.output
    train = [
        "python",
        "jobs/train.py",
        "--set",
        f"dataset={dataset}",
        "--set",
        "model.name=sasrec",
        "--set",
        "model.dim=8",
    ]
    train += ["--set", "training.max_epochs=1", "--set", "model.num_heads=2"]

    done = submit(cluster, *train, "--set", f"run={run}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert f"wrote run {run}" in done.stdout
    assert "\nepoch 1: loss " in done.stdout
    assert not re.search(r"core_worker|pid=|process group", done.stdout + done.stderr)
    assert (run / "metrics.json").exists()

    refused = submit(cluster, *train, "--set", "run=my-run")
    assert refused.returncode != 0
    assert "error: run=my-run: a relative path under `ray job submit`" in refused.stdout + refused.stderr

    address, environment = cluster
    stranger = {**environment, "RAY_AUTH_MODE": "disabled"}
    denied = submit((address, stranger), "python", "-c", "print('inside')")
    assert denied.returncode != 0
    assert "inside" not in denied.stdout


def test_the_cluster_file_fits_rays_schema(tmp_path, monkeypatch):
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.setenv("HOME", str(tmp_path))
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="unheard_of"):
        validate_config(prepare_config({**config, "unheard_of": 1}))
    images = {node["node_config"]["ImageId"] for node in config["available_node_types"].values()}
    assert len(images) == 1
    assert "latest_dlami" not in images, "its glibc is too old for PyTorch"
    assert any("RAY_AUTH_MODE=token" in line for line in config["head_start_ray_commands"])
