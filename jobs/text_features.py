"""Words of the item texts as a modality: python jobs/text_features.py --dataset DATASET --output lexical.parquet."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import InputError
from data.dataset import Dataset
from data.lexical import lexical_features
from distributed.ray_cluster import absolute_file
from jobs.cli import check_output, job

MARK = {b"made_by": b"jobs/text_features.py"}


@click.command()
@click.option("--dataset", required=True, help="dataset whose items have texts")
@click.option("--output", required=True, help="Parquet file to write: item, vector")
@click.option("--width", default=384, show_default=True, type=click.IntRange(min=1), help="of a vector")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="of the decomposition")
@click.option("--overwrite", is_flag=True, help="replace an earlier output")
@job
def main(dataset: str, output: str, width: int, seed: int, overwrite: bool) -> None:
    """TF-IDF over words and pairs of words, reduced to WIDTH singular vectors; runs in this process.

    Prepare the dataset again with `--features lexical=OUTPUT` beside its others: MDSRec takes it as one more modality.
    """
    target = Path(absolute_file("output", output))
    check_output(target, overwrite, _is_ours, "no file of this job")
    opened = Dataset.open(dataset)
    opened.validate()
    texts = opened.item_texts()
    if texts is None:
        raise InputError(
            f"--dataset {dataset}: its items have no texts; prepare it from a source that has them (docs/data.md)"
        )
    vectors = lexical_features(texts.to_pylist(), width, seed)
    present = vectors.any(axis=1)
    flat = pa.array(vectors.ravel())
    columns = {"item": opened.item_source_ids(), "vector": pa.FixedSizeListArray.from_arrays(flat, width)}
    table = pa.table(columns).filter(pa.array(present)).replace_schema_metadata(MARK)
    aside = target.with_name(f".{target.name}.unfinished")
    try:
        pq.write_table(table, aside)
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(
            f"--output {target}: cannot be written ({error.strerror or error}); free space or change permissions"
        ) from None
    print(f"wrote {target}: {len(table):,} of {len(vectors):,} items, {width} values each")


def _is_ours(path: Path) -> bool:
    try:
        return (pq.read_schema(path).metadata or {}).items() >= MARK.items()
    except (pa.ArrowException, OSError):
        return False


if __name__ == "__main__":
    main()
