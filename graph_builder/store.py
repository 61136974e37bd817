"""The graph on disk: what a finished folder holds, and read access that checks before it trusts.

manifest.json                            written last: a folder without one is unfinished
cooccurrence/block-*.{indptr,indices,weights}.npy      normalised O, see row_blocks.py
neighbors/<m>.npy, <m>.scores.npy        int64 and float32 [N, H]: top-H ids, cosines
clusters/<m>.npy, <m>.centers.npy        int64 [N], float32 [k, d]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from configs.knobs import Decides, all_knobs, decides
from configs.schema import GraphConfig
from contracts.errors import InputError
from graph_builder.integrity import check_checksum
from graph_builder.row_blocks import CooccurrenceRows, check_range, open_array
from storage import manifest as stored_manifest
from storage.fingerprints import value_digest
from storage.manifest import MANIFEST, Field, ManifestSchema

SCHEMA_VERSION = 1
KIND = "item graph"
# How and where a graph is computed, not what it is.
LAYOUT_FIELDS = frozenset(name for name, info in all_knobs(GraphConfig) if decides(info) != Decides.GRAPH)


class Graph:
    """A finished graph, memory-mapped (implements `contracts.graph_rows.GraphRows`).

    Attributes:
        manifest: the content of manifest.json.
        num_items: N.
        modalities: names, ascending.
        fingerprint: of the dataset and every parameter that shapes the graph.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Use `Graph.open`."""
        self.path = path
        self.manifest = manifest
        self.num_items: int = manifest["num_items"]
        self.modalities: tuple[str, ...] = tuple(manifest["modalities"])
        self.fingerprint: str = manifest["fingerprint"]
        num_neighbors = manifest["parameters"]["num_neighbors"]
        block_rows = manifest["cooccurrence"]["block_rows"]
        self._cooccurrence = CooccurrenceRows(path / "cooccurrence", block_rows, self.num_items)
        self._cooccurrence.open_all()
        self._neighbors: dict[str, np.ndarray] = {}
        self._scores: dict[str, np.ndarray] = {}
        self._clusters: dict[str, np.ndarray] = {}
        self._centers: dict[str, np.ndarray] = {}
        for m in self.modalities:
            file = path / "neighbors" / f"{m}.npy"
            self._neighbors[m] = open_array(file, np.int64, (self.num_items, num_neighbors))
            check_range(self._neighbors[m], -1, self.num_items, file)
            scores = path / "neighbors" / f"{m}.scores.npy"
            self._scores[m] = open_array(scores, np.float32, (self.num_items, num_neighbors))
            num_centers = manifest["modalities"][m]["num_centers"]
            file = path / "clusters" / f"{m}.npy"
            self._clusters[m] = open_array(file, np.int64, (self.num_items,))
            check_range(self._clusters[m], -1, num_centers, file)
            self._centers[m] = open_array(path / "clusters" / f"{m}.centers.npy", np.float32, (num_centers, -1))

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        dataset_fingerprint: str | None = None,
        dataset_path: str | None = None,
        expected: dict[str, Any] | None = None,
    ) -> Graph:
        """Open and check a graph: form, lengths, ranges (of O's ids when they are read), and whose it is.

        Args:
            dataset_fingerprint: of the dataset it must have been built from (null: any).
            dataset_path: where that dataset lies, for the error message.
            expected: parameters (fields of GraphConfig) the graph must have been built with; those that
                do not shape the result (LAYOUT_FIELDS) are not compared.

        Raises:
            InputError: no graph, an unfinished one, another dataset's, other parameters, or damaged.
        """
        folder = local_folder(path)
        manifest = read_manifest(folder)
        built_from = manifest["dataset"]
        if dataset_fingerprint is not None and built_from["fingerprint"] != dataset_fingerprint:
            raise InputError(
                f"graph {folder} was built from dataset {built_from['path']} (fingerprint {built_from['fingerprint']}) "
                f"and does not belong to {dataset_path or 'the dataset in use'} (fingerprint {dataset_fingerprint}); "
                "name the graph of that dataset, or build one with jobs/build_graph.py"
            )
        for name in (expected or {}).keys() - LAYOUT_FIELDS:
            wanted, found = (expected or {})[name], manifest["parameters"].get(name)
            if found != wanted:
                raise InputError(
                    f"graph {folder} was built with graph_options.{name}={found!r}, the config says {wanted!r}; "
                    "change the config, or build the graph again with jobs/build_graph.py"
                )
        return cls(folder, manifest)

    def validate(self) -> None:
        """Compare every byte with the checksum; jobs call it once, before any worker starts.

        Raises:
            InputError: a file was altered since the graph was built, or is a link that leads out of the folder.
        """
        check_checksum(self.path, self.manifest)

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normalised rows of O in the order asked for: indptr int64 [n+1], items int64, weights float32 [nnz]."""
        return self._cooccurrence.rows(items)

    def neighbors(self, modality: str) -> np.ndarray:
        """Top-H neighbours int64 [N, H], best first, padded with -1; a missing item's row is itself, then -1."""
        return self._neighbors[modality]

    def neighbor_scores(self, modality: str) -> np.ndarray:
        """Cosines of `neighbors`, float32 [N, H]; 0 where padded or missing."""
        return self._scores[modality]

    def clusters(self, modality: str) -> np.ndarray:
        """Cluster of each item, int64 [N]; -1 where the modality is missing."""
        return self._clusters[modality]

    def num_centers(self, modality: str) -> int:
        """k, empty clusters included."""
        return len(self._centers[modality])

    def centers(self, modality: str) -> np.ndarray:
        """Centres in feature space, float32 [k, d_m]."""
        return self._centers[modality]


def local_folder(path: str | Path) -> Path:
    """The path as an absolute local one.

    Raises:
        InputError: a URI; the jobs copy what it holds to a local folder (`object_storage.fetched`).
    """
    if "://" in str(path):
        raise InputError(f"graph={path}: is a URI where a local folder is needed; name a path, or use the jobs")
    return Path(path).absolute()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished graph, with the fields of `SCHEMA`.

    Raises:
        InputError: see `storage.manifest.read_manifest`.
    """
    return stored_manifest.read_manifest(folder, SCHEMA)


def _missing(folder: Path) -> str:
    if (folder / "work").exists():
        return f"graph {folder}: is unfinished; run jobs/build_graph.py again, it continues"
    return f"graph {folder}: has no {MANIFEST}; build it with jobs/build_graph.py --set graph={folder}"


SCHEMA = ManifestSchema(
    what="graph",
    kind=KIND,
    maker="jobs/build_graph.py",
    version=SCHEMA_VERSION,
    fields=(
        Field("fingerprint", str),
        Field("checksum", str),
        Field("finished", bool),
        Field("num_items", int, least=1),
        Field("parameters", dict),
        Field("parameters.num_neighbors", int, least=1),
        Field("cooccurrence", dict),
        Field("cooccurrence.block_rows", int, least=1),
        Field("dataset", dict),
        Field("dataset.path", str),
        Field("dataset.fingerprint", str),
        Field("modalities", dict),
    ),
    modality_fields=(Field("num_centers", int, least=1),),
    again="build the graph again",
    missing=_missing,
)


def graph_fingerprint(dataset_fingerprint: str, parameters: dict[str, Any], seed: int) -> str:
    """Names a graph by what it is built from: equal fingerprints, interchangeable graphs."""
    identity = {"schema": SCHEMA_VERSION, "dataset": dataset_fingerprint, "parameters": parameters, "seed": seed}
    return value_digest(identity)
