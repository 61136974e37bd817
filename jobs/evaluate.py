"""Evaluate a checkpoint on valid and test: python jobs/evaluate.py --run RUN [--checkpoint latest|best|STEP]"""

from __future__ import annotations

import json

import click

from distributed.checkpoints.run_storage import RunStorage
from distributed.inference.evaluate import evaluation_path
from distributed.inference.restore import check_restorable, run_config
from distributed.inference.scoring import SPLITS
from distributed.inputs import open_inputs
from distributed.job_paths import absolute, resolve_paths
from distributed.launch import run_on_workers
from distributed.run_location import device_type
from evaluation.metrics_table import metrics_table, slice_rows
from evaluation.saved_ranks import ranks_path
from jobs.cli import job, print_ranking_note, validate, verbose_option


@click.command()
@click.option("--run", required=True, metavar="RUN", help="run folder of jobs/train.py")
@click.option(
    "--checkpoint", metavar="STEP", default="best", show_default=True, help="latest, best or the number of a step"
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.FIELD=VALUE",
    help="change a knob of the run, e.g. evaluation.mask_history=true, cluster.num_workers=4",
)
@verbose_option
@job
def main(run: str, checkpoint: str, overrides: tuple[str, ...]) -> None:
    """Evaluate a checkpoint on valid and test, ranking the whole catalogue, on any number of workers.

    The result file in RUN also has confidence intervals, and metrics for slices of the targets.
    """
    folder = absolute("run", run)
    assert folder is not None
    config = resolve_paths(run_config(folder, overrides, checkpoint))
    check_restorable(config, checkpoint)
    device_type(config.cluster)  # raises if the requested GPUs are not available
    inputs = open_inputs(config)
    validate(inputs)
    run_on_workers("evaluate", config, checkpoint=checkpoint)

    RunStorage(folder).pull(checkpoint, tensors=False)
    path = evaluation_path(config, checkpoint, inputs)
    result = json.loads(path.read_text())
    columns = config.evaluation.metrics
    print(metrics_table({split: result[split] for split in SPLITS}, columns))
    print_ranking_note(result["settings"], {split: result["details"][split]["repeat_share"] for split in SPLITS})
    for split in SPLITS:
        print("\n" + metrics_table(slice_rows(split, result["details"][split]["slices"]), columns))
    step = result["checkpoint_step"]
    what = "nothing is trained, so there is no checkpoint" if step is None else f"checkpoint {checkpoint} (step {step})"
    print(f"wrote {path}: {what}; with intervals and slices")
    if config.evaluation.save_ranks:
        print(f"wrote the rank of every target: {', '.join(ranks_path(path, split).name for split in SPLITS)}")


if __name__ == "__main__":
    main()
