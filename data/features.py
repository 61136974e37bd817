"""Item features from files, brought into item order.

N items of the dataset, R rows of the file, d_m width. A feature file is one of
    NAME.npy           [R, d_m]; row = item index, or with an ids file (one source id a line) that item's row
    NAME.parquet       columns `item` (source id) and `vector` (list or fixed-size list of float)
Items without a row are missing: all-zero. float64 becomes float32; integers are refused, for they are
rarely features and would be stored wrongly as ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import InputError
from configs.modalities import check_new_modalities
from data.formats.columns import as_text, read_parquet
from data.layout import UNREADABLE, local_path
from data.validation import check_finite
from kernels.array_file import map_array


@dataclass(frozen=True)
class AlignedRows:
    """Rows of an array in item order (a `writing.FeatureRows`).

    Attributes:
        array: float [R, d_m], usually memory-mapped. file: its name, for messages.
        rows: int64 [N], the row of each item, -1 where it has none; None: row i is item i.
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
        """Finite blocks in item order; raises InputError at a NaN or infinity."""
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
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is reported
            block = block.astype(self.dtype, copy=False)
        check_finite(block, self.file, first_row, rows)
        return block


def read_features(
    files: Mapping[str, str],
    ids_files: Mapping[str, str],
    item_source_ids: pa.Array,
    rows_are_items: bool,
) -> tuple[dict[str, AlignedRows], dict[str, int]]:
    """The feature rows of each modality in item order, and how many file rows belong to no item.

    Args:
        files: modality -> .npy or .parquet. ids_files: modality -> ids of a .npy file's rows.
        item_source_ids: strings [N].
        rows_are_items: whether row i of a .npy without ids is item i (the source has an item numbering).

    Raises:
        InputError: unreadable, wrong type, shape or row count, or ids that are missing or repeated.
    """
    for modality in ids_files:
        if modality not in files:
            raise InputError(f"--feature-ids {modality}: no --features {modality}=FILE goes with it; add one")
    check_new_modalities(files)
    features: dict[str, AlignedRows] = {}
    dropped: dict[str, int] = {}
    for modality, file in sorted(files.items()):
        array, source_ids = _read_file(file, ids_files.get(modality))
        _check_array(array, file)
        if source_ids is None:
            _check_item_rows(array, file, modality, len(item_source_ids), rows_are_items)
            features[modality] = AlignedRows(array, file)
        else:
            rows, unknown = _match_rows(source_ids, item_source_ids, file)
            features[modality] = AlignedRows(array, file, rows)
            if unknown:
                dropped[f"feature_rows_without_item_{modality}"] = unknown
    return features, dropped


def _read_file(file: str, ids_file: str | None) -> tuple[np.ndarray, pa.Array | None]:
    path = local_path(file)
    if path.suffix == ".npy":
        try:
            array = map_array(path)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror or error}); name an existing file") from None
        except ValueError as error:
            raise InputError(f"{file}: not a readable .npy file ({error}); write it again with numpy.save") from None
        return array, _read_ids(ids_file, len(array) if array.ndim else 0) if ids_file else None
    if path.suffix != ".parquet":
        raise InputError(f"{file}: features must be a .npy or .parquet file; convert it")
    if ids_file:
        raise InputError(f"{file}: a Parquet file names its items itself; leave --feature-ids out")
    return _read_vectors(file)


def _read_vectors(file: str) -> tuple[np.ndarray, pa.Array]:
    try:
        table = read_parquet(local_path(file), {"item": "item", "vector": "vector"}, "rename it")
    except UNREADABLE as error:
        raise InputError(f"{file}: not a readable Parquet file ({' '.join(str(error).split())}); restore it") from None
    table = table.filter(pc.is_valid(table.column("vector")))
    kind = table.schema.field("vector").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise InputError(f"{file}: column vector is {kind}, expected a list of float; cast it")
    lengths = pc.list_value_length(table.column("vector")).to_numpy()
    if len(lengths) == 0:
        raise InputError(f"{file}: holds no vectors; leave this modality out")
    if len(bad := np.flatnonzero(lengths != lengths[0])):
        raise InputError(
            f"{file}: row {bad[0]} has {lengths[bad[0]]} values, row 0 has {lengths[0]}; make all vectors equally long"
        )
    values = pc.list_flatten(table.column("vector")).to_numpy()
    if table.column("item").null_count:
        raise InputError(f"{file}: column item has a null; name the item of every vector")
    items = as_text(table.column("item"), file, "item").combine_chunks()
    return values.reshape(len(lengths), int(lengths[0])), items


def _read_ids(ids_file: str, num_rows: int) -> pa.Array:
    try:
        lines = local_path(ids_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{ids_file}: cannot be read ({error}); give one source id a line") from None
    if len(lines) != num_rows:
        raise InputError(f"{ids_file}: {len(lines)} ids for {num_rows} feature rows; give exactly one id a row")
    return pa.array(lines, pa.large_string())


def _check_array(array: np.ndarray, file: str) -> None:
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{file}: has shape {list(array.shape)}, expected [rows, width]; reshape it")
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{file}: holds {array.dtype}, expected float16, float32 or float64; cast it")


def _check_item_rows(array: np.ndarray, file: str, modality: str, num_items: int, rows_are_items: bool) -> None:
    if not rows_are_items:
        raise InputError(
            f"{file}: nothing says which item a row is; add --feature-ids {modality}=IDS.txt (one source id a line), "
            "or give a Parquet file with columns item and vector"
        )
    if len(array) != num_items:
        raise InputError(f"{file}: {len(array)} rows for {num_items} items; give one row an item, all-zero if missing")


def _match_rows(source_ids: pa.Array, item_source_ids: pa.Array, file: str) -> tuple[np.ndarray, int]:
    """The row of each item, int64 [N] with -1, and how many rows belong to no item."""
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
            f"{file}: none of its {len(source_ids)} ids is an item of the data (e.g. {source_ids[0].as_py()!r} against "
            f"{item_source_ids[0].as_py()!r}); use the interactions' own item ids"
        )
    return aligned, len(source_ids) - matched


def detect_features(folder: Path, name: str) -> dict[str, str]:
    """UniSRec-style feature files: `<name>.<modality>_*.npy`, modality -> file.

    Raises:
        InputError: two files for one modality.
    """
    found: dict[str, str] = {}
    for file in sorted(folder.glob(f"{name}.*_*.npy")):
        modality = file.name.removeprefix(f"{name}.").partition("_")[0]
        if modality in found:
            raise InputError(
                f"{folder}: both {Path(found[modality]).name} and {file.name} are features for {modality}; "
                f"choose with --features {modality}=FILE"
            )
        found[modality] = str(file)
    return found
