"""Write the top K items of every user: python jobs/recommend.py --run RUN --k 20 --output recs.parquet"""

from __future__ import annotations

from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from distributed.inference.restore import check_restorable, run_config
from distributed.inputs import open_inputs
from distributed.job_paths import absolute, absolute_file, resolve_paths
from distributed.launch import run_on_workers
from distributed.run_location import device_type
from jobs.cli import check_output, check_suffix, job, validate, verbose_option


@click.command()
@click.option("--run", required=True, metavar="RUN", help="run folder of jobs/train.py")
@click.option("--k", default=20, show_default=True, type=click.IntRange(min=1), help="items per user")
@click.option(
    "--output", required=True, metavar="FILE", help=".parquet file to write, with columns user, rank, item, score"
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
    run: str, k: int, output: str, checkpoint: str, mask_history: bool, overwrite: bool, overrides: tuple[str, ...]
) -> None:
    """Write the top K items of every user, from the whole catalogue. Users and items have the ids of your files."""
    folder, target = absolute("run", run), absolute_file("output", output)
    assert folder is not None
    assert target is not None
    if "://" in target:
        raise InputError(
            f"--output {target}: object storage is not supported; name a local file and upload it afterwards"
        )
    check_suffix(Path(target), "a Parquet file", ".parquet")
    check_output(Path(target), overwrite, _holds_recommendations, "not a file of recommendations")
    config = resolve_paths(run_config(folder, overrides, checkpoint))
    check_restorable(config, checkpoint)
    device_type(config.cluster)  # raises if the requested GPUs are not available
    validate(open_inputs(config))
    run_on_workers("recommend", config, checkpoint=checkpoint, k=k, output=target, mask_history=mask_history)

    rows = pq.read_metadata(target).num_rows
    print(f"wrote {target}: {rows:,} recommendations, up to {k} per user")
    hidden, ranked_hidden = ("hidden" if hides else "kept" for hides in (mask_history, config.evaluation.mask_history))
    other = "--keep-history lists them too" if mask_history else "--mask-history leaves them out"
    print(
        f"Items that users already have are {hidden} in these lists ({other}). For the run's own metrics they were "
        f"{ranked_hidden} (evaluation.mask_history)."
    )


def _holds_recommendations(path: Path) -> bool:
    try:
        return pq.read_schema(path).names == ["user", "rank", "item", "score"]
    except (pa.ArrowException, OSError):
        return False


if __name__ == "__main__":
    main()
