"""Train a recommender, on this machine or a Ray cluster: python jobs/train.py --config C --set run=RUN ..."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import click

from configs.loading import load_config
from distributed.checkpoints.index import DamagedCheckpoint, find_checkpoint
from distributed.checkpoints.run_folder import open_run_folder
from distributed.inference.scoring import SPLITS
from distributed.inputs import Inputs, open_inputs
from distributed.job_paths import resolve_paths
from distributed.launch import run_on_workers
from distributed.run_location import device_type
from distributed.stop_agreement import STOPPED_FILE
from distributed.training.trainer import check_trainable
from evaluation.metrics_table import metrics_table
from jobs.cli import config_options, job, print_ranking_note, validate, verbose_option

# Beginnings of the names of files in a run folder that training does not write.
_NOT_OF_TRAINING = ("evaluation-", "ray")


@click.command()
@config_options
@verbose_option
@job
def main(config_path: str | None, overrides: tuple[str, ...]) -> None:
    """Train to early stopping, evaluate the best checkpoint on valid and test, write RUN/metrics.json.

    RUN is the folder given by --set run=RUN. Repeat the command to continue from RUN's latest checkpoint. Ctrl-C,
    SIGTERM, or a file named `stop` in RUN stops training: it writes a checkpoint and ends with status 75. With
    cluster.num_workers=1 and no cluster address, training runs in this process, without Ray.
    """
    config = resolve_paths(load_config(config_path, overrides))
    storage = open_run_folder(config)
    stated = config.graph_options.model_dump(include=config.graph_options.model_fields_set)
    inputs = open_inputs(config, expected_graph=stated)
    _check_continued(storage.local, inputs)
    device_type(config.cluster)  # raises if the requested GPUs are not available
    validate(inputs)
    check_trainable(config, inputs)

    run_on_workers("train", config)
    storage.pull("latest", tensors=False)
    if storage.has(STOPPED_FILE):
        print(f"stopped, with a checkpoint of the latest step; repeat the command to continue run {config.run}")
        sys.exit(os.EX_TEMPFAIL)  # tells a scheduler to start the command again
    metrics = json.loads((storage.local / "metrics.json").read_text())
    columns = config.evaluation.metrics
    print(metrics_table({split: metrics[split] for split in SPLITS}, columns))
    print_ranking_note(metrics["settings"], {split: metrics["details"][split]["repeat_share"] for split in SPLITS})
    names = sorted(path.name for path in storage.local.iterdir() if not path.name.startswith(_NOT_OF_TRAINING))
    print(f"wrote run {config.run} ({metrics['model']}): {', '.join(names)}")
    for path in sorted(storage.local.glob("evaluation-best*.json")):
        with contextlib.suppress(ValueError, AttributeError):  # skips a file that somebody edited
            step, best = json.loads(path.read_text()).get("checkpoint_step"), metrics.get("best_step")
            if step != best:
                print(
                    f"note: {path.name} is of step {step}, but the best step is now {best}; run jobs/evaluate.py again"
                )


def _check_continued(run: Path, inputs: Inputs) -> None:
    """Check that a run that has checkpoints was begun with these inputs. The trainer handles damaged checkpoints.

    Raises:
        InputError: the run was begun with other inputs, or the index of its checkpoints cannot be read.
    """
    if (run / "checkpoints" / "index.json").exists():
        with contextlib.suppress(DamagedCheckpoint):  # training then resumes from an earlier checkpoint
            find_checkpoint(str(run), "latest", inputs.result_fingerprints)


if __name__ == "__main__":
    main()
