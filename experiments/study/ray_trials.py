"""Trials as Ray tasks, each with its cores, and a GPU where the cluster has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from configs.schema import ClusterConfig
from contracts.errors import InputError
from distributed.interruption import STOP_FILE
from distributed.rank_task import quiet_libraries
from distributed.ray.cluster import workers_use_gpu
from distributed.stop_requests import first_signal
from experiments.study.trials import Job, Outcome, run_trial, stop_file


class RayTrials:
    """One task per trial on the connected cluster.

    One whose process or node dies is started again, where another has room, and goes on from its checkpoint:
    `cluster.max_failures` times. A file `stop` in the study's folder, which SIGTERM or Ctrl-C puts there, ends the
    running ones with a checkpoint, and no other begins.
    """

    def __init__(self, cluster: ClusterConfig, threads: int, parallel: int | None) -> None:
        """Connected already (`distributed.ray.cluster.connect`).

        Args:
            cluster: of any trial; they do not differ in it.
            parallel: trials at a time at most; None: as many as fit.

        Raises:
            InputError: a trial asks for more than any node has.
        """
        assert ray.is_initialized()
        most = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if threads > most:
            raise InputError(
                f"--cpus-per-trial {threads}: no node of the cluster has more than {most:.0f} CPUs; lower it"
            )
        self.threads = threads
        self.use_gpu = workers_use_gpu(cluster)
        self._parallel = parallel
        self._retries = cluster.max_failures

    def run_trials(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """See `trials.TrialExecutor`."""
        waiting = list(jobs)[::-1]
        most = self._parallel or len(waiting)
        running: dict[Any, Job] = {}
        stop = stop_file(waiting[0])
        with first_signal(stop.touch):
            while waiting or running:
                while waiting and len(running) < most:
                    job = waiting.pop()
                    running[self._start(job)] = job
                if stop.exists():
                    for job in running.values():  # time and again: a trial that only begins clears what it finds
                        _put_stop_file(job)
                ended, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
                for reference in ended:
                    yield _outcome(reference, running.pop(reference))

    def _start(self, job: Job) -> Any:
        task = _run_trial.options(
            name=job.trial, num_cpus=self.threads, num_gpus=int(self.use_gpu), max_retries=self._retries
        )
        return task.remote(job)


def _put_stop_file(job: Job) -> None:
    run = Path(job.config["run"])
    if run.is_dir():  # it began
        (run / STOP_FILE).touch()


def _outcome(reference: Any, job: Job) -> Outcome:
    try:
        found: Outcome = ray.get(reference)
    except RayError as error:  # its process or node died more often than allowed
        text = str(error)
        return Outcome(
            trial=job.trial,
            state="failed",
            error=f"{type(error).__name__}: {' '.join(text.split())}"[:500],
            traceback=text + "\n",
        )
    return found


@ray.remote
def _run_trial(job: Job) -> Outcome:
    quiet_libraries()
    return run_trial(job)
