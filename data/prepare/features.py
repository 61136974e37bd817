"""Puts the item features of files into item order.

N items of the dataset, R rows of the file, d_m width; `feature_files` describes the files. An item without a row lacks
the modality and gets a row of zeros. float64 becomes float32. Integers are refused, because they are rarely meant as
features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from contracts.modalities import check_new_modalities
from data.prepare.feature_files import encoder_of, read_feature_file
from data.validation import check_finite


@dataclass(frozen=True)
class AlignedRows:
    """The rows of an array in item order (a `writing.FeatureRows`).

    Attributes:
        array: float [R, d_m], usually memory-mapped.
        file: name of the file, for messages.
        rows: int64 [N], the row of each item, -1 for an item without one; None: row i is item i.
    """

    array: np.ndarray
    file: str
    rows: np.ndarray | None = None

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float16 if self.array.dtype == np.float16 else np.float32)

    def blocks(self, block_rows: int) -> Iterator[np.ndarray]:
        """Yield finite blocks in item order. Raises InputError for a NaN or an infinity."""
        num_items = len(self.array) if self.rows is None else len(self.rows)
        for start in range(0, num_items, block_rows):
            if self.rows is None:
                block = np.asarray(self.array[start : start + block_rows])
                yield self._checked(block, start, None)
                continue
            rows = self.rows[start : start + block_rows]
            known = rows >= 0
            block = np.zeros((len(rows), self.dim), self.dtype)
            block[known] = self._checked(self.array[rows[known]], 0, rows[known])
            yield block

    def _checked(self, block: np.ndarray, first_row: int, rows: np.ndarray | None) -> np.ndarray:
        with np.errstate(over="ignore"):  # a float64 that exceeds float32 becomes inf, which is then refused
            block = block.astype(self.dtype, copy=False)
        check_finite(block, self.file, first_row, rows)
        return block


@dataclass(frozen=True, kw_only=True)
class EncodedRows(AlignedRows):
    """The rows of a folder of jobs/encode_items.py.

    Attributes:
        encoder: what is known about the encoder, for the manifest.
    """

    encoder: Mapping[str, Any]


def read_features(
    files: Mapping[str, str],
    ids_files: Mapping[str, str],
    item_source_ids: pa.Array,
    rows_are_items: bool,
    *,
    rows_are_numbers: bool = False,
) -> tuple[dict[str, AlignedRows], dict[str, int]]:
    """Return the feature rows of each modality in item order, and the numbers of file rows that belong to no item.

    Args:
        files: the file of each modality.
        ids_files: for modalities with a .npy or raw file, the file with the ids of its rows.
        item_source_ids: strings [N].
        rows_are_items: whether row i of a .npy without ids is item i, because the source has numbered its items.
        rows_are_numbers: whether row r of a .npy without ids belongs to the item whose source id is the number r.

    Raises:
        InputError: a file cannot be read, has a wrong type, shape or number of rows, or its ids are missing or
            repeated.
    """
    for modality in ids_files:
        if modality not in files:
            raise InputError(f"--feature-ids {modality}: no --features {modality}=FILE goes with it; add one")
    check_new_modalities(files)
    features: dict[str, AlignedRows] = {}
    dropped: dict[str, int] = {}
    for modality, file in sorted(files.items()):
        array, source_ids = read_feature_file(file, ids_files.get(modality), len(item_source_ids))
        _check_array(array, file)
        if source_ids is None and rows_are_numbers:
            source_ids = _row_numbers(array, file, item_source_ids)
        if source_ids is None:
            _check_item_rows(array, file, modality, len(item_source_ids), rows_are_items)
            features[modality] = AlignedRows(array, file)
        else:
            rows, unknown = _match_rows(source_ids, item_source_ids, file)
            encoder = encoder_of(file)
            features[modality] = (
                AlignedRows(array, file, rows)
                if encoder is None
                else EncodedRows(array=array, file=file, rows=rows, encoder=encoder)
            )
            if unknown:
                dropped[f"feature_rows_without_item_{modality}"] = unknown
    return features, dropped


def _check_array(array: np.ndarray, file: str) -> None:
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{file}: has shape {list(array.shape)}, expected [rows, width]; reshape it")
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{file}: holds {array.dtype}, expected float16, float32 or float64; cast it")


def _check_item_rows(array: np.ndarray, file: str, modality: str, num_items: int, rows_are_items: bool) -> None:
    if not rows_are_items:
        raise InputError(
            f"{file}: does not tell which item each row belongs to; add --feature-ids {modality}=IDS.txt (one source "
            "id per line), or give a Parquet file with columns item and vector"
        )
    if len(array) != num_items:
        raise InputError(
            f"{file}: {len(array)} rows for {num_items} items; write one row for each item, all zeros if it has no "
            "features"
        )


def _row_numbers(array: np.ndarray, file: str, item_source_ids: pa.Array) -> pa.Array:
    """Return the numbers of the rows as source ids; every item needs a row."""
    numbers = pa.array(np.arange(len(array))).cast(pa.large_string())
    missing = pc.index(pc.is_in(item_source_ids.cast(pa.large_string()), value_set=numbers), False).as_py()
    if missing >= 0:
        raise InputError(
            f"{file}: has rows 0 to {len(array) - 1} and so none for item {item_source_ids[missing].as_py()!r} of the "
            "interactions; row r must belong to item number r, give the file that belongs to these interactions"
        )
    return numbers


def _match_rows(source_ids: pa.Array, item_source_ids: pa.Array, file: str) -> tuple[np.ndarray, int]:
    """Return the row of each item, int64 [N], -1 for none, and the number of rows that belong to no item."""
    rows = pc.fill_null(pc.index_in(item_source_ids.cast(pa.large_string()), value_set=source_ids), -1)
    unique = pc.unique(source_ids)
    if len(unique) != len(source_ids):
        counts = pc.value_counts(source_ids)
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise InputError(f"{file}: item {repeated!r} has more than one row; keep one")
    aligned = rows.to_numpy().astype(np.int64)
    matched = int((aligned >= 0).sum())
    if matched == 0:
        raise InputError(
            f"{file}: none of its {len(source_ids)} ids is an item of the interactions (the first is "
            f"{source_ids[0].as_py()!r}, an item is {item_source_ids[0].as_py()!r}); use the interactions' item ids"
        )
    return aligned, len(source_ids) - matched
