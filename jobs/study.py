"""Train variants with several seeds and compare them: python jobs/study.py --study F --set dataset=D --output STUDY"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from configs.schema import Config
from contracts.errors import InputError
from distributed.job_paths import absolute, resolve_paths
from distributed.ray.cluster import check_seen_by_all_nodes, cluster_in_words, connect
from distributed.ray.relay import naming_ray_logs, ray_logs
from distributed.run_location import check_cpus
from experiments.study.definition import Study, Trial, expand, read_study
from experiments.study.ray_trials import RayTrials
from experiments.study.report import write_report
from experiments.study.run_study import check_study_folder, run_study
from experiments.study.trials import TrialExecutor
from graph_builder.executor import Executor
from graph_builder.ray_tasks import RayExecutor
from jobs.cli import HomePath, job, verbose_option
from storage.uris import is_uri


@click.command()
@click.option(
    "--study",
    "study_path",
    type=HomePath(),
    required=True,
    metavar="FILE",
    help="YAML file that lists variants and seeds, e.g. configs/studies/centers.yaml",
)
@click.option("--output", required=True, metavar="STUDY", help="folder to write graphs, trials and results to")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.FIELD=VALUE",
    help="set a knob for all trials; may be repeated",
)
@click.option("--parallel", type=click.IntRange(min=1), help="most trials that run at a time [default: as many as fit]")
@click.option(
    "--cpus-per-trial",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="CPU cores, and threads, of each trial",
)
@click.option("--report-only", is_flag=True, help="train nothing; write the results of finished trials")
@verbose_option
@job
def main(
    study_path: str,
    output: str,
    overrides: tuple[str, ...],
    parallel: int | None,
    cpus_per_trial: int,
    report_only: bool,
) -> None:
    """Train every variant with every seed as Ray tasks, and compare them in STUDY/results.{md,csv,json,png}.

    The results are written after each trial. Repeat the command to continue: it keeps finished trials, resumes
    unfinished ones from their checkpoints and trains those that are missing. If a trial fails, the others continue; the
    failure is reported at the end, with status 1.
    """
    study = read_study(study_path)
    trials = [replace(trial, config=resolve_paths(trial.config)) for trial in expand(study, study_path, overrides)]
    folder = _study_folder(output)
    if report_only:
        if not (folder / "trials").exists():
            raise InputError(f"--output {folder}: holds no trials; leave out --report-only to train them")
        _report(study, trials, folder)
        return

    def start(config: Config) -> tuple[Executor, TrialExecutor]:
        check_cpus(config.cluster, f"--cpus-per-trial {cpus_per_trial}", cpus_per_trial)
        per_task = config.graph_options.cpus_per_task
        check_cpus(config.cluster, f"graph_options.cpus_per_task={per_task}", per_task)
        print(f"building graphs and training trials with Ray: {cluster_in_words(config.cluster)}", flush=True)
        connect(config.cluster)
        check_seen_by_all_nodes(folder, f"--output {folder}")
        return RayExecutor(config.graph_options), RayTrials(config.cluster, cpus_per_trial, parallel)

    with naming_ray_logs():
        unfinished = run_study(study, trials, folder, start)
    _report(study, trials, folder)
    if any(outcome.state == "failed" for outcome in unfinished):
        click.echo(ray_logs(), err=True)
    for outcome in unfinished:
        if outcome.state == "failed":
            note = folder / "failures" / f"{outcome.trial}.txt"
            click.echo(f"failed: trial {outcome.trial}: {outcome.error} ({note})", err=True)
        else:
            click.echo(f"stopped: trial {outcome.trial}; repeat the command to continue it", err=True)
    if unfinished:
        sys.exit(1 if any(outcome.state == "failed" for outcome in unfinished) else os.EX_TEMPFAIL)


def _study_folder(output: str) -> Path:
    """Return the folder of `--output`.

    Raises:
        InputError: --output is a URI or a file, or the folder holds something else than a study.
    """
    if is_uri(output):
        raise InputError(f"--output {output}: a study needs a folder that all nodes see, not a URI; name a path")
    path = absolute("output", output)
    assert path is not None
    check_study_folder(Path(path))
    return Path(path)


def _report(study: Study, trials: list[Trial], folder: Path) -> None:
    print(write_report(study, trials, folder))
    print(f"wrote study {folder}: results.md, results.csv, results.json, results.png")


if __name__ == "__main__":
    main()
