"""Create a folder with one small, correct input of every kind; each case gets a copy.

raw.csv raw.parquet raw.jsonl Toy.inter     60 users, 30 items, (user, item, timestamp)
unisrec/Toy.*                               the same as sequential files
text.npy text.ids text.parquet              features of the 30 items
dataset graph                               of raw.parquet, with its graph
other                                       another dataset
run                                         a trained SASRec
histories.parquet                           sequences for graphs without a dataset
config.yaml
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from configs.loading import load_config
from data.dataset import Dataset
from distributed.training.trainer import train
from distributed.world import world_of_one
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs.prepare_data import prepare
from tests.data.small_files import write_unisrec

NUM_USERS, NUM_ITEMS, LENGTH = 60, 30, 8
SETTINGS = [
    "model.name=sasrec",
    "model.dim=8",
    "model.num_heads=2",
    "model.dropout=0.2",
    "training.max_epochs=1",
    "cluster.num_workers=1",
]
GRAPH_SETTINGS = ["graph_options.num_centers=3", "graph_options.num_neighbors=4"]


def make_world(here: Path) -> None:
    """Fill an empty folder with the inputs listed above."""
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.permutation(NUM_ITEMS)[:LENGTH] for _ in range(NUM_USERS)])
    chosen[:, 0] = np.arange(NUM_USERS) % NUM_ITEMS  # every item occurs; an item may repeat in a history
    _write_raw(here, chosen)
    write_unisrec(here / "unisrec", chosen.tolist())
    features = rng.normal(size=(NUM_ITEMS, 6)).astype(np.float32)
    names = [f"i{item}" for item in range(NUM_ITEMS)]
    np.save(here / "text.npy", features)
    (here / "text.ids").write_text("\n".join(names) + "\n")
    pq.write_table(pa.table({"item": names, "vector": list(features)}), here / "text.parquet")
    pq.write_table(pa.table({"items": chosen.tolist()}), here / "histories.parquet")

    dataset, graph, run = (str(here / name) for name in ("dataset", "graph", "run"))
    prepare("table", dataset, str(here / "raw.parquet"), features={"text": str(here / "text.parquet")})
    prepare("synthetic", str(here / "other"), num_users=30, num_items=20)
    folders = [f"dataset={dataset}", f"graph={graph}", f"run={run}"]
    options = load_config(None, GRAPH_SETTINGS).graph_options
    build_graph(Dataset.open(dataset), graph, options, 0, SerialExecutor())
    with world_of_one() as world:
        train(load_config(None, [*folders, *SETTINGS]), world)
    shutil.rmtree(here / "run" / "tensorboard")
    (here / "config.yaml").write_text("model:\n  dim: 8\n  num_heads: 2\n  dropout: 0.2\n")


def _write_raw(here: Path, chosen: np.ndarray) -> None:
    users, items = np.repeat(np.arange(NUM_USERS), LENGTH), chosen.ravel()
    times = 1_300_000_000 + np.tile(np.arange(LENGTH), NUM_USERS) * 60 + users
    table = pa.table({"user": [f"u{u}" for u in users], "item": [f"i{i}" for i in items], "timestamp": times})
    pq.write_table(table, here / "raw.parquet")
    pacsv.write_csv(table, here / "raw.csv")
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    lines = [f'{{"user": "{user}", "item": "{item}", "timestamp": {time}}}' for user, item, time in rows]
    (here / "raw.jsonl").write_text("\n".join(lines) + "\n")
    typed = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    (here / "Toy.inter").write_text("\n".join(typed) + "\n")
