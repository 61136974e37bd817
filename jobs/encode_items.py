"""Turn texts or images into features: jobs/encode_items.py --input ITEMS --encoder minilm --output TEXT"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import pyarrow as pa

from configs.loading import load_config
from contracts.errors import InputError
from contracts.terminal import shows_bars
from data.dataset import Dataset
from data.encoding.encode import EncodingJob, Outcome, check_job, encode_items
from data.encoding.encoders import BUILT_IN, TFIDF
from data.encoding.item_table import ItemTable
from data.encoding.request import EncoderSpec, Modality, Several
from data.encoding.reuse import width_of
from data.layout import ITEMS
from distributed.output import local_bar
from distributed.telemetry import unwatched
from jobs.cli import config_options, job, verbose_option
from jobs.encode_options import encode_options
from jobs.encode_workers import workers

_COLUMNS = {
    ".text": ("item_id:token", "text:token_seq"),  # UniSRec's files
}


@click.command()
@verbose_option
@job
@config_options
@encode_options
@click.option("--overwrite", is_flag=True, help="replace an earlier output, after the new one is complete")
def main(
    config_path: str | None,
    overrides: tuple[str, ...],
    table: str | None,
    dataset: str | None,
    only_missing: str | None,
    output: str,
    encoder: str,
    modality: str | None,
    item_column: str | None,
    text_columns: tuple[str, ...],
    image_column: str | None,
    image_folder: str | None,
    names: str | None,
    reuse: str | None,
    several: str,
    dtype: str,
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
    prefix: str | None,
    width: int | None,
    fit_texts: int | None,
    batch_tokens: int | None,
    batch_pixels: int | None,
    rows_per_part: int,
    engine: str,
    gpus_per_worker: float | None,
    overwrite: bool,
) -> None:
    """Turn the texts or images of items into vectors, for `prepare_data --features`. docs/encoding.md has examples.

    Texts and images that are missing or broken are counted and listed, and their items lack the modality. Nothing is
    downloaded. Repeat the command to continue an interrupted one.
    """
    side = _modality(modality, encoder, text_columns, image_column)
    spec = EncoderSpec(
        name=encoder,
        modality=side,
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        prefix=prefix,
    )
    spec = replace(spec, **_of_tfidf(encoder, reuse, width=width, fit_texts=fit_texts))
    opened = Dataset.open(dataset) if dataset else None
    chosen_columns = (image_column or "image",) if side == "image" else text_columns
    items = _table(table, opened, side, item_column, chosen_columns, names)
    folder = image_folder or str(Path(items.path).absolute().parent)
    encoding = EncodingJob(
        table=items,
        spec=spec,
        output=Path(output).absolute(),
        image_folder=Path(folder).absolute() if side == "image" else None,
        several=cast(Several, several),
        dtype=dtype,
        rows_per_part=rows_per_part,
        reuse=Path(reuse).absolute() if reuse else None,
        only=_wanted(opened, table, only_missing),
    )
    if image_folder and not Path(folder).is_dir():
        raise InputError(
            f"--image-folder {image_folder}: no such folder; name the one that the images' paths start from"
        )
    check_job(encoding, overwrite)
    cluster, places = workers(engine, load_config(config_path, overrides).cluster, gpus_per_worker, encoding.output)
    encoding = replace(encoding, spec=spec.with_batches(places.device, batch_tokens, batch_pixels))
    track = local_bar if shows_bars() else unwatched
    outcome = encode_items(encoding, places, overwrite=overwrite, track=track, cluster=cluster)
    _print_outcome(outcome, output, side)


def _wanted(dataset: Dataset | None, table: str | None, only_missing: str | None) -> pa.Array | None:
    """Return the ids of the items to encode; None: all of the table.

    Raises:
        InputError: no dataset is named, it has no such modality, or no item lacks it.
    """
    if dataset is None:
        if only_missing:
            raise InputError(f"--only-missing {only_missing}: says nothing without a dataset; add --dataset DATASET")
        return None
    if only_missing is None:
        return dataset.item_source_ids() if table else None
    lacking = dataset.item_source_ids().filter(pa.array(~dataset.presence(only_missing)))
    if not len(lacking):
        raise InputError(
            f"--only-missing {only_missing}: no item of {dataset.path} lacks it, so there is nothing to encode"
        )
    return lacking


def _modality(given: str | None, encoder: str, text_columns: tuple[str, ...], image_column: str | None) -> Modality:
    """Return what is encoded.

    Raises:
        InputError: options of the two contradict each other.
    """
    if text_columns and image_column:
        raise InputError("--text-column and --image-column: one command encodes one modality; leave one out")
    side = given or ("image" if image_column or BUILT_IN.get(encoder) == "image" else "text")
    wrong = text_columns if side == "image" else image_column
    if wrong:
        flag = "--text-column" if side == "image" else "--image-column"
        raise InputError(f"{flag}: contradicts the modality {side}; leave it out, or change --modality")
    return cast(Modality, side)


def _of_tfidf(encoder: str, reuse: str | None, **given: int | None) -> dict[str, Any]:
    """Return the options of TF-IDF that are given; the width is that of what is reused.

    Raises:
        InputError: they are given for another encoder.
    """
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if encoder != TFIDF and options:
        name, value = next(iter(options.items()))
        raise InputError(
            f"--{name.replace('_', '-')} {value}: is an option of --encoder {TFIDF}, and other encoders have no such "
            "choice; leave it out"
        )
    if encoder == TFIDF and reuse and "width" not in options and (width := width_of(Path(reuse))):
        options["width"] = width
    return options


def _table(
    path: str | None,
    dataset: Dataset | None,
    side: Modality,
    item_column: str | None,
    columns: tuple[str, ...],
    names: str | None,
) -> ItemTable:
    """Return the table to read: --input, or the items of the dataset.

    Raises:
        InputError: neither is given, or the dataset has no texts.
    """
    if path is None:
        if dataset is None:
            raise InputError("--input: names no table of items; add --input TABLE, or --dataset DATASET with texts")
        if side == "text" and not columns and dataset.item_texts() is None:
            raise InputError(f"--dataset {dataset.path}: holds no texts of items; name a table with --input TABLE")
        return ItemTable(
            path=str(dataset.folder / ITEMS), modality=side, item_column="source_id", columns=columns or (side,)
        )
    if "://" in path:
        raise InputError(f"--input {path}: object storage is not supported; name a local file or folder")
    usual = _COLUMNS.get(Path(path).suffix.lower(), ("item", side))
    listed = tuple(name.strip() for name in names.split(",")) if names else None
    return ItemTable(
        path=str(Path(path).absolute()),
        modality=side,
        item_column=item_column or usual[0],
        columns=columns or (usual[1],),
        names=listed,
    )


def _print_outcome(outcome: Outcome, output: str, side: Modality) -> None:
    manifest = outcome.manifest
    count, present, problems = manifest["num_items"], manifest["num_with_vector"], manifest["num_problems"]
    for reason, number in manifest["problems"].items():
        print(f"  {number:,} {side}s without a vector: {reason}")
    if problems:
        print(f"  {output}/problems.parquet lists them; items without a vector lack the modality")
    if 10 * manifest["problems"].get("no such file", 0) > 9 * (problems + manifest["num_values"]):
        folder = manifest["source"]["image_folder"]
        print(f"  nearly all files are missing in {folder}; if it is the wrong folder, name another by --image-folder")
    facts = manifest["encoder"]
    print(
        f"wrote {output}: {present:,} of {count:,} items have a vector of {facts['width']} values, by {facts['name']}, "
        f"revision {facts['revision'][:12]}"
    )


if __name__ == "__main__":
    main()
