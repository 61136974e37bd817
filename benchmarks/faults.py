"""Kill workers, nodes and drivers of small trainings at random moments: python benchmarks/faults.py [--runs 20]

Every run trains with dropout on a Ray cluster of two nodes with one core each. One to three faults strike it:

- kill -9 of one worker, or of both;
- one node is removed, and another one is added;
- kill -9 or SIGTERM of the driver, after which the command is repeated.

When a run has ended, its weights, optimiser states and metrics are compared bit for bit with those of an
undisturbed run. The traces of the ranks say which windows were trained. These are compared with the windows of the
data. Steps that were rolled back after a fault do not count.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
from safetensors import safe_open
from tabulate import tabulate

from configs.loading import load_config
from data.dataset import Dataset
from distributed.training.trainer import training_spans
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs.prepare_data import prepare

_ROOT = Path(__file__).resolve().parent.parent
_MODELS = {
    "sasrec": ["model.name=sasrec", "table.sharding=data_parallel"],
    "mdsrec": ["model.name=mdsrec", "table.sharding=row_wise", "training.negatives.draws=15"],
}
_EPOCHS, _STEPS = 4, 60  # a run has about 60 steps
_PATIENCE = 180.0


@dataclass
class Outcome:
    """What happened to a run, and how it compares with an undisturbed one.

    Attributes:
        model: name of the model.
        faults: the faults that struck, each with the step.
        commands: how often the command was given.
        equal: whether the results are equal, bit for bit.
        lost: windows that were not trained.
        doubled: windows that were trained again in the same epoch.
    """

    model: str
    faults: list[str] = field(default_factory=list)
    commands: int = 0
    equal: bool = False
    lost: int = 0
    doubled: int = 0


@click.command()
@click.option("--runs", default=20, show_default=True)
@click.option("--first", default=0, show_default=True, help="number of the first run")
@click.option("--seed", default=0, show_default=True, help="seed of the faults")
def main(runs: int, first: int, seed: int) -> None:
    """Print what happened to each run and, on the last line, JSON."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = inject_faults(Path(folder), range(first, first + runs), seed)
    rows = [
        [n, o.model, ", ".join(o.faults), o.commands, o.equal, o.lost, o.doubled] for n, o in enumerate(outcomes, first)
    ]
    print(tabulate(rows, ["run", "model", "faults", "commands", "equal", "lost", "doubled"]))
    print(
        json.dumps(
            {
                "runs": len(outcomes),
                "equal": sum(outcome.equal for outcome in outcomes),
                "lost_samples": sum(outcome.lost for outcome in outcomes),
                "doubled_samples": sum(outcome.doubled for outcome in outcomes),
            }
        )
    )
    sys.exit(any(not o.equal or o.lost or o.doubled for o in outcomes))


def make_inputs(folder: Path) -> None:
    """Write a small dataset and its graph."""
    dataset = prepare("synthetic", str(folder / "dataset"), num_users=160, num_items=70, seed=3)
    options = load_config(None, ["graph_options.num_centers=4"]).graph_options
    build_graph(dataset, str(folder / "graph"), options, 0, SerialExecutor())


def inject_faults(folder: Path, runs: range, seed: int) -> list[Outcome]:
    """Run disturbed trainings with these numbers, and compare each with an undisturbed training of the same model."""
    make_inputs(folder)
    models = {number: list(_MODELS)[number % len(_MODELS)] for number in runs}
    outcomes = []
    with cluster_of_two() as cluster:
        calm = {model: Trial(folder, model, f"calm-{model}", cluster) for model in dict.fromkeys(models.values())}
        for trial in calm.values():
            trial.run([])
        for number, model in models.items():
            trial = Trial(folder, model, f"run-{number}", cluster)
            rng = random.Random(f"{seed}/{number}")
            trial.run([random_strike(rng) for _ in range(rng.randint(1, 3))])
            trial.outcome.equal = trial.result() == calm[model].result()
            trial.outcome.lost, trial.outcome.doubled = trial.coverage()
            outcomes.append(trial.outcome)
            print(f"run {number}: {trial.outcome}", flush=True)
            shutil.rmtree(trial.folder)
    return outcomes


@dataclass
class Strike:
    """A fault that strikes a training.

    Attributes:
        name: the fault's name.
        step: the fault strikes once any attempt has reached this step.
        act: carries out the fault on the trial and its driver.
        delay: seconds to wait after that step.
        ranks: the number of ranks that the latest attempt must have; None for any number.
    """

    name: str
    step: int
    act: Callable[[Trial, subprocess.Popen[bytes]], None]
    delay: float = 0.0
    ranks: int | None = None

    def is_due(self, trial: Trial) -> bool:
        return trial.step() >= self.step and self.ranks in (None, len(trial.rank_pids()))


def random_strike(rng: random.Random) -> Strike:
    """Return a random fault at a random step, delayed by up to a second so that it may strike anywhere in a step.

    It may also strike during a validation or a checkpoint.
    """
    name = rng.choice(list(FAULTS))
    return Strike(name, rng.randrange(1, _STEPS), FAULTS[name], rng.random())


def kill_worker(trial: Trial, driver: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    for pid in trial.rank_pids()[:1]:
        _kill(pid)


def kill_workers(trial: Trial, driver: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    for pid in trial.rank_pids():
        _kill(pid)


def take_node(trial: Trial, driver: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    nodes = [node for node in trial.cluster.list_all_nodes() if node != trial.cluster.head_node]
    trial.cluster.remove_node(nodes[0], allow_graceful=False)


def add_node(trial: Trial, driver: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    trial.cluster.add_node(num_cpus=1)


def replace_node(trial: Trial, driver: subprocess.Popen[bytes]) -> None:
    take_node(trial, driver)
    add_node(trial, driver)


def kill_driver(trial: Trial, driver: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    driver.send_signal(signal.SIGKILL)


def terminate_driver(trial: Trial, driver: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    driver.send_signal(signal.SIGTERM)


def interrupt_driver(trial: Trial, driver: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    """Send SIGINT, as Ctrl-C does."""
    driver.send_signal(signal.SIGINT)


FAULTS: dict[str, Callable[[Trial, subprocess.Popen[bytes]], None]] = {
    "worker": kill_worker,
    "workers": kill_workers,
    "node": replace_node,
    "driver": kill_driver,
    "sigterm": terminate_driver,
}


class Trial:
    """One training, with the faults that strike it."""

    def __init__(self, inputs: Path, model: str, name: str, cluster: Any, settings: Sequence[str] = ()) -> None:
        self.folder = inputs / name
        self.traces = self.folder / "traces"
        self.traces.mkdir(parents=True)
        self.outcome = Outcome(model)
        self.cluster, self._inputs = cluster, inputs
        self.settings = [
            f"dataset={inputs}/dataset", f"graph={inputs}/graph", f"run={self.folder}/run", "model.dim=8",
            "model.dropout=0.2", "model.num_heads=2", "model.max_length=8", "training.batch_size=40",
            f"training.max_epochs={_EPOCHS}", "training.checkpoint_steps=7", "training.checkpoint_minutes=null",
            "cluster.num_workers=2", "cluster.max_failures=10", *_MODELS[model], *settings,
        ]  # fmt: skip

    def run(self, strikes: Sequence[Strike]) -> None:
        """Repeat the command until training has finished. The faults strike one after the other."""
        waiting = sorted(strikes, key=lambda strike: strike.step)
        while True:
            self.outcome.commands += 1
            with (self.folder / "log.txt").open("ab") as log:
                driver = subprocess.Popen(self._command(), cwd=_ROOT, stdout=log, stderr=log, env=self._environment())
            while driver.poll() is None:
                if waiting and waiting[0].is_due(self):
                    strike = waiting.pop(0)
                    time.sleep(strike.delay)
                    self.outcome.faults.append(f"{strike.name} at {self.step()}")
                    strike.act(self, driver)
                time.sleep(0.05)
            if driver.returncode == 0:
                return
            # SIGTERM kills a driver that has not installed its handler yet, or that has had a SIGTERM before.
            struck = driver.returncode in (-signal.SIGKILL, -signal.SIGTERM, os.EX_TEMPFAIL)
            assert struck, f"{self.folder.name} ended with {driver.returncode}:\n{self._log()}"

    def result(self) -> tuple[Any, ...]:
        """Return the results that do not depend on time: metrics, and the latest and best checkpoints' tensors."""
        run = self.folder / "run"
        metrics = json.loads((run / "metrics.json").read_text())
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        index = json.loads((run / "checkpoints/index.json").read_text())
        tensors = {}
        for step in sorted(set(index.values())):
            for path in sorted((run / f"checkpoints/step-{step:08d}").glob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    tensors.update({(step, path.name, key): file.get_tensor(key).tolist() for key in file.keys()})  # noqa: SIM118
        timeless = [[record[key] for key in ("step", "epoch", "loss", "valid")] for record in records]
        return metrics["details"], metrics["test"], metrics["best_step"], index, timeless, tensors

    def coverage(self) -> tuple[int, int]:
        """Count the windows that were not trained, and those trained more than once; both summed over epochs."""
        steps: dict[int, tuple[int, list[dict[str, Any]]]] = {}
        for path in sorted(self.traces.glob("*.jsonl")):
            attempt = int(path.name.split("-")[0])
            for line in path.read_text().split("\n")[:-1]:
                record = json.loads(line)
                held = steps.get(record["step"])
                if held is None or held[0] < attempt:
                    steps[record["step"]] = (attempt, [record])
                elif held[0] == attempt:
                    held[1].append(record)
        config = load_config(None, self.settings)
        spans = training_spans(config, Dataset.open(str(self._inputs / "dataset")))
        lost = doubled = 0
        for epoch in range(config.training.max_epochs):
            records = [r for _, parts in steps.values() for r in parts if r["epoch"] == epoch]
            counts = Counter((user, start) for record in records for user, start in record["windows"])
            lost += len(spans) - len(counts)
            doubled += counts.total() - len(counts)
        return lost, doubled

    def rank_pids(self) -> list[int]:
        """Return the process ids of the ranks of the latest attempt."""
        latest = max((path.name.split("-")[0] for path in self.traces.iterdir()), default="none")
        return sorted(int(path.stem.split("-")[2]) for path in self.traces.glob(f"{latest}-*"))

    def step(self) -> int:
        """Return the latest step that any rank has taken in any attempt."""
        latest = 0
        for path in self.traces.glob("*.jsonl"):
            lines = path.read_text().split("\n")[:-1]
            latest = max(latest, json.loads(lines[-1])["step"] if lines else 0)
        return latest

    def _command(self) -> list[str]:
        command = [sys.executable, str(_ROOT / "benchmarks/traced_training.py")]
        return [*command, *(part for setting in self.settings for part in ("--set", setting))]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(_ROOT)}

    def _log(self) -> str:
        return (self.folder / "log.txt").read_text()[-4000:]


@contextmanager
def cluster_of_two() -> Iterator[Any]:
    """Start a Ray cluster of a head node without cores and two nodes with one core each."""
    from ray.cluster_utils import Cluster

    # The nodes' processes inherit this, so they find this project's packages.
    os.environ["PYTHONPATH"] = str(_ROOT)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
