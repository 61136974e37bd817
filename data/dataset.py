"""Opens a dataset on disk: memory-maps its files, and reads them without copies.

N items, U users, E interactions, d_m width of modality m. The folder:

    manifest.json            counts, split, source, what was dropped, fingerprint; written last
    sequences.arrow          user, items, [timestamps], train_end, valid_end: one record batch, whose
                             list offsets are the CSR
    items.parquet            item, source_id, popularity (training only), [text], has_<modality>, [cold]
    users.parquet            user, source_id
    features/<modality>.npy  float16 or float32 [N, d_m]; an all-zero row: the item lacks the modality
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.ancestry import ancestors_of
from data.dataset_files import check_parquet, check_sizes, open_sequences, read_column
from data.domains import Domain
from data.encoding.facts import labels_of
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
from storage.object_cache import fetched

__all__ = ["Dataset", "DatasetContent", "Sequences", "write_dataset"]

_USER_COLUMNS = {"user": pa.int64(), "source_id": pa.large_string()}
_ITEM_COLUMNS = {"item": pa.int64(), "source_id": pa.large_string(), "popularity": pa.int64()}


class Dataset:
    """An opened dataset folder. It is pickled as its path, so that workers map the same pages.

    All arrays are read-only views of the memory-mapped file.

    Attributes:
        path: the folder or URI that was opened.
        folder: the folder with the files; for a URI, its copy on this node.
        manifest: the manifest.
        fingerprint: SHA-256 of the content.
        modalities: names of the modalities, ascending.
        offsets: int64 [U+1]; the sequence of user u is items[offsets[u]:offsets[u + 1]], oldest first.
        items: int64 [E].
        timestamps: int64 [E], or None.
        train_end: int64 [U], counted from the start of the user's sequence: the items in [:train_end] are for training.
        valid_end: int64 [U], likewise: [train_end:valid_end] are validation targets, [valid_end:] test targets.
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
        """Open a finished dataset and check its manifest, schemas, counts, file sizes and shapes, but not the content.

        A dataset at a URI is first copied to this node, if it was not copied before (`object_cache.fetched`).

        Raises:
            InputError: this is not a finished dataset, or a file is missing, truncated or of another shape.
        """
        return cls._open_copy(path, fetched(path))

    @classmethod
    def _open_copy(cls, path: str, folder: Path) -> Dataset:
        """Do the work of `open` for files that are in `folder` already."""
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
        """Return a modality's features, memory-mapped: float16 or float32 [N, d_m].

        Raises:
            InputError: there is no such modality, or its file does not match the manifest.
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
        """Return the path of the modality's file."""
        return self.folder / feature_file(modality)

    def presence(self, modality: str) -> np.ndarray:
        """Return which items have the modality: bool [N]."""
        self._check_modality(modality)
        return self._item_column(f"has_{modality}").to_numpy(zero_copy_only=False)

    def popularity(self) -> np.ndarray:
        """Return the number of training interactions of each item: int64 [N]."""
        return self._item_column("popularity").to_numpy()

    def cold_items(self) -> np.ndarray | None:
        """Return which items were held out of training when the dataset was prepared: bool [N]; None if none were."""
        schema = pq.read_schema(self.folder / ITEMS)
        place = schema.get_field_index("cold")
        if place < 0 or schema.field(place).type != pa.bool_():  # earlier versions let users name a column like this
            return None
        return self._item_column("cold").to_numpy(zero_copy_only=False)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The datasets whose users and items these are: this one alone."""
        return (
            Domain(
                name=self.path.rstrip("/").rsplit("/", 1)[-1],
                path=self.path,
                fingerprint=self.fingerprint,
                first_user=0,
                num_users=self.num_users,
                first_item=0,
                num_items=self.num_items,
            ),
        )

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """The datasets whose users and items these are: this one alone."""
        return (self,)

    @property
    def encoders(self) -> dict[str, str]:
        """The label of the encoder of each modality whose encoder the manifest names."""
        return labels_of(self.manifest)

    @property
    def ancestors(self) -> dict[str, int]:
        """The datasets that this one has grown from: fingerprint, and number of items."""
        return ancestors_of(self.manifest)

    def item_source_ids(self) -> pa.Array:
        """Return the source id of each item: large_string [N]."""
        return self._item_column("source_id")

    def user_source_ids(self) -> pa.Array:
        """Return the source id of each user: large_string [U]."""
        return read_column(self.folder / USERS, "source_id")

    def item_texts(self) -> pa.Array | None:
        """Return the text of each item, large_string [N] with nulls; None if the source has no texts."""
        if "text" not in pq.read_schema(self.folder / ITEMS).names:
            return None
        return self._item_column("text")

    def validate(self) -> None:
        """Check every value, in blocks of bounded memory, and then the bytes against the fingerprint.

        This reads the whole dataset, but `open` reads only headers. Jobs call it once, before any worker starts.

        Raises:
            InputError: a value is not allowed, or a file was altered. The message is about the first such value: it
                names the file, the user or item, the value, the limit and what to do.
        """
        validate_dataset(self)
        self.verify_fingerprint()

    def verify_fingerprint(self) -> None:
        """Read every byte and compare the fingerprint with the manifest's.

        Raises:
            InputError: a file was altered after the dataset was written.
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
    """Write a dataset folder, completely or not at all, and open it.

    Raises:
        InputError: the output exists and `overwrite` is false, a feature is not finite, or a file cannot be written.
            An old dataset at `path` is then still intact.
    """
    write_folder(path, content, overwrite)
    return Dataset.open(path)
