"""The options of `jobs/encode_items.py`, but those that all jobs have."""

from __future__ import annotations

from collections.abc import Callable

import click

from data.encoding.encoders import BUILT_IN
from data.encoding.text_models import POOLINGS
from jobs.cli import HomePath

_OPTIONS = [
    click.option(
        "--input",
        "table",
        type=HomePath(),
        metavar="TABLE",
        help="table of items: .parquet (or a folder of such files), .csv, .tsv, .text or .jsonl, also with .gz or .zst",
    ),
    click.option(
        "--dataset",
        type=HomePath(),
        metavar="DATASET",
        help="a dataset: without --input, its items' texts are encoded; with --input, only its items are",
    ),
    click.option(
        "--only-missing",
        metavar="NAME",
        help="encode only those items of --dataset that lack the modality NAME, as new items of a grown dataset do",
    ),
    click.option(
        "--output",
        type=HomePath(),
        metavar="FOLDER",
        required=True,
        help="folder to write, for `prepare_data.py --features NAME=FOLDER`",
    ),
    click.option(
        "--encoder",
        type=HomePath(),
        metavar="NAME",
        required=True,
        help=f"{', '.join(BUILT_IN)}, or a folder with a Hugging Face text model, a sentence-transformers model, "
        "CLIP or SigLIP",
    ),
    click.option(
        "--modality",
        type=click.Choice(["text", "image"]),
        help="what is encoded [default: image if --image-column or the encoder says so, else text]",
    ),
    click.option("--item-column", help="column with the items' ids [default: item]"),
    click.option(
        "--text-column",
        "text_columns",
        multiple=True,
        help="column with texts, or lists of texts; several are joined by spaces [default: text]",
    ),
    click.option(
        "--image-column", help="column with paths of image files, lists of paths, or bytes (Parquet) [default: image]"
    ),
    click.option("--image-folder", type=HomePath(), metavar="FOLDER", help="folder that the paths start from"),
    click.option("--names", metavar="A,B,...", help="names of the columns of a .csv or .tsv file without a header"),
    click.option(
        "--reuse",
        type=HomePath(),
        metavar="FOLDER",
        help="an earlier output with the same encoder: items that have a vector there are not encoded again",
    ),
    click.option(
        "--several",
        type=click.Choice(["mean", "list"]),
        default="mean",
        show_default=True,
        help="several texts or images of an item: their mean, or also every vector, kept as lists",
    ),
    click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True),
    click.option(
        "--pooling",
        type=click.Choice(POOLINGS),
        help="how vectors of tokens become one [default: what the folder says, else mean]",
    ),
    click.option(
        "--normalize/--no-normalize",
        default=None,
        help="divide vectors by their length [default: what the folder says, else not]",
    ),
    click.option(
        "--max-length",
        type=click.IntRange(min=1),
        help="most tokens of a text that are read [default: the model's limit]",
    ),
    click.option("--prefix", help="put before every text, such as 'passage: ' for E5 [default: what the folder says]"),
    click.option(
        "--width",
        type=click.IntRange(min=1),
        help="tfidf: values of a vector [default: 128; with --reuse, as many as there]",
    ),
    click.option(
        "--fit-texts",
        type=click.IntRange(min=2),
        help="tfidf: number of texts that the projection is computed from [default: 200,000]",
    ),
    click.option(
        "--batch-tokens",
        type=click.IntRange(min=1),
        help="most tokens of a batch, padding included [default: 2,048 on CPUs, 65,536 on GPUs]",
    ),
    click.option(
        "--batch-pixels",
        type=click.IntRange(min=1),
        help="most pixels of a batch, after images were resized [default: 32 images of 224 x 224 on CPUs, 256 on GPUs]",
    ),
    click.option(
        "--rows-per-part",
        type=click.IntRange(min=1),
        default=4096,
        show_default=True,
        help="rows that become one file; finished files are kept when the command is repeated",
    ),
    click.option(
        "--engine",
        type=click.Choice(["auto", "serial", "ray"]),
        default="auto",
        show_default=True,
        help="serial: in this process; ray: on a cluster, with cluster.num_workers workers; auto: serial if "
        "cluster.num_workers is not set or 1, no cluster is named, or Ray is not installed",
    ),
    click.option(
        "--gpus-per-worker",
        type=click.FloatRange(min=0),
        help="GPUs that each worker reserves, such as 0.5 [default: 1 if the cluster has GPUs]",
    ),
]


def encode_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
