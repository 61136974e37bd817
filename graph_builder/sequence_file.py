"""Read sequences from a Parquet or Arrow IPC file: mapped if possible, otherwise copied once.

Legend: U users (rows of the file), E interactions (ids in all lists), N items.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError

_USERS_AT_A_TIME = 1 << 13  # decoded from Parquet
_IDS_AT_A_TIME = 1 << 22  # checked and hashed
# Every item takes tens of bytes, even if it does not occur. Larger ids are hashes or keys rather than 0, 1, 2, ...
_MOST_ITEMS = 1 << 33
_EXPECTED = "expected one row per user with a column `items`, list<int64> of 0-based item ids, oldest first"


@dataclass(frozen=True, kw_only=True)
class FileSequences:
    """The sequences of a file.

    Attributes:
        items: int64 [E], as in `source.GraphSource`.
        offsets: int64 [U+1], as in `source.GraphSource`.
        train_end: int64 [U], as in `source.GraphSource`.
        num_items: N.
        fingerprint: SHA-256 of the three arrays.
    """

    items: np.ndarray
    offsets: np.ndarray
    train_end: np.ndarray
    num_items: int
    fingerprint: str


def open_sequences(path: Path, num_items: int | None = None, scratch: Path | None = None) -> FileSequences:
    """Open and check a file with one row per user: a column `items`, list<int>, and optionally `train_end`, int.

    `train_end` is the number of items, from the start of a list, that are for training; without it, all are. An Arrow
    IPC file of one record batch of int64 ids is memory-mapped. Any other file is decoded once into an unnamed file in
    `scratch`, which disappears with the process; it takes 8 bytes per interaction on disk. Memory: 32 bytes per user,
    and the data that is decoded at a time: a record batch of Arrow, or 8,192 users of Parquet and their row group.

    Args:
        path: the file.
        num_items: N; null: the largest id + 1.
        scratch: an existing folder; null: the folder of the file.

    Raises:
        InputError: the file has another format or a null, an id outside [0, N), or a train_end outside its list (the
            message names the row); or the disk cannot take the copy.
    """
    schema, batches, is_mapped = _open(path)
    try:
        _check_schema(path, schema)
        has_ends = "train_end" in schema.names
        if is_mapped and schema.field("items").type.value_type == pa.int64():
            items, lengths, ends = _parsed(path, next(iter(batches)), has_ends, 0)
        else:
            items, lengths, ends = _copied(path, batches, has_ends, scratch or path.parent)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be decoded ({_one_line(error)}); write it again") from None
    if not len(lengths):
        raise InputError(f"{path}: has no rows; {_EXPECTED}")
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    num_items, fingerprint = _check_ids(path, items, offsets, ends, num_items)
    return FileSequences(items=items, offsets=offsets, train_end=ends, num_items=num_items, fingerprint=fingerprint)


def _open(path: Path) -> tuple[pa.Schema, Iterable[pa.RecordBatch], bool]:
    """Return the schema, the record batches, and whether there is exactly one batch and it is mapped."""
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic == b"ARROW1":
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            return reader.schema, _arrow_batches(path, reader), reader.num_record_batches == 1
        if magic[:4] == b"PAR1":
            parquet = pq.ParquetFile(path, page_checksum_verification=True)
            names = [name for name in ("items", "train_end") if name in parquet.schema_arrow.names]
            return parquet.schema_arrow, parquet.iter_batches(_USERS_AT_A_TIME, columns=names), False
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); name an existing Parquet or Arrow file"
        ) from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)}), so truncated or damaged") from None
    raise InputError(f"{path}: is neither a Parquet nor an Arrow IPC file; {_EXPECTED}")


def _arrow_batches(path: Path, reader: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for index in range(reader.num_record_batches):
        try:
            batch = reader.get_batch(index)
        except OSError as error:  # damaged content: reading a map raises no OSError
            raise InputError(f"{path}: cannot be decoded ({_one_line(error)}); write it again") from None
        yield batch


def _check_schema(path: Path, schema: pa.Schema) -> None:
    for name in ("items", "train_end"):
        if schema.names.count(name) > 1:
            raise InputError(f"{path}: has {schema.names.count(name)} columns {name}; leave one")
    if "items" not in schema.names:
        raise InputError(f"{path}: has no column items, only {', '.join(schema.names) or 'none'}; {_EXPECTED}")
    kind = schema.field("items").type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise InputError(f"{path}: column items is {kind}; {_EXPECTED}")
    if "train_end" in schema.names and not pa.types.is_integer(schema.field("train_end").type):
        raise InputError(f"{path}: column train_end is {schema.field('train_end').type}, expected int64")


def _copied(
    path: Path, batches: Iterable[pa.RecordBatch], has_ends: bool, scratch: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parse all batches (`_parsed`), and write the items to a mapped file without a name."""
    lengths, ends = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    num_users = total = 0
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            for batch in batches:
                chunk, *rest = _parsed(path, batch, has_ends, num_users)
                file.write(np.ascontiguousarray(chunk).data)
                lengths.append(rest[0])
                ends.append(rest[1])
                num_users += len(rest[0])
                total += len(chunk)
            file.flush()
            items = np.memmap(file, dtype=np.int64, mode="r", shape=(total,)) if total else np.zeros(0, dtype=np.int64)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be copied to {scratch} ({error.strerror or error}): 8 bytes per interaction are needed; "
            "free space, or write an Arrow IPC file of one record batch of int64 ids, which is mapped"
        ) from None
    return items, np.concatenate(lengths), np.concatenate(ends)


def _parsed(
    path: Path, batch: pa.RecordBatch, has_ends: bool, first_row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return items int64, lengths int64 and train_end int64 of a batch's users. int64 items are not copied."""
    batch.validate(full=True)  # a damaged file's offsets could lead to reads outside the buffer
    lists = batch.column("items")
    if lists.null_count:
        raise InputError(f"{path}: row {first_row + _first(lists.is_null())} has no items (null); write an empty list")
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    values = lists.flatten()
    if values.null_count:
        row = int(np.searchsorted(np.cumsum(lengths), _first(values.is_null()), side="right"))
        raise InputError(f"{path}: row {first_row + row} holds a null among its items; leave it out")
    items = values.cast(pa.int64()).to_numpy()
    if not has_ends:
        return items, lengths, lengths
    column = batch.column("train_end")
    if column.null_count:
        raise InputError(f"{path}: row {first_row + _first(column.is_null())} has no train_end (null); write one")
    ends = column.cast(pa.int64()).to_numpy()
    outside = (ends < 0) | (ends > lengths)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"{path}: row {first_row + row} has train_end {ends[row]}, outside [0, {lengths[row]}], its number of "
            "items; correct it, or leave the column out to train on everything"
        )
    return items, lengths, ends


def _check_ids(
    path: Path, items: np.ndarray, offsets: np.ndarray, ends: np.ndarray, num_items: int | None
) -> tuple[int, str]:
    """Check that all ids are in range. Return N and the fingerprint."""
    digest = hashlib.sha256()
    largest = -1
    for first in range(0, len(items), _IDS_AT_A_TIME):
        chunk = np.ascontiguousarray(items[first : first + _IDS_AT_A_TIME])
        outside = chunk < 0 if num_items is None else (chunk < 0) | (chunk >= num_items)
        if outside.any():
            place = int(outside.argmax())
            row = int(np.searchsorted(offsets, first + place, side="right")) - 1
            limit = "the ids are 0-based" if num_items is None else f"outside [0, {num_items})"
            raise InputError(f"{path}: row {row} holds item {chunk[place]}, {limit}; renumber the items")
        largest = max(largest, int(chunk.max()))
        digest.update(chunk.data)
    for array in (offsets, ends):
        digest.update(np.ascontiguousarray(array).data)
    if largest >= _MOST_ITEMS:
        raise InputError(
            f"{path}: holds item {largest}, and every id below it is an item too: more than {_MOST_ITEMS:,} are not "
            "supported; renumber the items 0, 1, 2, ..."
        )
    if num_items is None and largest < 0:
        raise InputError(f"{path}: {len(ends)} rows hold no item at all; name a file with sequences")
    return largest + 1 if num_items is None else num_items, digest.hexdigest()


def _first(mask: pa.Array) -> int:
    return int(mask.to_numpy(zero_copy_only=False).argmax())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
