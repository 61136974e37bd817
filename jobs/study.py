"""Train variants and seeds, and compare: python jobs/study.py --study F --set dataset=D --output STUDY"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from configs.schema import Config
from contracts.errors import InputError
from distributed.job_paths import absolute, resolve_paths
from distributed.placement import check_cpus
from distributed.ray.cluster import check_seen_by_all_nodes, cluster_in_words, connect
from distributed.ray.relay import naming_ray_logs, ray_logs
from experiments.study.definition import Study, Trial, expand, read_study
from experiments.study.life import check_study_folder, run_study
from experiments.study.ray_trials import RayTrials
from experiments.study.report import write_report
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
    help="YAML file, e.g. configs/studies/centers.yaml",
)
@click.option("--output", required=True, metavar="STUDY", help="folder for graphs, trials and results")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.FIELD=VALUE", help="override a knob for all trials")
@click.option("--parallel", type=click.IntRange(min=1), help="trials at a time at most [default: as many as fit]")
@click.option("--cpus-per-trial", type=click.IntRange(min=1), default=1, show_default=True, help="cores, and threads")
@click.option("--report-only", is_flag=True, help="train nothing: write the results of what is finished")
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
    """Train every variant with every seed as Ray tasks, and write STUDY/results.{md,csv,json,png} after each.

    The same command again keeps finished trials, continues unfinished ones from their checkpoints and trains what is
    missing. A trial that fails is reported at the end, with status 1; the others go on.
    """
    study = read_study(study_path)
    trials = expand(study, study_path, overrides)
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

    placed = [replace(trial, config=resolve_paths(trial.config)) for trial in trials]
    with naming_ray_logs():
        unfinished = run_study(study, placed, folder, start)
    _report(study, trials, folder)
    if any(outcome.state == "failed" for outcome in unfinished):
        click.echo(ray_logs(), err=True)
    for outcome in unfinished:
        if outcome.state == "failed":
            note = folder / "failures" / f"{outcome.trial}.txt"
            click.echo(f"failed: trial {outcome.trial}: {outcome.error} ({note})", err=True)
        else:
            click.echo(f"stopped: trial {outcome.trial}; repeat the command to go on with it", err=True)
    if unfinished:
        sys.exit(1 if any(outcome.state == "failed" for outcome in unfinished) else os.EX_TEMPFAIL)


def _study_folder(output: str) -> Path:
    """The folder of `--output`.

    Raises:
        InputError: it is a URI, a file, or holds something else.
    """
    if is_uri(output):
        raise InputError(f"--output {output}: a study is written to a folder that all nodes see; name a path")
    path = absolute("output", output)
    assert path is not None
    check_study_folder(Path(path))
    return Path(path)


def _report(study: Study, trials: list[Trial], folder: Path) -> None:
    print(write_report(study, trials, folder))
    print(f"wrote study {folder}: results.md, results.csv, results.json, results.png")


if __name__ == "__main__":
    main()
