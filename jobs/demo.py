"""Run the whole pipeline on a synthetic catalogue, command by command; `make demo` calls it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from pathlib import Path

import click

from contracts.errors import InputError
from distributed.output import is_verbose
from evaluation.metrics_table import metrics_table
from jobs.build_graph import main as build_graph
from jobs.cli import HomePath, job, print_ranking_note, verbose_option
from jobs.evaluate import main as evaluate
from jobs.prepare_data import main as prepare_data
from jobs.recommend import main as recommend
from jobs.train import main as train

_JOBS = {
    "prepare_data": prepare_data,
    "build_graph": build_graph,
    "train": train,
    "evaluate": evaluate,
    "recommend": recommend,
}
_MODELS = ("popularity", "sasrec", "mdsrec")
_MARK = ".demo"
_COLUMNS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


@click.command()
@click.option(
    "--output",
    type=HomePath(),
    metavar="FOLDER",
    default="demo",
    show_default=True,
    help="folder to write to; an earlier demo in it is replaced",
)
@verbose_option
@job
def main(output: str) -> None:
    """Run the whole pipeline on a synthetic catalogue, and compare three systems.

    The demo prepares data, builds graphs, trains with two Ray workers, evaluates and recommends. It prints each command
    before running it.
    """
    began = time.perf_counter()
    root = shlex.quote(str(_empty_folder(Path(output))))
    config = shlex.quote(os.path.relpath(Path(__file__).resolve().parent.parent / "configs" / "demo.yaml"))
    folders = f"--config {config} --set dataset={root}/dataset --set graph={root}/graph"

    _run(f"prepare_data --format synthetic --num-users 2000 --num-items 1500 --seed 0 --output {root}/dataset")
    _run(f"build_graph {folders}")
    for model in _MODELS:
        _run(f"train {folders} --set run={root}/run-{model} --set model.name={model}")
    _run(f"evaluate --run {root}/run-mdsrec --checkpoint latest")
    _run(f"recommend --run {root}/run-mdsrec --k 20 --output {root}/recommendations.parquet")

    found = {model: json.loads((Path(output) / f"run-{model}" / "metrics.json").read_text()) for model in _MODELS}
    rows = {model: metrics["test"] for model, metrics in found.items()}
    print(f"\nTest split, each user's last item ranked among all 1,500 ({time.perf_counter() - began:.0f} s):\n")
    print(metrics_table(rows, _COLUMNS))
    last = found[_MODELS[-1]]  # all three were ranked with the same settings
    print_ranking_note(last["settings"], {"test": last["details"]["test"]["repeat_share"]})
    print(
        f"\nwrote {root}/dataset, {root}/graph, {root}/run-*/metrics.json and {root}/recommendations.parquet; "
        f"curves: .venv/bin/tensorboard --logdir {root}"
    )


def _empty_folder(root: Path) -> Path:
    """Create the folder, or delete from it what an earlier demo wrote there.

    Raises:
        InputError: the folder holds files, but not the file that marks it as a demo's.
    """
    mark = root / _MARK
    if root.exists() and not mark.is_file() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"--output {root}: holds files that no demo wrote; name a new folder")
    for name in ("dataset", "graph", "recommendations.parquet", *(f"run-{model}" for model in _MODELS)):
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text("The next demo replaces what lies beside this file.\n")
    return root


def _run(line: str) -> None:
    """Print a job's command, then run the job in this process, so that all jobs share one Ray instance."""
    name, *arguments = shlex.split(line)
    if is_verbose() and name != "prepare_data":
        arguments.append("--verbose")
    print(f"\n$ python jobs/{name}.py {shlex.join(arguments)}", flush=True)
    _JOBS[name].main(args=arguments, standalone_mode=False)


if __name__ == "__main__":
    main()
