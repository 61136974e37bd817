"""Two small datasets with their graphs, and the same written to disk as one dataset and one graph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from configs.loading import load_config
from data.dataset import Dataset, DatasetContent, Sequences, write_dataset
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from graph_builder.integrity import checksum
from graph_builder.row_blocks import writing_rows

# A has images and texts in float16. B has only texts, in float32.
SPECS = {
    "A": SyntheticSpec(num_users=60, num_items=40, seed=3),
    "B": SyntheticSpec(num_users=50, num_items=45, seed=4, modalities=(("text", 48),), dtype="float32"),
}


class StoredRows:
    """Rows in memory, as `write_dataset` reads them."""

    def __init__(self, rows: np.ndarray, encoder: dict[str, Any] | None = None) -> None:
        self.rows, self.dim, self.dtype = rows, rows.shape[1], rows.dtype
        if encoder is not None:
            self.encoder = encoder

    def blocks(self, block_rows: int):
        yield from (self.rows[first : first + block_rows] for first in range(0, len(self.rows), block_rows))


def make_two(folder: Path) -> tuple[Dataset, Dataset]:
    """Write folder/A and folder/B, and their graphs folder/GA and folder/GB."""
    for name, spec in SPECS.items():
        dataset = write_dataset(str(folder / name), synthetic_content(spec))
        # The number of centres may differ.
        options = load_config(None, [f"graph_options.num_centers={4 if name == 'A' else 3}"]).graph_options
        build_graph(dataset, str(folder / f"G{name}"), options, 0, SerialExecutor())
    return Dataset.open(str(folder / "A")), Dataset.open(str(folder / "B"))


def write_as_one(path: Path, parts: Sequence[Dataset]) -> Dataset:
    """Write the users and items of all datasets, one after the other, as one dataset."""
    firsts = np.cumsum([0, *(part.num_items for part in parts)])
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    features = {}
    for name in sorted({name for part in parts for name in part.modalities}):
        rows = {part.path: np.array(part.features(name)) for part in parts if name in part.modalities}
        dtypes = {array.dtype for array in rows.values()}
        width = next(iter(rows.values())).shape[1]
        blank = [rows.get(part.path, np.zeros((part.num_items, width))) for part in parts]
        features[name] = StoredRows(np.concatenate(blank).astype(dtypes.pop() if len(dtypes) == 1 else np.float32))
    names = [part.path.rsplit("/", 1)[-1] for part in parts]

    def ids(of: str) -> pa.Array:
        listed = [
            f"{name}/{one}" for name, part in zip(names, parts, strict=True) for one in getattr(part, of)().to_pylist()
        ]
        return pa.array(listed, pa.large_string())

    return write_dataset(
        str(path),
        DatasetContent(
            sequences=Sequences(
                offsets=np.concatenate([[0], np.cumsum(lengths)]),
                items=np.concatenate([part.items + first for part, first in zip(parts, firsts, strict=False)]),
                timestamps=np.concatenate([part.timestamps for part in parts if part.timestamps is not None]),
                train_end=np.concatenate([part.train_end for part in parts]),
                valid_end=np.concatenate([part.valid_end for part in parts]),
            ),
            user_source_ids=ids("user_source_ids"),
            item_source_ids=ids("item_source_ids"),
            item_texts=pa.concat_arrays([part.item_texts() for part in parts]),
            features=features,
        ),
    )


def write_graph_as_one(folder: Path, dataset: Dataset, graphs: Sequence[Graph]) -> None:
    """Write the graphs of datasets, one after the other, as the graph of the dataset that `write_as_one` made."""
    counts, width = [graph.num_items for graph in graphs], int(graphs[0].parameters["num_neighbors"])
    firsts = np.cumsum([0, *counts])
    for name in ("cooccurrence", "neighbors", "clusters"):
        (folder / name).mkdir(parents=True)
    with writing_rows(folder / "cooccurrence" / "block-00000") as writer:
        for graph, first in zip(graphs, firsts, strict=False):
            indptr, items, weights = graph.cooccurrence_rows(np.arange(graph.num_items))
            writer.append(np.diff(indptr), np.ascontiguousarray(items + first), np.ascontiguousarray(weights))
    modalities = {}
    for name in sorted({name for graph in graphs for name in graph.modalities}):
        neighbors, scores, clusters, centers, num_centers = [], [], [], [], 0
        for graph, first in zip(graphs, firsts, strict=False):
            own = np.full((graph.num_items, width), -1)
            own[:, 0] = np.arange(graph.num_items)
            labels, cosines = np.full(graph.num_items, -1), np.zeros((graph.num_items, width), np.float32)
            if name in graph.modalities:
                own, labels = np.array(graph.neighbors(name)), np.array(graph.clusters(name))
                cosines = np.array(graph.neighbor_scores(name))
                labels[labels >= 0] += num_centers
                num_centers += graph.num_centers(name)
                centers.append(graph.centers(name))
            own[own >= 0] += first
            neighbors.append(own), scores.append(cosines), clusters.append(labels)
        for file, arrays in {
            f"neighbors/{name}.npy": neighbors,
            f"neighbors/{name}.scores.npy": scores,
            f"clusters/{name}.npy": clusters,
            f"clusters/{name}.centers.npy": centers,
        }.items():
            np.save(folder / file, np.concatenate(arrays))
        modalities[name] = {"num_present": sum(int((one >= 0).sum()) for one in clusters), "num_centers": num_centers}
    manifest = graphs[0].manifest | {
        "dataset": {"path": dataset.path, "fingerprint": dataset.fingerprint},
        "fingerprint": "of the graph as one",
        "num_items": int(firsts[-1]),
        "cooccurrence": graphs[0].manifest["cooccurrence"] | {"block_rows": int(firsts[-1])},
        "modalities": modalities,
    }
    manifest["checksum"] = checksum(folder, manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
