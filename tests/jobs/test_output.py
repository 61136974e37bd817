"""A job prints only lines of its own, and a progress bar only on a terminal."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "model.name=sasrec",
    "model.dim=8",
    "model.num_heads=2",
    "model.max_length=8",
    "training.max_epochs=2",
    "training.batch_size=64",
]
# All lines that a graph build and a training may print. No line of Ray or another library matches these.
OURS = [
    r"graph: \S+, .*",
    r"wrote graph /\S+: 70 items, [\d,]+ co-occurrences, image \(.*\), text \(.*\)",
    r"running with 2 workers on CPU: Ray is running already",
    r"Where the rows of the item table are, by rank \(also in plan\.txt\):",
    r"module: table\.collection",
    r" param  \| sharding type \| compute kernel \| ranks ",
    r"[- |]+",
    r"item_id \| data_parallel \| dense          \| \[0, 1\]",
    r"table optimizer: adam",
    r"epoch \d: loss \d\.\d{4}, valid ndcg@10 0\.\d{4}( \(best\))?, \d+\.\d s, [\d,]+ targets/s",
    r"training ends after epoch 2, step \d+: training\.max_epochs=2; best: epoch \d, valid ndcg@10 0\.\d{4}",
    r" +recall@10 +recall@20 +recall@50 +ndcg@10 +ndcg@20 +ndcg@50",
    r"(valid|test ) ( +\d\.\d{4}){6}",
    r"Ranking: items that the user already has are kept \(evaluation\.mask_history\), .*",
    r"Share of targets that are already in the user's history: valid \d+\.\d%, test \d+\.\d%\..*",
    r"wrote run /\S+ \(sasrec\): checkpoints, config\.yaml, metrics\.json, metrics\.jsonl, plan\.txt, "
    r"ranks-test\.parquet, ranks-valid\.parquet, tensorboard",
]
# Both jobs run in one process, so that Ray starts once, as in the demo.
TWO_JOBS = """
import json, sys
from jobs import build_graph, train
for job, arguments in zip((build_graph, train), json.loads(sys.argv[1])):
    job.main.main(args=arguments, standalone_mode=False)
"""


def environment():
    """Return the environment of a user's shell, which names no cluster and is not a CI build's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "CI"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}


def sets(*settings):
    return [part for setting in settings for part in ("--set", setting)]


def training(folders, run, *settings):
    stated = sets(f"dataset={folders}/dataset", f"run={run}", *SMALL, "cluster.num_workers=1", *settings)
    return [sys.executable, str(ROOT / "jobs/train.py"), *stated]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_through_ray_every_line_is_ours(folders, tmp_path):
    data, graph = f"dataset={folders}/dataset", f"graph={tmp_path}/graph"
    built = sets(data, graph, "graph_options.num_centers=4")
    trained = sets(data, f"run={tmp_path}/run", "cluster.num_workers=2", *SMALL)
    command = [sys.executable, "-c", TWO_JOBS, json.dumps([built, trained])]
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(command, env=environment(), stdout=log, stderr=log, timeout=280, check=False)
    said = (tmp_path / "log").read_bytes().decode()
    assert done.returncode == 0, said
    foreign = [line for line in said.split("\n")[:-1] if not any(re.fullmatch(ours, line) for ours in OURS)]
    assert foreign == []
    assert said.count("\nepoch ") == 2
    assert said.count("Share of targets that are already") == 1


def on_terminal(command):
    """Run a command; return its standard output, and the standard error that a terminal of 100 columns received."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (30, 100))
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=end, text=True)
    os.close(end)
    received = b""
    while True:
        try:
            received += os.read(terminal, 1 << 16)
        except OSError:  # the process has closed its end
            break
    os.close(terminal)
    output = process.stdout.read()
    assert process.wait(60) == 0, received
    return output, received.decode()


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_terminal_gets_a_bar_with_rate_and_time_left(folders, tmp_path):
    output, drawn = on_terminal(training(folders, tmp_path / "run"))
    assert re.search(r"\repoch 1: +\d+%\|.*\| \d+/\d+ \[\d\d:\d\d<\S+, .*step/s\]", drawn)
    assert re.search(r"\rranking valid: +\d+%\|", drawn)
    assert "\r" not in output
    assert output.count("\nepoch ") == 2


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_reader_who_leaves_ends_nothing_and_a_file_gets_no_bar(folders, tmp_path):
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            training(folders, tmp_path / "run"), env=environment(), stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0
    assert first.startswith(b"running in this process, without Ray")
    assert (tmp_path / "errors").read_bytes() == b""
    assert (tmp_path / "run/metrics.json").exists()
