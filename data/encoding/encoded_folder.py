"""The finished folder of an encoding: written from the parts' files, read by `jobs/prepare_data.py --features`.

N items in the order in which the table names them first, L vectors in all, W width:

    vectors.npy          float32 or float16 [N, W]; the mean of an item's vectors; zeros: the item has none
    items.parquet        item (source id), num_values (vectors of the item)
    problems.parquet     item, value (its place among the item's), source, reason: texts and images without a vector
    list_vectors.npy     [L, W] with --several list: every vector, item after item
    list_offsets.npy     int64 [N+1]: the vectors of item i are list_vectors[list_offsets[i]:list_offsets[i + 1]]
    tfidf.safetensors    what TF-IDF has learned, if it is the encoder
    manifest.json        the encoder and counts; written last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.layout import UNREADABLE
from storage.array_file import map_array
from storage.manifest import MANIFEST, Field, ManifestSchema, read_manifest

KIND, VERSION = "encoded items", 1
VECTORS, ITEMS, PROBLEMS = "vectors.npy", "items.parquet", "problems.parquet"
LIST_VECTORS, LIST_OFFSETS, FITTED = "list_vectors.npy", "list_offsets.npy", "tfidf.safetensors"
BLOCK_ROWS = 1 << 13

SCHEMA = ManifestSchema(
    what="folder of encoded items",
    kind=KIND,
    version=VERSION,
    fields=(Field("num_items", int), Field("encoder", dict), Field("modalities", dict), Field("fingerprint", str)),
    modality_fields=(),
    again="encode the items again",
    missing=lambda folder: f"{folder}: has no {MANIFEST}, so it is not a finished folder of jobs/encode_items.py",
    maker="jobs/encode_items.py",
)


def is_encoded_folder(path: Path) -> bool:
    """Return whether a path is a folder of this kind, going by its files."""
    return (path / MANIFEST).is_file() and (path / VECTORS).is_file()


def read_encoded_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a finished folder.

    Raises:
        InputError: the folder is not finished, or its manifest is damaged.
    """
    return read_manifest(path, SCHEMA)


def read_encoded(path: Path) -> tuple[np.ndarray, pa.Array, dict[str, Any]]:
    """Return the vectors [N, W], memory-mapped, the source ids [N], and the manifest.

    Raises:
        InputError: the folder is not finished, or a file is missing or damaged.
    """
    manifest = read_encoded_manifest(path)
    try:
        vectors = map_array(path / VECTORS)
        items = pq.read_table(path / ITEMS, columns=["item"]).column(0).combine_chunks()
    except (*UNREADABLE, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); encode the items again") from None
    if vectors.ndim != 2 or not len(vectors) == len(items) == manifest["num_items"]:
        raise InputError(
            f"{path}: {len(vectors)} vectors, {len(items)} ids and num_items {manifest['num_items']}; encode the items "
            "again"
        )
    return vectors, items, manifest


@dataclass(frozen=True, kw_only=True)
class EarlierItems:
    """The items of an earlier folder that have a vector, which need not be encoded again.

    Attributes:
        folder: the folder.
        rows: int64 [n], their rows in it.
        items: large_string [n], their source ids.
        num_values: int64 [n], the number of vectors of each.
        problems: what the folder lists about them: item, value, source, reason.
        manifest: the folder's manifest.
    """

    folder: Path
    rows: np.ndarray
    items: pa.Array
    num_values: np.ndarray
    problems: pa.Table
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> EarlierItems:
        """Open a finished folder. Raises InputError if it is none."""
        _, items, manifest = read_encoded(folder)
        num_values = pq.read_table(folder / ITEMS, columns=["num_values"]).column(0).to_numpy()
        rows = np.flatnonzero(num_values)
        kept = items.take(pa.array(rows))
        problems = pq.read_table(folder / PROBLEMS)
        problems = problems.filter(pc.is_in(problems.column("item"), value_set=kept))
        return cls(
            folder=folder, rows=rows, items=kept, num_values=num_values[rows], problems=problems, manifest=manifest
        )

    def copy_to(self, file: Path) -> np.ndarray:
        """Copy the vectors to the first rows of a .npy file; return the number of vectors of each item."""
        vectors, target = map_array(self.folder / VECTORS), np.load(file, mmap_mode="r+")
        for start in range(0, len(self.rows), BLOCK_ROWS):
            target[start : start + BLOCK_ROWS][: len(self.rows) - start] = vectors[
                self.rows[start : start + BLOCK_ROWS]
            ]
        target.flush()
        return self.num_values
