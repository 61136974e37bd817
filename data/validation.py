"""Checks every value of a dataset, a block at a time.

Memory: the memory-mapped pages, O(N) counters and one block. Nothing else grows with the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.layout import ITEMS, SEQUENCES, UNREADABLE, USERS, feature_file
from data.writing import block_length


class OpenedDataset(Protocol):
    """The parts of an opened dataset that are checked; `data.dataset.Dataset` describes them."""

    path: str
    manifest: dict[str, Any]
    num_users: int
    num_items: int
    num_interactions: int
    modalities: tuple[str, ...]
    users: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray | None
    train_end: np.ndarray
    valid_end: np.ndarray

    def features(self, modality: str) -> np.ndarray: ...
    def presence(self, modality: str) -> np.ndarray: ...
    def cold_items(self) -> np.ndarray | None: ...


_BLOCK = 1 << 20  # interactions, users or items checked at a time
_AGAIN = "prepare the dataset again"


def validate_dataset(dataset: OpenedDataset) -> None:
    """Check every value of an opened dataset.

    Raises:
        InputError: a value is not allowed. The message is about the first such value: it names the file, the user or
            item, the value, the limit and what to do.
    """
    _check_offsets(dataset)
    popularity = np.zeros(dataset.num_items, np.int64)
    cold = _checked_cold(dataset)
    for first, last in _user_blocks(dataset.offsets):
        _check_users(dataset, first, last)
        _check_items(dataset, first, last)
        _check_times(dataset, first, last)
        _count_training(dataset, first, last, popularity, cold)
    _check_ids(f"{dataset.path}/{USERS}", "user")
    _check_ids(f"{dataset.path}/{ITEMS}", "item")
    _check_popularity(dataset, popularity)
    for modality in dataset.modalities:
        _check_features(dataset, modality)


def _check_offsets(dataset: OpenedDataset) -> None:
    file = f"{dataset.path}/{SEQUENCES}"
    for name, offsets in (("items", dataset.offsets), ("timestamps", getattr(dataset, "timestamp_offsets", None))):
        if offsets is None:
            continue
        if offsets[0] != 0 or offsets[-1] != dataset.num_interactions:
            raise InputError(
                f"{file}: offsets of {name} go from {offsets[0]} to {offsets[-1]}, "
                f"expected 0 to {dataset.num_interactions}; {_AGAIN}"
            )
        for start in range(0, dataset.num_users, _BLOCK):
            lengths = np.diff(offsets[start : start + _BLOCK + 1])
            if len(bad := np.flatnonzero(lengths <= 0)):
                user = start + int(bad[0])
                raise InputError(
                    f"{file}: user {user} has {lengths[bad[0]]} {name}, at least 1 is needed; "
                    f"leave users without a history out and {_AGAIN}"
                )
            num_items = np.diff(dataset.offsets[start : start + _BLOCK + 1])
            if len(bad := np.flatnonzero(lengths != num_items)):
                raise InputError(
                    f"{file}: user {start + bad[0]} has {lengths[bad[0]]} timestamps "
                    f"for {num_items[bad[0]]} items; {_AGAIN}"
                )


def _user_blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of users with about `_BLOCK` interactions, and at least one user."""
    first, num_users = 0, len(offsets) - 1
    while first < num_users:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        last = min(max(last, first + 1), num_users)
        yield first, last
        first = last


def _check_users(dataset: OpenedDataset, first: int, last: int) -> None:
    file = f"{dataset.path}/{SEQUENCES}"
    users = dataset.users[first:last]
    if len(bad := np.flatnonzero(users != np.arange(first, last))):
        raise InputError(
            f"{file}: row {first + bad[0]} is user {users[bad[0]]}, expected {first + bad[0]}: "
            f"ids have a gap or are out of order; {_AGAIN}"
        )
    lengths = np.diff(dataset.offsets[first : last + 1])
    train, valid = dataset.train_end[first:last], dataset.valid_end[first:last]
    if len(bad := np.flatnonzero((train < 0) | (train > valid) | (valid > lengths))):
        row = bad[0]
        raise InputError(
            f"{file}: user {first + row} has train_end {train[row]} and valid_end {valid[row]} of {lengths[row]} "
            f"items, expected 0 <= train_end <= valid_end <= {lengths[row]}; {_AGAIN}"
        )


def _check_items(dataset: OpenedDataset, first: int, last: int) -> None:
    start, stop = int(dataset.offsets[first]), int(dataset.offsets[last])
    items = dataset.items[start:stop]
    if len(bad := np.flatnonzero((items < 0) | (items >= dataset.num_items))):
        raise InputError(
            f"{dataset.path}/{SEQUENCES}: user {_owner(dataset, start + bad[0])} has item {items[bad[0]]}, "
            f"ids go from 0 to {dataset.num_items - 1}; {_AGAIN}"
        )


def _check_times(dataset: OpenedDataset, first: int, last: int) -> None:
    if dataset.timestamps is None:
        return
    start, stop = int(dataset.offsets[first]), int(dataset.offsets[last])
    falls = np.diff(dataset.timestamps[start:stop]) < 0
    falls[dataset.offsets[first + 1 : last] - start - 1] = False  # the limits between users
    if len(bad := np.flatnonzero(falls)):
        before, after = dataset.timestamps[start + bad[0] : start + bad[0] + 2]
        raise InputError(
            f"{dataset.path}/{SEQUENCES}: timestamps of user {_owner(dataset, start + bad[0])} fall from {before} "
            f"to {after}, they must ascend within a user; sort the interactions and {_AGAIN}"
        )


def _owner(dataset: OpenedDataset, interaction: int) -> int:
    return int(np.searchsorted(dataset.offsets, interaction, side="right")) - 1


def _checked_cold(dataset: OpenedDataset) -> np.ndarray | None:
    """Return which items are cold, bool [N]; None: none are. Raises InputError if the column has a null."""
    cold = dataset.cold_items()
    if cold is not None:
        for _ in _parquet_blocks(f"{dataset.path}/{ITEMS}", "cold"):
            pass
    return cold


def _count_training(
    dataset: OpenedDataset, first: int, last: int, popularity: np.ndarray, cold: np.ndarray | None
) -> None:
    start, stop = int(dataset.offsets[first]), int(dataset.offsets[last])
    lengths = np.diff(dataset.offsets[first : last + 1])
    positions = np.arange(start, stop) - np.repeat(dataset.offsets[first:last], lengths)
    in_training = positions < np.repeat(dataset.train_end[first:last], lengths)
    if cold is not None and len(bad := np.flatnonzero(in_training & cold[dataset.items[start:stop]])):
        raise InputError(
            f"{dataset.path}/{SEQUENCES}: user {_owner(dataset, start + bad[0])} has item "
            f"{dataset.items[start + bad[0]]} in training, which {ITEMS} says is cold, that is, held out of training; "
            f"{_AGAIN}"
        )
    items, counts = np.unique(dataset.items[start:stop][in_training], return_counts=True)
    popularity[items] += counts


def _parquet_blocks(file: str, column: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of each block of a column, and the block."""
    start = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_BLOCK, columns=[column]):
            values = batch.column(0)
            if values.null_count:
                row = start + int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
                raise InputError(f"{file}: column {column} has a null in row {row}; {_AGAIN}")
            yield start, values.to_numpy(zero_copy_only=False)
            start += batch.num_rows
    except UNREADABLE as error:
        raise InputError(f"{file}: column {column} cannot be read ({error}); {_AGAIN}") from None


def _check_ids(file: str, column: str) -> None:
    for start, ids in _parquet_blocks(file, column):
        if len(bad := np.flatnonzero(ids != np.arange(start, start + len(ids)))):
            raise InputError(
                f"{file}: row {start + bad[0]} is {column} {ids[bad[0]]}, expected {start + bad[0]}: "
                f"ids have a gap or are out of order; {_AGAIN}"
            )
    for _ in _parquet_blocks(file, "source_id"):
        pass  # checks that the column can be read and has no nulls


def _check_popularity(dataset: OpenedDataset, counted: np.ndarray) -> None:
    file = f"{dataset.path}/{ITEMS}"
    for start, popularity in _parquet_blocks(file, "popularity"):
        expected = counted[start : start + len(popularity)]
        if len(bad := np.flatnonzero(popularity != expected)):
            raise InputError(
                f"{file}: item {start + bad[0]} has popularity {popularity[bad[0]]}, its training interactions "
                f"are {expected[bad[0]]}; {_AGAIN}"
            )


def _check_features(dataset: OpenedDataset, modality: str) -> None:
    file = f"{dataset.path}/{feature_file(modality)}"
    features, presence = dataset.features(modality), dataset.presence(modality)
    block_rows = block_length(features.shape[1])
    for start in range(0, len(features), block_rows):
        block = features[start : start + block_rows]
        check_finite(block, file, start)
        stored = presence[start : start + len(block)]
        if len(bad := np.flatnonzero(block.any(axis=1) != stored)):
            item, zero = start + bad[0], "an all-zero row" if stored[bad[0]] else "a feature row"
            raise InputError(
                f"{dataset.path}/{ITEMS}: item {item} has has_{modality} {bool(stored[bad[0]])} but {zero} in {file}; "
                f"{_AGAIN}"
            )
    if (count := int(presence.sum())) != (said := dataset.manifest["modalities"][modality]["num_present"]):
        raise InputError(f"{dataset.path}/{ITEMS}: {count} items have {modality}, the manifest says {said}; {_AGAIN}")


def check_finite(block: np.ndarray, file: str, first_row: int, rows: np.ndarray | None = None) -> None:
    """Refuse NaN and infinity in a block of features.

    Args:
        block: float [R, d_m].
        file: the file's name, for the message.
        first_row: the first row of the block in the file.
        rows: int64 [R], the rows of the block in the file if they are not consecutive.

    Raises:
        InputError: a value is not finite; names the row, the column and the value.
    """
    if np.isfinite(block).all():
        return
    row, column = (int(index) for index in np.argwhere(~np.isfinite(block))[0])
    place = first_row + row if rows is None else int(rows[row])
    raise InputError(
        f"{file}: row {place}, column {column} is {block[row, column]}, features must be finite (and fit float32); "
        "set the whole row to zero if the item lacks this modality, and prepare the dataset again"
    )
