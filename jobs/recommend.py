"""Write the top K items of users: python jobs/recommend.py --run RUN --k 20 --output recs.parquet"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from distributed.checkpoints.index import find_checkpoint
from distributed.checkpoints.run_storage import RunStorage
from distributed.inference.restore import check_restorable, run_config
from distributed.inputs import open_inputs
from distributed.job_paths import absolute, absolute_file, resolve_paths
from distributed.launch import run_on_workers
from distributed.run_location import device_type
from jobs.cli import HomePath, check_output, check_suffix, job, validate, verbose_option
from serving.batch_job import Outcome, recommend_table
from serving.batch_plan import Request
from serving.item_lists import OnUnknown
from serving.results import NUMBERS_NOTE


@click.command()
@click.option("--run", required=True, metavar="RUN", help="run folder of jobs/train.py")
@click.option("--k", default=20, show_default=True, type=click.IntRange(min=1), help="items per user")
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    help=".parquet file to write, with columns user, rank, item, score; with --histories, a folder of such files",
)
@click.option(
    "--histories",
    type=HomePath(),
    metavar="TABLE",
    help="recommend for the users of this Parquet file, or of the Parquet files of this folder, instead of the "
    "dataset's. Columns: user; history (list of item ids, oldest first); if wanted, exclude and allow (lists of ids)",
)
@click.option(
    "--users-per-part",
    default=65_536,
    show_default=True,
    type=click.IntRange(min=1),
    help="with --histories: users of each file; finished files are kept when the command is repeated",
)
@click.option(
    "--on-unknown",
    default="skip",
    show_default=True,
    type=click.Choice(["skip", "error"]),
    help="with --histories: leave out ids that no item has, or end with an error",
)
@click.option(
    "--checkpoint", metavar="STEP", default="best", show_default=True, help="latest, best or the number of a step"
)
@click.option(
    "--mask-history/--keep-history",
    default=True,
    show_default=True,
    help="leave out, or keep, items that the user already has",
)
@click.option("--overwrite", is_flag=True, help="replace an existing output")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.FIELD=VALUE",
    help="change a knob of the run, e.g. cluster.num_workers=4",
)
@verbose_option
@job
def main(
    run: str,
    k: int,
    output: str,
    histories: str | None,
    users_per_part: int,
    on_unknown: str,
    checkpoint: str,
    mask_history: bool,
    overwrite: bool,
    overrides: tuple[str, ...],
) -> None:
    """Write the top K items of users, from the whole catalogue. Users and items have the ids of your files.

    Without --histories, these are the users of the run's dataset.
    """
    folder, target = absolute("run", run), absolute_file("output", output)
    assert folder is not None
    assert target is not None
    if "://" in target:
        raise InputError(
            f"--output {target}: object storage is not supported; name a local file and upload it afterwards"
        )
    if histories is None:
        check_suffix(Path(target), "a Parquet file", ".parquet")
        check_output(Path(target), overwrite, _holds_recommendations, "not a file of recommendations")
    config = resolve_paths(run_config(folder, overrides, checkpoint))
    check_restorable(config, checkpoint)
    device_type(config.cluster)  # raises if the requested GPUs are not available
    inputs = open_inputs(config)
    validate(inputs)
    if histories is not None:
        step = None
        if config.model.system.is_trained:
            step = find_checkpoint(str(RunStorage(folder).local), checkpoint, inputs.fingerprints)[1].step
        request = Request(
            run=folder,
            step=step,
            k=k,
            hide_history=mask_history,
            on_unknown=cast(OnUnknown, on_unknown),
            dataset=config.dataset,
            graph=config.graph if config.reads_graph else None,
            settings={f"evaluation.{name}": value for name, value in config.evaluation.model_dump(mode="json").items()},
        )
        outcome = recommend_table(
            config, request, absolute_file("histories", histories), users_per_part, Path(target), overwrite
        )
        _print_outcome(outcome, target, k, mask_history)
        return
    run_on_workers("recommend", config, checkpoint=checkpoint, k=k, output=target, mask_history=mask_history)

    rows = pq.read_metadata(target).num_rows
    print(f"wrote {target}: {rows:,} recommendations, up to {k} per user")
    hidden, ranked_hidden = ("hidden" if hides else "kept" for hides in (mask_history, config.evaluation.mask_history))
    other = "--keep-history lists them too" if mask_history else "--mask-history leaves them out"
    print(
        f"Items that users already have are {hidden} in these lists ({other}). For the run's own metrics they were "
        f"{ranked_hidden} (evaluation.mask_history)."
    )


def _print_outcome(outcome: Outcome, target: str, k: int, mask_history: bool) -> None:
    counts = outcome.counts
    print(f"wrote {target}: up to {k} items for each of {counts.users:,} users, in {outcome.parts:,} files")
    if counts.unknown_ids:
        print(f"note: {counts.unknown_ids:,} ids of histories are not in the catalogue and were left out")
    if counts.unknown_choices:
        print(f"note: {counts.unknown_choices:,} ids of exclude and allow are not in the catalogue and were left out")
    if counts.popular:
        print(
            f"note: {counts.popular:,} users have no known item in their history, and got the items that occur most "
            "often in training"
        )
    if counts.numbers:
        print(f"note: {NUMBERS_NOTE}")
    print(f"Items that users already have are {'hidden' if mask_history else 'kept'} in these lists.")


def _holds_recommendations(path: Path) -> bool:
    try:
        return pq.read_schema(path).names == ["user", "rank", "item", "score"]
    except (pa.ArrowException, OSError):
        return False


if __name__ == "__main__":
    main()
