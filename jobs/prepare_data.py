"""Write a dataset from interaction files, or a synthetic one: python jobs/prepare_data.py --format unisrec ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import click

from configs.loading import load_config
from configs.schema import ClusterConfig
from contracts.errors import InputError
from data.dataset import Dataset, write_dataset
from data.formats.input_files import check_apart
from data.layout import check_output, local_path
from data.prepare.pipeline import FORMATS, WITHOUT_ENGINE, content_of
from jobs.cli import HomePath, NamedPath, job, verbose_option
from jobs.prepare_append import append_option, grown, print_growth
from jobs.prepare_engine import Engine, engine_options, workplace
from jobs.prepared_summary import summary
from storage.object_cache import check_unpublished, locked, published, work_folder
from storage.uris import is_uri

_RAW = "all but unisrec and synthetic: "
_READING = [
    click.option("--user-column", help="table: name of the user column [default: user]"),
    click.option("--item-column", help="table: name of the item column [default: item]"),
    click.option(
        "--timestamp-column",
        help="table: name of the time column; none: there is no time, and rows are in its order [default: timestamp]",
    ),
    click.option("--delimiter", help="table: separator of columns, of one or more characters [default: by suffix]"),
    click.option(
        "--columns",
        metavar="NAME,NAME,...",
        help="table: names of the columns of text without a header; _ for one to ignore",
    ),
    click.option("--quotes/--no-quotes", default=None, help='table: whether "..." quotes values [default: by suffix]'),
    click.option(
        "--time-unit",
        type=click.Choice(["auto", "s", "ms", "us", "ns"]),
        help="recbole, table: unit of numbers as timestamps [default: auto, from their size]",
    ),
    click.option(
        "--time-format",
        help="table: how dates are written, such as '%m/%d/%Y %I:%M:%S %p'; none: as ISO 8601 says [default: none]",
    ),
    click.option(
        "--keep",
        multiple=True,
        metavar="CONDITION",
        help="all but lists and mind: rows to keep, such as 'rating >= 4' or 'event in (view, cart)'; may be repeated; "
        "none: all rows [default: none]",
    ),
    click.option(
        "--items",
        type=HomePath(),
        metavar="PATH",
        help=f"{_RAW}descriptions of items (Parquet, CSV, JSONL) [default: those that some formats find beside INPUT]",
    ),
    click.option("--item-delimiter", help="--items: separator of columns of text [default: by suffix]"),
    click.option(
        "--item-names", metavar="NAME,NAME,...", help="--items: names of the columns of text without a header"
    ),
    click.option(
        "--item-id-column", help="--items: name of the column of item ids [default: item, or what the format has]"
    ),
    click.option(
        "--title-column",
        multiple=True,
        help="--items: column for the item's text; several are joined [default: title, if the format has one]",
    ),
    click.option("--item-columns", metavar="NAME,...", help="--items: columns to carry into items.parquet"),
]
_OPTIONS = [
    *_READING,
    click.option(
        "--features",
        type=NamedPath(),
        multiple=True,
        metavar="NAME=FILE",
        help="features of a modality: .npy (one row per item), Parquet (columns item, vector), or a folder of "
        "jobs/encode_items.py; may be repeated",
    ),
    click.option(
        "--feature-ids",
        type=NamedPath(),
        multiple=True,
        metavar="NAME=FILE",
        help="text file with the item id of each row of a modality's .npy file, one id per line",
    ),
    click.option("--min-user-interactions", type=int, help=f"{_RAW}least interactions of a user (k-core) [default: 5]"),
    click.option(
        "--min-item-interactions", type=int, help=f"{_RAW}least interactions of an item (k-core) [default: 5]"
    ),
    click.option("--max-history", type=int, help=f"{_RAW}most recent interactions kept per user [default: all]"),
    click.option(
        "--split",
        type=click.Choice(["leave-one-out", "global-time"]),
        help=f"{_RAW}how to split off validation and test [default: leave-one-out]",
    ),
    click.option(
        "--valid-from", type=int, help="global-time: timestamp at which validation starts, in the unit of the data"
    ),
    click.option("--test-from", type=int, help="global-time: timestamp at which test starts, in the unit of the data"),
    click.option(
        "--valid-fraction",
        type=float,
        help="global-time: the start of validation as a quantile of all timestamps [default: 0.8]",
    ),
    click.option(
        "--test-fraction",
        type=float,
        help="global-time: the start of test as a quantile of all timestamps [default: 0.9]",
    ),
    click.option("--num-users", type=int, help="synthetic: number of users [default: 2000]"),
    click.option("--num-items", type=int, help="synthetic: number of items [default: 600]"),
    click.option(
        "--cold-item-share",
        type=float,
        help="share of the items that are held out of training, so that they are cold: they stay targets of validation "
        "and test [default: none]",
    ),
    click.option(
        "--seed",
        type=int,
        help="seed of the choice of cold items; synthetic: seed of all random numbers [default: 0]",
    ),
    click.option(
        "--shared-interests", is_flag=True, default=None, help="synthetic: all modalities group the items alike"
    ),
]


def _all_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def prepare(
    format: str,
    output: str,
    input: str | Sequence[str] | None = None,
    *,
    append: str | None = None,
    overwrite: bool = False,
    features: Mapping[str, str] | None = None,
    feature_ids: Mapping[str, str] | None = None,
    engine: Engine = "serial",
    cluster: ClusterConfig | None = None,
    **options: Any,
) -> Dataset:
    """Write the dataset `output`, a folder or a URI. `options` are the command's, with underscores in their names.

    Raises:
        InputError: the input, the options or the output are wrong. Then nothing is written.
    """
    # The output is checked first, because reading the input may take long.
    if not is_uri(output):
        check_output(output, overwrite)
    else:
        check_unpublished(output)
    if format == "table":  # other formats read files with names of their own, which no dataset has
        check_apart([input] if isinstance(input, str) else input or (), output)
    folder = work_folder(output) if is_uri(output) else local_path(output)
    growth, naming_origin = None, cast(AbstractContextManager[None], nullcontext())
    if append is not None:
        growth, options, naming_origin = grown(append, output, format, input, options)
    with (
        naming_origin,
        content_of(
            format,
            input,
            features=features or {},
            ids_files=feature_ids or {},
            options=options,
            place=workplace(folder, engine, cluster or ClusterConfig()),
            growth=growth,
        ) as content,
    ):
        if not is_uri(output):
            return write_dataset(output, content, overwrite=overwrite)
        with locked(folder):
            write_dataset(str(folder), content, overwrite=True)  # replaces what an interrupted upload left here
            published(folder, output)
    return Dataset.open(output)


@click.command()
@click.option("--format", required=True, type=click.Choice(FORMATS), help="format of the interactions")
@click.option(
    "--input",
    type=HomePath(),
    multiple=True,
    metavar="PATH",
    help="interactions to read: a file, folder, glob or URI; may be repeated (unisrec: one folder); not for synthetic",
)
@click.option("--output", type=HomePath(), metavar="PATH", required=True, help="dataset folder or URI to write")
@click.option("--overwrite", is_flag=True, help="replace a dataset in the folder OUTPUT, after the new one is complete")
@append_option
@_all_options
@engine_options
@verbose_option
@job
def main(
    features: tuple[str, ...],
    feature_ids: tuple[str, ...],
    engine: Engine | None,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Turn interactions and item features into a dataset folder. docs/data.md describes all formats.

    Repeat the command to continue an interrupted preparation of raw interactions.
    """
    cluster = load_config(None, overrides).cluster
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    files, ids = _pairs("--features", features), _pairs("--feature-ids", feature_ids)
    if (engine or overrides) and given["format"] in WITHOUT_ENGINE:
        flag = f"--engine {engine}" if engine else f"--set {overrides[0]}"
        raise InputError(f"{flag}: is not an option of --format {given['format']}; leave it out")
    dataset = prepare(features=files, feature_ids=ids, engine=engine or "auto", cluster=cluster, **given)
    for line in summary(dataset):
        print(line)
    if given.get("append") is not None:
        print_growth(given["append"], dataset)


def _pairs(flag: str, values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, _, file = value.partition("=")
        if not name or not file or name in pairs:
            raise InputError(f"{flag} {value}: expected NAME=FILE, each name once")
        pairs[name] = file
    return pairs


if __name__ == "__main__":
    main()
