"""A dataset on disk: opened cheaply, memory-mapped, read without copies.

N items, U users, E interactions, d_m width of modality m. The folder:

    manifest.json            counts, split, source, what was dropped, fingerprint; written last
    sequences.arrow          user, items, [timestamps], train_end, valid_end: one record batch, whose
                             list offsets are the CSR
    items.parquet            item, source_id, popularity (training only), [text], has_<modality>
    users.parquet            user, source_id
    features/<modality>.npy  float16 or float32 [N, d_m]; an all-zero row is a missing one
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.dataset_files import check_parquet, check_sizes, open_sequences, read_column
from data.layout import (
    ITEMS,
    SEQUENCES,
    USERS,
    feature_file,
    fingerprint_files,
    read_manifest,
)
from data.validation import validate_dataset
from data.writing import DatasetContent, Sequences, write_folder
from storage.array_file import map_array
from storage.object_storage import fetched

__all__ = ["Dataset", "DatasetContent", "Sequences", "write_dataset"]

_USER_COLUMNS = {"user": pa.int64(), "source_id": pa.large_string()}
_ITEM_COLUMNS = {"item": pa.int64(), "source_id": pa.large_string(), "popularity": pa.int64()}


class Dataset:
    """An opened dataset folder. Pickles as its path, so workers map the same pages.

    Attributes:
        path: the folder or URI it was opened by. folder: where its files are (a URI's are this node's copy).
        manifest: its manifest. fingerprint: sha256 of the content.
        modalities: names, ascending.
        offsets: int64 [U+1]; user u owns items[offsets[u]:offsets[u + 1]], oldest first.
        items: int64 [E]. timestamps: int64 [E] or None.
        train_end, valid_end: int64 [U], counted from the start of the user's own list:
            [:train_end] trains, [train_end:valid_end] are validation targets, [valid_end:] test targets.
    All arrays are read-only views of the memory-mapped file.
    """

    def __init__(self, *, path: str, folder: Path, manifest: dict[str, Any], batch: pa.RecordBatch) -> None:
        self.path = path
        self.folder = folder
        self.manifest = manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.num_users: int = manifest["num_users"]
        self.num_items: int = manifest["num_items"]
        self.num_interactions: int = manifest["num_interactions"]
        self.modalities: tuple[str, ...] = tuple(sorted(manifest["modalities"]))
        lists = batch.column("items")
        self.users: np.ndarray = batch.column("user").to_numpy()
        self.offsets: np.ndarray = lists.offsets.to_numpy()
        self.items: np.ndarray = lists.values.to_numpy()
        self.timestamps: np.ndarray | None = None
        if manifest["has_timestamps"]:
            self.timestamps = batch.column("timestamps").values.to_numpy()
            self.timestamp_offsets: np.ndarray = batch.column("timestamps").offsets.to_numpy()
        self.train_end: np.ndarray = batch.column("train_end").to_numpy()
        self.valid_end: np.ndarray = batch.column("valid_end").to_numpy()

    @classmethod
    def open(cls, path: str) -> Dataset:
        """Open a finished dataset: manifest, schemas, counts, file sizes and shapes; no content is read.

        A URI is copied to this node first, unless it was before (`object_storage.fetched`).

        Raises:
            InputError: not a finished dataset, or a file that is missing, truncated or of another shape.
        """
        return cls._open_copy(path, fetched(path))

    @classmethod
    def _open_copy(cls, path: str, folder: Path) -> Dataset:
        """`open`, where the files are known to be in `folder`."""
        manifest = read_manifest(folder)
        check_sizes(folder, manifest)
        presence = {f"has_{modality}": pa.bool_() for modality in manifest["modalities"]}
        check_parquet(folder / ITEMS, manifest["num_items"], _ITEM_COLUMNS | presence)
        check_parquet(folder / USERS, manifest["num_users"], _USER_COLUMNS)
        dataset = cls(path=path, folder=folder, manifest=manifest, batch=open_sequences(folder / SEQUENCES, manifest))
        for modality in dataset.modalities:
            dataset.features(modality)
        return dataset

    def features(self, modality: str) -> np.ndarray:
        """A modality's features, memory-mapped: float16 or float32 [N, d_m].

        Raises:
            InputError: no such modality, or a file that does not match the manifest.
        """
        self._check_modality(modality)
        file = self.feature_path(modality)
        expected = self.manifest["modalities"][modality]
        try:
            array = map_array(file)
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not a readable .npy file ({error}); prepare the dataset again") from None
        shape = (self.num_items, expected["dim"])
        if array.shape != shape or str(array.dtype) != expected["dtype"]:
            raise InputError(
                f"{file}: holds {array.dtype} {list(array.shape)}, the manifest says {expected['dtype']} "
                f"{list(shape)} (items x width); prepare the dataset again"
            )
        return array

    def feature_path(self, modality: str) -> Path:
        """The modality's file, for those who map it themselves."""
        return self.folder / feature_file(modality)

    def presence(self, modality: str) -> np.ndarray:
        """Which items have the modality: bool [N]."""
        self._check_modality(modality)
        return self._item_column(f"has_{modality}").to_numpy(zero_copy_only=False)

    def popularity(self) -> np.ndarray:
        """Training interactions of each item: int64 [N]."""
        return self._item_column("popularity").to_numpy()

    def item_source_ids(self) -> pa.Array:
        """The source's own id of each item: large_string [N]."""
        return self._item_column("source_id")

    def user_source_ids(self) -> pa.Array:
        """The source's own id of each user: large_string [U]."""
        return read_column(self.folder / USERS, "source_id")

    def item_texts(self) -> pa.Array | None:
        """Text of each item, large_string [N] with nulls; None where the source has no text."""
        if "text" not in pq.read_schema(self.folder / ITEMS).names:
            return None
        return self._item_column("text")

    def validate(self) -> None:
        """Check every value against the contract, in bounded blocks, and then the bytes against the fingerprint.

        Jobs call it once, before any worker starts: it reads the whole dataset, where `open` reads headers.

        Raises:
            InputError: the first violation: file, user or item, value, limit, next move; or a file that was altered.
        """
        validate_dataset(self)
        self.verify_fingerprint()

    def verify_fingerprint(self) -> None:
        """Read every byte and compare with the manifest.

        Raises:
            InputError: some file was altered since the dataset was written.
        """
        actual = fingerprint_files(self.folder, self.modalities)
        if actual != self.fingerprint:
            raise InputError(
                f"dataset {self.path}: its content has fingerprint {actual[:12]}, the manifest says "
                f"{self.fingerprint[:12]}; a file was altered, prepare the dataset again"
            )

    def __reduce__(self) -> tuple[Any, tuple[str, Path]]:
        return (Dataset._open_copy, (self.path, self.folder))

    def _item_column(self, name: str) -> pa.Array:
        return read_column(self.folder / ITEMS, name)

    def _check_modality(self, modality: str) -> None:
        if modality not in self.modalities:
            raise InputError(
                f"dataset {self.path}: has no modality {modality!r}, only {', '.join(self.modalities) or 'none'}; "
                "prepare it again with --features NAME=FILE"
            )


def write_dataset(path: str, content: DatasetContent, *, overwrite: bool = False) -> Dataset:
    """Write a dataset folder, whole or not at all, and open it.

    Raises:
        InputError: the output exists without `overwrite`, a feature is not finite, or the disk refuses.
            An old dataset at `path` is then still intact.
    """
    write_folder(path, content, overwrite)
    return Dataset.open(path)
