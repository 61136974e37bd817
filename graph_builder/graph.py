"""A finished graph: the files in its folder, and a class that checks and reads them.

manifest.json                                      written last: a folder without one is unfinished
cooccurrence/block-*.{indptr,indices,weights}.npy  normalised O, see row_blocks.py
neighbors/<m>.npy, <m>.scores.npy                  int64 and float32 [N, H]: ids of the top H, cosines
clusters/<m>.npy, <m>.centers.npy                  int64 [N], float32 [k, d]: each item's centre, the centres
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
# The knobs that decide how and where a graph is computed. They do not decide its content.
USER_SHARE = "user_share"  # the parameter of a graph that counts a share of the users
LAYOUT_FIELDS = frozenset(name for name, info in all_knobs(GraphConfig) if decides(info) != Decides.GRAPH)


class Graph:
    """A finished graph, memory-mapped (implements `contracts.graph_rows.GraphRows`).

    Attributes:
        manifest: the content of manifest.json.
        num_items: N.
        modalities: names, ascending.
        fingerprint: of the dataset and every parameter that shapes the graph.
        parameters: the knobs of `GraphConfig` that shaped the graph.
        user_share: share of the users whose training sequences were counted; `seed` chose them.
        seed: the seed of the build.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Use `Graph.open`."""
        self.path = path
        self.manifest = manifest
        self.num_items: int = manifest["num_items"]
        self.modalities: tuple[str, ...] = tuple(manifest["modalities"])
        self.fingerprint: str = manifest["fingerprint"]
        self.parameters: dict[str, Any] = manifest["parameters"]
        self.user_share: float = self.parameters.get(USER_SHARE, 1.0)
        self.seed: int | None = manifest.get("seed")
        num_neighbors = self.parameters["num_neighbors"]
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
        """Open a graph and check its files' dtypes and shapes, the ranges of its ids, and which dataset it belongs to.

        The ids of O are checked when they are read.

        Args:
            path: the graph's folder.
            dataset_fingerprint: the fingerprint of the dataset that the graph must have been built from; null: any.
            dataset_path: where that dataset is stored, for the error message.
            expected: the parameters (fields of GraphConfig) that the graph must have been built with. Parameters that
                do not change the result (LAYOUT_FIELDS) are not compared.

        Raises:
            InputError: there is no graph, or it is unfinished, damaged, of another dataset, or of other parameters.
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
        """Compute the checksum of all files and compare it. Jobs call this once, before any worker starts.

        Raises:
            InputError: a file was altered since the graph was built, or is a link that leads out of the folder.
        """
        check_checksum(self.path, self.manifest)

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return normalised rows of O as requested: indptr int64 [n+1], items int64 [nnz], weights float32 [nnz]."""
        return self._cooccurrence.rows(items)

    def neighbors(self, modality: str) -> np.ndarray:
        """Return the top-H neighbours, int64 [N, H], best first, padded with -1; of a missing item, itself, then -1."""
        return self._neighbors[modality]

    def neighbor_scores(self, modality: str) -> np.ndarray:
        """Return the cosines of `neighbors`, float32 [N, H]; 0 where padded or missing."""
        return self._scores[modality]

    def clusters(self, modality: str) -> np.ndarray:
        """Return the cluster of each item, int64 [N]; -1 where the modality is missing."""
        return self._clusters[modality]

    def num_centers(self, modality: str) -> int:
        """Return k, the number of centres, including those of empty clusters."""
        return len(self._centers[modality])

    def centers(self, modality: str) -> np.ndarray:
        """Return the centres in feature space, float32 [k, d_m]."""
        return self._centers[modality]


def local_folder(path: str | Path) -> Path:
    """Return the absolute path of a local folder.

    Raises:
        InputError: the path is a URI. The jobs copy the objects of a URI to a local folder
            (`object_cache.fetched`).
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
    """Return the SHA-256 of a graph's inputs. Graphs with equal fingerprints are interchangeable."""
    identity = {"schema": SCHEMA_VERSION, "dataset": dataset_fingerprint, "parameters": parameters, "seed": seed}
    return value_digest(identity)
