"""Writes a dataset folder: features, sequences, items and users first, the manifest last.

N items, U users, E interactions, d_m width of modality m. Memory: the sequences and ids that the caller gives, O(N)
counters and one block of features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from contracts.errors import InputError
from contracts.modalities import check_new_modalities
from data.layout import (
    HELD_BACK,
    ITEMS,
    SCHEMA_VERSION,
    SEQUENCES,
    USERS,
    content_files,
    feature_file,
    fingerprint_files,
    staged_folder,
)
from data.stored_sequences import SplicingFile, StoredSequences
from storage.manifest import MANIFEST

# Elements of a block of features: 32 MiB of float32, for any width.
_BLOCK_ELEMENTS = 1 << 23
# Rows of a row group of items.parquet and users.parquet.
ROW_GROUP = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Every user's items in order of time, and the ends of training and validation.

    Attributes:
        offsets: int64 [U+1]; the sequence of user u is items[offsets[u]:offsets[u + 1]].
        items: int64 [E].
        timestamps: int64 [E], ascending within a user, or None.
        train_end: int64 [U], number of training items, which are the first of the user's sequence.
        valid_end: int64 [U], number of training and validation items.
    """

    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray | None
    train_end: np.ndarray
    valid_end: np.ndarray

    @property
    def num_interactions(self) -> int:
        return len(self.items)

    @property
    def has_timestamps(self) -> bool:
        return self.timestamps is not None

    def popularity(self, num_items: int) -> np.ndarray:
        """Return the number of training interactions of each item: int64 [N]."""
        # +1 at the start of each sequence and -1 at the end of its training part: the running sum is 1 in training.
        marks = np.zeros(len(self.items) + 1, np.int8)
        np.add.at(marks, self.offsets[:-1], np.int8(1))
        np.add.at(marks, self.offsets[:-1] + self.train_end, np.int8(-1))
        in_training = np.cumsum(marks[:-1], dtype=np.int8).view(bool)
        return np.bincount(self.items[in_training], minlength=num_items)


class IdGroups(Protocol):
    """Source ids in the order of dense ids, read a group at a time."""

    def __len__(self) -> int: ...

    def groups(self) -> Iterator[pa.Array]:
        """Yield strings, ROW_GROUP of them in every group but the last."""
        ...


class HeldBackRows(Protocol):
    """Interactions that are not in the dataset."""

    def write(self, file: Path) -> None:
        """Write them to a Parquet file with columns user, item, and timestamp and split if there are any."""
        ...


class FeatureRows(Protocol):
    """The features of a modality in item order, read a block at a time.

    Rows whose encoder is known have an attribute `encoder`, a mapping of plain values, which the manifest records.
    """

    @property
    def dim(self) -> int: ...

    @property
    def dtype(self) -> np.dtype: ...

    def blocks(self, block_rows: int) -> Iterator[np.ndarray]:
        """Yield finite arrays [<= block_rows, d_m] with N rows in all; an all-zero row: the item lacks the modality."""
        ...


@dataclass(frozen=True, kw_only=True)
class DatasetContent:
    """The content of a dataset folder, before it is written.

    Attributes:
        sequences: every user's items and the split.
        user_source_ids: strings [U], the source id of each user.
        item_source_ids: strings [N], the source id of each item.
        item_texts: strings [N] with nulls, or None.
        item_columns: further columns of items.parquet, [N] rows, or None.
        features: the rows of each modality; they are read once.
        split: method of the split and its parameters, for the manifest.
        source: format of the source and its parameters, for the manifest.
        dropped: number of dropped rows, users or items for each reason, for the manifest.
        held_back: the interactions that the k-core has removed, if they are kept beside; no part of the fingerprint.
    """

    sequences: Sequences | StoredSequences
    user_source_ids: pa.Array | IdGroups
    item_source_ids: pa.Array | IdGroups
    item_texts: pa.Array | None = None
    item_columns: pa.Table | None = None
    features: Mapping[str, FeatureRows] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    held_back: HeldBackRows | None = None


def write_folder(path: str, content: DatasetContent, overwrite: bool) -> None:
    """Write `content` to a temporary folder beside `path`, and rename it to `path`.

    Raises:
        InputError: the output exists (see `layout.check_output`), the name of a modality is not allowed, a feature is
            not finite, or a file cannot be written. The temporary folder is then removed.
    """
    check_new_modalities(content.features)
    num_items, num_users = len(content.item_source_ids), len(content.user_source_ids)
    modalities = sorted(content.features)
    with staged_folder(path, overwrite) as folder:
        (folder / "features").mkdir()
        presence = {
            modality: _write_features(folder / feature_file(modality), content.features[modality], num_items, modality)
            for modality in modalities
        }
        write_sequences(folder / SEQUENCES, content.sequences)
        popularity = content.sequences.popularity(num_items)
        write_items(
            folder / ITEMS, content.item_source_ids, popularity, content.item_texts, presence, content.item_columns
        )
        write_users(folder / USERS, content.user_source_ids)
        if content.held_back is not None:
            content.held_back.write(folder / HELD_BACK)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "num_users": num_users,
            "num_items": num_items,
            "num_interactions": content.sequences.num_interactions,
            "has_timestamps": content.sequences.has_timestamps,
            "modalities": {
                modality: {
                    "dim": content.features[modality].dim,
                    "dtype": str(content.features[modality].dtype),
                    "num_present": int(presence[modality].sum()),
                }
                | _encoder_facts(content.features[modality])
                for modality in modalities
            },
            "split": dict(content.split),
            "source": dict(content.source),
            "dropped": dict(content.dropped),
        }
        write_manifest(folder, manifest)


def _encoder_facts(rows: FeatureRows) -> dict[str, Any]:
    """Return what the manifest says about the encoder of a modality; nothing if the rows do not tell."""
    encoder = getattr(rows, "encoder", None)
    return {} if encoder is None else {"encoder": dict(encoder)}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Add the sizes and the fingerprint of the files in `folder` to `manifest`, and write it."""
    modalities = sorted(manifest["modalities"])
    sizes = {name: (folder / name).stat().st_size for name in content_files(modalities)}
    complete = manifest | {"bytes": sizes, "fingerprint": fingerprint_files(folder, modalities)}
    (folder / MANIFEST).write_text(json.dumps(complete, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_sequences(file: Path, sequences: Sequences | StoredSequences) -> None:
    """Write one uncompressed record batch, so that a memory map of the file gives the CSR arrays."""
    with file.open("wb") as opened:
        spliced = SplicingFile(opened)
        offsets = pa.array(sequences.offsets)
        lists: dict[str, pa.Array] = {}
        if isinstance(sequences, StoredSequences):
            lists["items"] = spliced.values(sequences.item_files, sequences.num_interactions)
            if sequences.time_files is not None:
                lists["timestamps"] = spliced.values(sequences.time_files, sequences.num_interactions)
        else:
            lists["items"] = pa.array(sequences.items)
            if sequences.timestamps is not None:
                lists["timestamps"] = pa.array(sequences.timestamps)
        columns = {"user": pa.array(np.arange(len(sequences.train_end), dtype=np.int64))}
        columns |= {name: pa.LargeListArray.from_arrays(offsets, values) for name, values in lists.items()}
        columns |= {"train_end": pa.array(sequences.train_end), "valid_end": pa.array(sequences.valid_end)}
        batch = pa.record_batch(columns)
        with pa.PythonFile(spliced, "w") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)


def write_users(file: Path, source_ids: pa.Array | IdGroups) -> None:
    """Write users.parquet: dense id and source id."""
    _write_groups(file, source_ids, lambda start, ids: {"user": np.arange(start, start + len(ids)), "source_id": ids})


def write_items(
    file: Path,
    source_ids: pa.Array | IdGroups,
    popularity: np.ndarray,
    texts: pa.Array | None,
    presence: Mapping[str, np.ndarray],
    further: pa.Table | None = None,
) -> None:
    """Write items.parquet: dense id, source id, popularity, text if there is any, presence per modality, the rest."""

    def group(start: int, ids: pa.Array) -> dict[str, Any]:
        stop = start + len(ids)
        columns = {"item": np.arange(start, stop), "source_id": ids, "popularity": popularity[start:stop]}
        if texts is not None:
            columns["text"] = texts.slice(start, len(ids)).cast(pa.large_string())
        columns |= {f"has_{modality}": present[start:stop] for modality, present in presence.items()}
        if further is not None:
            assert not {*further.column_names} & {*columns}, further.column_names
            columns |= {name: further.column(name).slice(start, len(ids)) for name in further.column_names}
        return columns

    _write_groups(file, source_ids, group)


def _write_groups(file: Path, ids: pa.Array | IdGroups, group: Callable[[int, pa.Array], dict[str, Any]]) -> None:
    """Write a Parquet file, a row group for each group of ids."""
    start, writer = 0, None
    slices = (
        ids.groups()
        if not isinstance(ids, pa.Array)
        else (ids.slice(first, ROW_GROUP) for first in range(0, max(len(ids), 1), ROW_GROUP))
    )
    for part in slices:
        table = pa.table(group(start, part.cast(pa.large_string())))
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table, row_group_size=ROW_GROUP)
        start += len(part)
    assert writer is not None
    writer.close()


def _write_features(file: Path, rows: FeatureRows, num_items: int, modality: str) -> np.ndarray:
    """Write a modality block by block as .npy, and return which items have it, bool [N]."""
    present = np.zeros(num_items, bool)
    header = {"descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False, "shape": (num_items, rows.dim)}
    done = 0
    with (
        file.open("wb") as sink,
        tqdm(total=num_items, desc=f"features {modality}", unit="item", disable=None, leave=False) as progress,
    ):
        np.lib.format.write_array_header_1_0(sink, header)
        for block in rows.blocks(block_length(rows.dim)):
            assert block.shape[1] == rows.dim, block.shape
            assert block.dtype == rows.dtype, block.dtype
            if not np.isfinite(block).all():
                raise InputError(f"modality {modality}: items {done} to {done + len(block)} hold a NaN or inf")
            present[done : done + len(block)] = block.any(axis=1)
            # numpy's tofile would hide the reason of an incomplete write, such as a full disk.
            sink.write(np.ascontiguousarray(block).data)
            done += len(block)
            progress.update(len(block))
    assert done == num_items, f"{modality}: {done} rows for {num_items} items"
    return present


def block_length(dim: int) -> int:
    """Return the number of rows in a block of features of this width."""
    return max(1, _BLOCK_ELEMENTS // dim)
