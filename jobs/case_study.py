"""Write an HTML page of example items and users of a run: python jobs/case_study.py --run RUN --output PAGE.html"""

from __future__ import annotations

from pathlib import Path

import click

from contracts.errors import InputError
from contracts.terminal import shows_bars
from distributed.inference.restore import check_restorable, run_config
from distributed.inputs import open_inputs
from distributed.job_paths import absolute, absolute_file, resolve_paths
from distributed.output import local_bar
from distributed.rank_task import quiet_libraries
from distributed.telemetry import unwatched
from distributed.world import world_of_one
from experiments.case_page.collect import case_study, find_named
from experiments.case_page.page import GENERATOR, page
from experiments.page.document import holds_page
from jobs.cli import check_output, check_suffix, job, validate
from storage.durable_files import write_text


@click.command()
@click.option("--run", required=True, metavar="RUN", help="run folder of jobs/train.py")
@click.option(
    "--checkpoint", metavar="STEP", default="best", show_default=True, help="latest, best or the number of a step"
)
@click.option("--items", metavar="ID,ID", help="ids of items to show, as in your files [default: four are chosen]")
@click.option("--users", metavar="ID,ID", help="ids of users to show, as in your files [default: three are chosen]")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="seed of the choice of items and users"
)
@click.option("--output", required=True, metavar="FILE", help=".html file to write")
@click.option("--overwrite", is_flag=True, help="replace an earlier page at OUTPUT")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.FIELD=VALUE",
    help="change a knob of the run, e.g. graph=GRAPH, evaluation.mask_history=true",
)
@job
def main(
    run: str,
    checkpoint: str,
    items: str | None,
    users: str | None,
    seed: int,
    output: str,
    overwrite: bool,
    overrides: tuple[str, ...],
) -> None:
    """Write an HTML page that shows what a run has learned, for a few items and users.

    Each item is shown with the items most related to it by each modality and by co-occurrence. Each user is shown with
    the items that the model, and each of its channels alone, scores highest. The job runs in this process, without Ray.
    """
    folder, target = absolute("run", run), Path(absolute_file("output", output))
    assert folder is not None
    named = {"items": _ids("items", items), "users": _ids("users", users)}
    check_suffix(target, "an HTML page", ".html", ".htm")
    check_output(target, overwrite, lambda path: holds_page(path, GENERATOR), "not a page of this job")
    config = resolve_paths(run_config(folder, overrides, checkpoint))
    find_named(open_inputs(config), named["items"], named["users"])
    check_restorable(config, checkpoint)
    validate(open_inputs(config))
    quiet_libraries()
    track = local_bar if shows_bars() else unwatched
    with world_of_one() as world:
        study = case_study(config, world, checkpoint, named["items"], named["users"], seed, track)
    try:
        write_text(target, page(study))
    except OSError as error:
        raise InputError(
            f"--output {target}: cannot be written ({error.strerror or error}); free space or change permissions"
        ) from None
    print(f"wrote {target}: {len(study.items)} items and {len(study.users)} users of {folder}")


def _ids(flag: str, text: str | None) -> list[str]:
    """Split a text at its commas into ids.

    Raises:
        InputError: an id is empty.
    """
    if text is None:
        return []
    ids = [part.strip() for part in text.split(",")]
    if not all(ids):
        raise InputError(f"--{flag} {text[:80]!r}: holds an empty id; separate ids by single commas")
    return ids


if __name__ == "__main__":
    main()
