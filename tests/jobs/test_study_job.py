"""jobs/study.py, run as a command on a real local Ray cluster."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from jobs import prepare_data, study

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]
BASE = """
graph_options: {num_centers: 4}
model: {dim: 8, num_heads: 2, max_length: 8}
training: {batch_size: 64, max_epochs: 1}
"""
STUDY = """
base: %s
title: Does the graph help?
seeds: [0]
variants: {mdsrec: {}, sasrec: {model.name: sasrec}}
baseline: sasrec
"""


@pytest.fixture
def arguments(tmp_path, shared_ray):  # noqa: ARG001
    made = CliRunner().invoke(
        prepare_data.main,
        ["--format", "synthetic", "--num-users", "100", "--num-items", "60", "--output", f"{tmp_path}/dataset"],
    )
    assert made.exit_code == 0, made.output
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "file.yaml").write_text(STUDY % (tmp_path / "base.yaml"))
    return [
        *("--study", str(tmp_path / "file.yaml"), "--output", str(tmp_path / "study")),
        *("--set", f"dataset={tmp_path}/dataset"),
    ]


def test_a_study_is_trained_kept_and_reported(tmp_path, arguments):
    done = CliRunner().invoke(study.main, [*arguments, "--parallel", "2"])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert f"wrote study {tmp_path}/study: results.md" in done.output
    results = json.loads((tmp_path / "study/results.json").read_text())
    assert [trial["variant"] for trial in results["trials"]] == ["mdsrec", "sasrec"]
    assert results["missing"] == []
    assert [(c["system"], c["difference"]["metric"]) for c in results["paired"]["comparisons"]] == [
        ("mdsrec", "recall@10"),
        ("mdsrec", "ndcg@10"),
    ]
    assert "2 of 2 trials are finished" in (tmp_path / "study/results.md").read_text()
    assert (tmp_path / "study/results.png").exists()
    assert len(list((tmp_path / "study/graphs").glob("*/manifest.json"))) == 1
    metrics = [json.loads(path.read_text()) for path in (tmp_path / "study/trials").glob("*/metrics.json")]
    assert [found["num_workers"] for found in metrics] == [1, 1]

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "study/trials").rglob("*")}
    again = CliRunner().invoke(study.main, arguments)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study/trials").rglob("*")} == written
    (tmp_path / "study/results.md").unlink()
    reported = CliRunner().invoke(study.main, [*arguments, "--report-only"])
    assert reported.exit_code == 0, reported.output
    assert (tmp_path / "study/results.md").exists()

    refused = CliRunner().invoke(study.main, [*arguments, "--set", "training.max_epochs=2"])
    assert refused.exit_code == 2
    assert "training.max_epochs=1 and the command says 2" in refused.output


def started(arguments, tmp_path):
    """Start the job in a process of its own, and wait until its first trial has written a checkpoint."""
    command = [sys.executable, str(Path(study.__file__)), *arguments]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    metrics = tmp_path / "study/trials/mdsrec-s0/metrics.jsonl"
    while not metrics.exists():
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.1)
    return job


def process_of(trial, job):
    """Return the process id of a trial's task. Ray renames a process to the task that it runs."""
    while job.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # the process has ended meanwhile
                if path.read_bytes().startswith(f"ray::{trial}".encode()):
                    return int(path.parent.name)
        time.sleep(0.05)
    raise AssertionError(job.communicate()[0])


def weights_of(folder):
    """Return every tensor of every checkpoint as bytes. (Whole files may differ in the order of their tensors.)"""
    return {
        (str(path.relative_to(folder)), name): tensor.numpy().tobytes()
        for path in sorted(folder.glob("trials/*/checkpoints/*/*.safetensors"))
        for name, tensor in load_file(path).items()
    }


@pytest.mark.slow
def test_a_study_that_is_told_to_stop_and_one_whose_trial_is_killed_end_as_a_calm_one(tmp_path, arguments):
    long = ["--set", "training.max_epochs=40", "--set", "training.patience=40", "--parallel", "1"]
    job = started([*arguments, *long], tmp_path)
    job.terminate()
    output, _ = job.communicate(timeout=120)
    assert job.returncode == os.EX_TEMPFAIL, output
    assert "stopped: trial mdsrec-s0; repeat the command to continue it" in output
    assert "stopped: trial sasrec-s0" in output
    assert not (tmp_path / "study/trials/sasrec-s0").exists(), "the trial never began"
    epochs = len((tmp_path / "study/trials/mdsrec-s0/metrics.jsonl").read_text().splitlines())

    job = started([*arguments, *long], tmp_path)
    os.kill(process_of("mdsrec-s0", job), signal.SIGKILL)
    output, _ = job.communicate(timeout=200)
    assert job.returncode == 0, output
    assert "2 of 2 trials are finished" in (tmp_path / "study/results.md").read_text()
    assert len((tmp_path / "study/trials/mdsrec-s0/metrics.jsonl").read_text().splitlines()) > epochs

    calm = [text.replace(str(tmp_path / "study"), str(tmp_path / "calm")) for text in arguments]
    done = CliRunner().invoke(study.main, [*calm, *long])
    assert done.exit_code == 0, done.output
    found, expected = weights_of(tmp_path / "study"), weights_of(tmp_path / "calm")
    assert found.keys() == expected.keys()
    assert [key for key in expected if found[key] != expected[key]] == []
