"""Train trials as Ray tasks, each with its CPU cores, and with a GPU if the cluster has GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from configs.schema import ClusterConfig
from contracts.errors import InputError
from distributed.rank_task import quiet_libraries
from distributed.ray.cluster import workers_use_gpu
from distributed.stop_agreement import STOP_FILE
from distributed.stop_signals import first_signal
from experiments.study.trials import Job, Outcome, run_trial, stop_file


class RayTrials:
    """Trains trials on the connected Ray cluster, one task for each trial.

    If a trial's process or node dies, Ray restarts the trial on a node that has room, at most `cluster.max_failures`
    times, and it resumes from its checkpoint. A file `stop` in the study's folder ends the running trials with a
    checkpoint, and no further trial begins. SIGTERM and Ctrl-C create that file.

    Attributes:
        threads: threads, and CPU cores, of each trial.
        use_gpu: whether each trial has a GPU.
    """

    def __init__(self, cluster: ClusterConfig, threads: int, parallel: int | None) -> None:
        """Ray must be connected already (`distributed.ray.cluster.connect`).

        Args:
            cluster: the cluster settings of any trial; all trials have the same.
            threads: threads, and CPU cores, of each trial.
            parallel: most trials that run at a time; None: as many as fit.

        Raises:
            InputError: a trial needs more CPU cores than any node has.
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
                    for job in running.values():  # repeatedly, because a trial deletes stop files when it begins
                        _put_stop_file(job)
                ended, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
                for reference in ended:
                    yield _outcome(reference, running.pop(reference))

    def _start(self, job: Job) -> Any:
        run = _run_trial_on_gpu if self.use_gpu else _run_trial
        task = run.options(name=job.trial, num_cpus=self.threads, num_gpus=int(self.use_gpu), max_retries=self._retries)
        return task.remote(job)


def _put_stop_file(job: Job) -> None:
    run = Path(job.config["run"])
    if run.is_dir():  # the trial has begun
        (run / STOP_FILE).touch()


def _outcome(reference: Any, job: Job) -> Outcome:
    try:
        found: Outcome = ray.get(reference)
    except RayError as error:  # the trial's process or node died more often than allowed
        text = str(error)
        return Outcome(
            trial=job.trial,
            state="failed",
            error=f"{type(error).__name__}: {' '.join(text.split())}"[:500],
            traceback=text + "\n",
        )
    return found


def _train(job: Job) -> Outcome:
    quiet_libraries()
    return run_trial(job)


_run_trial = ray.remote(_train)
# Its process ends with the trial. Otherwise Ray would give the process a trial with another GPU, but CUDA keeps the
# first GPU of a process (ray-project/ray#47767). Ray sets max_calls=1 itself only if num_gpus is given here, not in
# `.options`.
_run_trial_on_gpu = ray.remote(max_calls=1)(_train)
