"""With one worker a job runs in this process, without Ray, and writes the same digits and files as a Ray worker."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from distributed import launch as workers
from distributed import rank_task
from distributed import stop_agreement as interruption
from distributed.ray import launch as ray_train
from distributed.stop_agreement import Interruption
from distributed.training import trainer
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs import recommend, train
from jobs.prepare_data import prepare
from tests.distributed.runs import config_of

SMALL = [
    "model.dim=8", "model.num_heads=2", "model.max_length=8", "model.dropout=0.2", "training.batch_size=64",
    "training.learning_rate=0.01", "training.max_epochs=2", "evaluation.bootstrap_samples=10",
]  # fmt: skip
ALONE = ["cluster.num_workers=1"]
THROUGH_RAY = [*ALONE, "cluster.address=local"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in-process")
    dataset = prepare("synthetic", str(folder / "dataset"), num_users=120, num_items=70, seed=3)
    options = config_of(folder, folder / "none", "mdsrec", "graph_options.num_centers=4").graph_options
    build_graph(dataset, str(folder / "graph"), options, 0, SerialExecutor())
    return folder


@pytest.fixture
def no_ray(monkeypatch):
    """Set no cluster address, and make every use of Ray fail."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", forbidden)
    monkeypatch.setattr(ray_train, "run_on_ray", forbidden)


def forbidden(*_arguments, **_options):
    raise AssertionError("Ray is not needed here")


def command(job, *arguments, status=0):
    result = CliRunner().invoke(job.main, [str(part) for part in arguments])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def training(root, run, *settings, status=0):
    stated = [f"dataset={root}/dataset", f"graph={root}/graph", f"run={root}/{run}", *SMALL, *settings]
    return command(train, *(part for setting in stated for part in ("--set", setting)), status=status)


def results(run):
    """Return a run's results that depend neither on time nor on the process."""
    metrics = json.loads((run / "metrics.json").read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    index = json.loads((run / "checkpoints/index.json").read_text())
    tensors = {}
    for file in sorted((run / f"checkpoints/step-{index['latest']:08d}").glob("*.safetensors")):
        tensors |= {(file.name, name): value.tolist() for name, value in load_file(file).items()}
    assert tensors
    kept = [{key: record[key] for key in ("step", "epoch", "loss", "valid")} for record in records]
    measured = ("per_epoch", "per_second", "memory_gib")
    timeless = {key: value for key, value in metrics.items() if not key.endswith(measured)}
    return timeless, kept, index, tensors, pq.read_table(run / "r.parquet").to_pydict()


def train_and_recommend(root, run, *settings):
    said = [training(root, run, *settings)]
    sets = [part for setting in settings for part in ("--set", setting)]
    said.append(command(recommend, "--run", root / run, "--k", 3, "--output", root / run / "r.parquet", *sets))
    return said


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("first_ray")
@pytest.mark.timeout(600)
def test_one_worker_makes_here_what_it_makes_through_ray(root, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "init", forbidden)
        for said in train_and_recommend(root, "here", *ALONE):  # evaluate: test_pipeline.py
            assert said.splitlines()[0].startswith("running in this process, without Ray, on CPU (1 thread)")
    said = train_and_recommend(root, "ray", *THROUGH_RAY)
    assert said[0].startswith("running with 1 worker on CPU: starting Ray on this machine\n")
    assert said[1].startswith("running with 1 worker on CPU: Ray is running already\n")
    assert results(root / "here") == results(root / "ray")

    # An error of a rank ends a run on Ray at once: there is no restart, and the traceback is in a file.
    monkeypatch.setattr(ray_train, "worker_function", broken)
    said = training(root, "broken", "cluster.num_workers=2", status=1)
    assert "starting again" not in said
    assert "Traceback" not in said
    assert "a warning of rank 0" in said.splitlines()
    assert "of a library" not in said
    assert said.count("Ray's own logs are in /") == 1
    error = f"error: train failed, ZeroDivisionError: of rank 0; the traceback is in {root}/broken/error.txt"
    assert said.splitlines()[-1] == error
    report = (root / "broken/error.txt").read_text()
    assert report.startswith("rank 0:\n")
    assert "in spoilt" in report


def broken(job):
    """Run a worker whose rank 0 fails while the others wait for it."""

    def spoilt(_config, world, **_arguments):
        if world.is_first:
            logging.getLogger("distributed.world").warning("a warning of rank 0")
            print("of a library")
            own = os.environ["RAY_ADDRESS"] == ray.get_runtime_context().gcs_address
            raise ZeroDivisionError("of rank 0" if own else "and RAY_ADDRESS does not name the cluster")
        world.barrier()

    trainer.train = spoilt
    ray_train.on_worker(job)


@pytest.mark.usefixtures("no_ray")
def test_a_diverged_training_says_what_to_change(root):
    said = training(root, "diverged", *ALONE, "training.batch_size=512", "training.learning_rate=1e30", status=2)
    line = said.splitlines()[-1]
    assert line.startswith("error: scores of items 0..69 are not finite: the model diverged; lower")
    assert "training.learning_rate or set training.gradient_clip" in line
    assert "Traceback" not in said


@pytest.mark.usefixtures("no_ray")
def test_an_error_of_the_program_is_one_line_and_a_file(root, monkeypatch):
    def spoilt(*_arguments, **_options):
        raise KeyError("of\nours")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", spoilt)
        said = training(root, "spoilt", *ALONE, status=1)
    path = root / "spoilt/error.txt"
    assert said.splitlines()[-1] == f"error: train failed, KeyError: 'of\\nours'; the traceback is in {path}"
    assert "in spoilt" in path.read_text()
    assert "wrote run" in training(root, "spoilt", *ALONE)  # the file does not prevent another attempt
    assert not path.exists()


@pytest.mark.long
@pytest.mark.usefixtures("no_ray")
def test_jobs_of_one_worker_do_not_import_ray():
    jobs = "import sys, jobs.train, jobs.evaluate, jobs.recommend; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", jobs], cwd=Path(train.__file__).parents[1]).returncode == 0


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_by_a_checkpoint(root, monkeypatch, number):
    run = f"signal-{number}"
    with monkeypatch.context() as patch:
        patch.setattr(interruption, "_LOOK_EVERY", -1.0)
        agreed = Interruption.agreed

        def agreed_after_a_signal(self, step, writing=False):
            if step == 3:
                signal.raise_signal(number)
            return agreed(self, step, writing)

        patch.setattr(Interruption, "agreed", agreed_after_a_signal)
        said = training(root, run, *ALONE, status=os.EX_TEMPFAIL)
    assert "stopped, with a checkpoint of the latest step" in said
    assert json.loads((root / run / "checkpoints/index.json").read_text())["latest"] == 3
    assert "wrote run" in training(root, run, *ALONE)


@pytest.mark.usefixtures("no_ray")
def test_a_signal_after_the_last_step_leaves_a_finished_run(root, monkeypatch):
    final_metrics = trainer.final_metrics

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return final_metrics(*arguments)

    monkeypatch.setattr(trainer, "final_metrics", interrupted)
    assert "wrote run" in training(root, "late", *ALONE)
    assert not (root / "late/stop").exists()


@pytest.mark.usefixtures("no_ray")
def test_a_rank_here_has_the_threads_of_a_ray_worker(root, monkeypatch):
    seen = []
    monkeypatch.setattr(trainer, "train", lambda *_, **__: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(workers, "run_task", rank_task.run_task)
    config = config_of(root, root / "threads", "sasrec")
    before = torch.get_num_threads()
    for environment, cpus, threads in ((None, 1, 1), (None, 2.5, 2), ("3", 1, 7)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if environment:
            monkeypatch.setenv("OMP_NUM_THREADS", environment)
        torch.set_num_threads(7)  # as PyTorch does at import, from OMP_NUM_THREADS or the number of cores
        cluster = config.cluster.model_copy(update={"num_workers": 1, "cpus_per_worker": cpus})
        workers.run_on_workers("train", config.model_copy(update={"cluster": cluster}))
        assert seen.pop() == threads
        assert torch.get_num_threads() == 7
    torch.set_num_threads(before)
    shutil.rmtree(root / "threads", ignore_errors=True)
