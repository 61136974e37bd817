"""Cases of bad input for jobs/build_graph.py and jobs/export.py."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import (
    array,
    both,
    copy,
    cut,
    flip,
    folder,
    json_field,
    link,
    matrix,
    move,
    put,
    remove,
    table,
    write,
)  # fmt: skip

_SMALL = "--set graph_options.num_centers=3 --set graph_options.num_neighbors=4"
_NEW = f"--set graph={{here}}/new {_SMALL}"
_DATASET = f"build_graph --set dataset={{here}}/dataset {_NEW}"
_FEATURES = f"build_graph --features {{here}}/text.npy {_NEW}"
_SEQUENCES = f"build_graph --sequences {{here}}/histories.parquet {_NEW}"
_MANIFEST = "dataset/manifest.json"

DATASETS = Group(
    "jobs/build_graph.py: datasets",
    (
        Case("no such dataset", _DATASET, remove("dataset")),
        Case("no dataset named", f"build_graph {_NEW}"),
        Case("a raw file for a dataset", _DATASET.replace("/dataset", "/raw.csv")),
        Case("a graph for a dataset", _DATASET.replace("/dataset", "/graph")),
        Case("an unfinished dataset", _DATASET, remove(_MANIFEST)),
        Case("the manifest is cut off", _DATASET, cut(_MANIFEST, 0.5)),
        Case("the manifest is a list", _DATASET, write(_MANIFEST, "[]")),
        Case("the manifest is nested too deeply", _DATASET, write(_MANIFEST, "[" * 100_000)),
        Case("the manifest is not text", _DATASET, write(_MANIFEST, b"\xff\xfe{}")),
        Case("a dataset of a later version", _DATASET, json_field(_MANIFEST, "schema_version", value=99)),
        Case("a count that is text", _DATASET, json_field(_MANIFEST, "num_items", value="30")),
        Case("a count that is negative", _DATASET, json_field(_MANIFEST, "num_items", value=-30)),
        Case("a count that is true", _DATASET, json_field(_MANIFEST, "num_items", value=True)),
        Case("another count of users", _DATASET, json_field(_MANIFEST, "num_users", value=59)),
        Case(
            "the manifest lacks the facts of a modality",
            _DATASET,
            json_field(_MANIFEST, "modalities", "text", value={}),
        ),
        Case("a modality is a list", _DATASET, json_field(_MANIFEST, "modalities", "text", value=[1])),
        Case(
            "a modality that leaves the folder",
            _DATASET,
            json_field(
                _MANIFEST, "modalities", value={"../../text": {"dim": 6, "dtype": "float32", "num_present": 30}}
            ),
        ),
        Case(
            "the manifest says that there are no timestamps",
            _DATASET,
            json_field(_MANIFEST, "has_timestamps", value=False),
        ),
        Case("a file is missing", _DATASET, remove("dataset/users.parquet")),
        Case("a file is truncated", _DATASET, cut("dataset/sequences.arrow", 0.9)),
        Case("a folder for a file", _DATASET, both(remove("dataset/items.parquet"), folder("dataset/items.parquet"))),
        Case(
            "features lie elsewhere",
            _DATASET,
            both(copy("dataset/features/text.npy", "away.npy"), link("dataset/features/text.npy", "away.npy")),
        ),
        Case("one bit of the features differs", _DATASET, flip("dataset/features/text.npy", 0.9)),
        Case("one bit of the items differs", _DATASET, flip("dataset/sequences.arrow", 0.4)),
        Case("one bit of the ids differs", _DATASET, flip("dataset/users.parquet", 0.1)),
        Case("another dataset's items", _DATASET, copy("other/items.parquet", "dataset/items.parquet")),
        Case(
            "a dataset at a URI with credentials", _DATASET.replace("{here}/dataset", "s3://key:secret@bucket/dataset")
        ),
        Case("a dataset at a URI with ..", _DATASET.replace("{here}/dataset", "s3://bucket/../dataset")),
    ),
)

FILES = Group(
    "jobs/build_graph.py: features and sequences without a dataset",
    (
        Case("features that are not there", _FEATURES, remove("text.npy")),
        Case("features called like the item IDs", f"build_graph --features id={{here}}/text.npy {_NEW}"),
        Case("features that are a folder", _FEATURES, folder("text.npy")),
        Case("features in float64", _FEATURES, array("text.npy", lambda x: x.astype(float))),
        Case("features of Python objects", _FEATURES, array("text.npy", lambda _: np.array([{}]))),
        Case("features in column order", _FEATURES, array("text.npy", np.asfortranarray)),
        Case("features of one dimension", _FEATURES, array("text.npy", lambda x: x[0])),
        Case("features of no items", _FEATURES, array("text.npy", lambda x: x[:0])),
        Case("features cut off", _FEATURES, cut("text.npy", 0.5)),
        Case("features with a NaN", _FEATURES, put("text.npy", (4, 1), np.nan)),
        Case("features with an infinity", _FEATURES, put("text.npy", (4, 1), -np.inf)),
        Case("features of zeros alone", _FEATURES, array("text.npy", np.zeros_like)),
        Case("features in an unknown version of .npy", _FEATURES, write("text.npy", b"\x93NUMPY\x09\x00garbage")),
        Case(
            "two files of different lengths",
            f"{_FEATURES} --features more={{here}}/more.npy",
            array("more.npy", lambda _: np.ones((9, 2), np.float32)),
        ),
        Case("a URI for features", f"build_graph --features s3://bucket/text.npy {_NEW}"),
        Case("sequences that are not there", _SEQUENCES, remove("histories.parquet")),
        Case("sequences that are text", _SEQUENCES, write("histories.parquet", "1 2 3\n")),
        Case("sequences cut off", _SEQUENCES, cut("histories.parquet", 0.5)),
        Case("sequences without the column", _SEQUENCES, table("histories.parquet", history=[[1]])),
        Case("sequences of names", _SEQUENCES, table("histories.parquet", items=[["a"]])),
        Case("a null among the items", _SEQUENCES, table("histories.parquet", items=[[1], [2, None]])),
        Case("a negative item", _SEQUENCES, table("histories.parquet", items=[[1], [2, -3]])),
        Case("an item beyond the catalogue", f"{_SEQUENCES} --num-items 20"),
        Case("an item id too large for any memory", _SEQUENCES, table("histories.parquet", items=[[1], [2**60]])),
        Case(
            "an item beyond int64",
            _SEQUENCES,
            table("histories.parquet", items=pa.array([[1], [2**63 + 5]], pa.list_(pa.uint64()))),
        ),
        Case("a train_end outside its list", _SEQUENCES, table("histories.parquet", items=[[1, 2]], train_end=[3])),
        Case("no sequences", _SEQUENCES, table("histories.parquet", items=pa.array([], pa.list_(pa.int64())))),
        Case("a dataset and files", f"{_DATASET} --features {{here}}/text.npy"),
    ),
)

OPTIONS = Group(
    "jobs/build_graph.py: knobs, plans and the graph folder",
    (
        Case("more centres than items", f"{_DATASET} --set graph_options.num_centers=31"),
        Case("no neighbours", f"{_DATASET} --set graph_options.num_neighbors=0"),
        Case("a weight that is infinite", f"{_DATASET} --set graph_options.mu=.inf"),
        Case("a GPU that is not there", f"{_DATASET} --set graph_options.backend=cuda"),
        Case("a cluster for a build without one", f"{_DATASET} --executor serial --set cluster.address=head:6379"),
        Case("no graph named", "build_graph --set dataset={here}/dataset"),
        Case("the graph is a file", _DATASET.replace("/new", "/text.npy")),
        Case("the graph's folder is a dataset", _DATASET.replace("/new", "/other")),
        Case("the graph's folder holds other things", _DATASET, write("new/notes.txt", "mine")),
        Case("a part of the graph is a link", _DATASET, both(folder("new"), link("new/neighbors", "unisrec"))),
        Case("the graph lies in a file", _DATASET.replace("/new", "/text.npy/new")),
        Case("the graph is a URI of another service", _DATASET.replace("{here}/new", "hdfs://bucket/graph")),
        Case("a plan without sizes", "build_graph --plan"),
        Case("a plan's output exists", "build_graph --plan --num-items 9 --plan-output {here}/text.npy"),
        Case("a plan's rate is zero", "build_graph --plan --num-items 9 --gemm-tflops 0"),
    ),
)

_EXPORT = "export --graph {here}/graph --what cooccurrence --to npz --output {here}/o.npz"
_NEIGHBORS = _EXPORT.replace("cooccurrence", "neighbors:text")
EXPORTS = Group(
    "jobs/export.py",
    (
        Case("no such graph", _EXPORT, remove("graph")),
        Case("a dataset for a graph", _EXPORT.replace("/graph", "/dataset")),
        Case("an unfinished graph", _EXPORT, move("graph/manifest.json", "graph/work")),
        Case("the graph's manifest is cut off", _EXPORT, write("graph/manifest.json", '{"kind": "item graph", "num_')),
        Case("a graph of a later version", _EXPORT, json_field("graph/manifest.json", "schema_version", value=2)),
        Case("a manifest that lacks a field", _EXPORT, json_field("graph/manifest.json", "parameters", value={})),
        Case(
            "a manifest with text for a number", _EXPORT, json_field("graph/manifest.json", "num_items", value="many")
        ),
        Case("blocks of no rows", _EXPORT, json_field("graph/manifest.json", "cooccurrence", "block_rows", value=0)),
        Case(
            "a graph's modality that leaves the folder",
            _EXPORT,
            json_field("graph/manifest.json", "modalities", value={"../../x": {"num_centers": 3}}),
        ),
        Case("a block is missing", _EXPORT, remove("graph/cooccurrence/block-00000.weights.npy")),
        Case("a block is truncated", _EXPORT, cut("graph/cooccurrence/block-00000.indices.npy", 0.9)),
        Case("a neighbour that does not exist", _NEIGHBORS, put("graph/neighbors/text.npy", (3, 1), 30)),
        Case("one bit of a weight differs", _EXPORT, flip("graph/cooccurrence/block-00000.weights.npy", 0.9)),
        Case("one bit of a score differs", _NEIGHBORS, flip("graph/neighbors/text.scores.npy", 0.9)),
        Case("neighbours of another type", _NEIGHBORS, array("graph/neighbors/text.npy", lambda x: x.astype(np.int32))),
        Case(
            "a link in a graph",
            _EXPORT,
            both(copy("graph/clusters/text.npy", "away.npy"), link("graph/clusters/text.npy", "away.npy")),
        ),
        Case("an unknown matrix", _EXPORT.replace("cooccurrence", "neighbors:sound")),
        Case("an unknown format", _EXPORT.replace("npz --output", "csv --output")),
        Case("the output is in the graph", _EXPORT.replace("{here}/o", "{here}/graph/o")),
        Case("the output's folder is not there", _EXPORT.replace("{here}/o", "{here}/none/o")),
        Case("the output is a folder", _EXPORT, folder("o.npz")),
        Case("the output is something else", f"{_EXPORT} --overwrite", write("o.npz", "mine")),
        Case("the output is called by another format", _EXPORT.replace("o.npz", "o.parquet")),
        Case("an edge index called .npz", _EXPORT.replace("--to npz", "--to edge_index")),
        Case("the output is there", _EXPORT, matrix("o.npz")),
    ),
)

GROUPS = (DATASETS, FILES, OPTIONS, EXPORTS)
