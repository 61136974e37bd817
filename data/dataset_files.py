"""Opens the files of a dataset and compares sizes, schemas and counts with its manifest, without reading content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.layout import UNREADABLE, content_files

_LISTS = pa.large_list(pa.int64())


def check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    """Check that all files are in the folder itself, with the sizes in the manifest.

    Raises:
        InputError: a file is missing, outside of the folder, or of another size.
    """
    home = folder.resolve()
    for name in content_files(list(manifest["modalities"])):
        file, expected = folder / name, manifest["bytes"].get(name)
        if not file.is_file():
            raise InputError(f"{file}: missing from the dataset; prepare it again")
        if not (real := file.resolve()).is_relative_to(home):
            raise InputError(f"{file}: is a link that leaves the dataset, to {real}; put the file itself there")
        if (size := file.stat().st_size) != expected:
            raise InputError(
                f"{file}: {size} bytes, the manifest says {expected}: truncated or altered; prepare the dataset again"
            )


def open_sequences(file: Path, manifest: dict[str, Any]) -> pa.RecordBatch:
    """Return the memory-mapped record batch of sequences.arrow.

    Raises:
        InputError: the file is not an Arrow file, or its columns or counts are not those of the manifest.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        batches = reader.num_record_batches
        batch = reader.get_batch(0) if batches == 1 else None
        if batch is not None:
            batch.validate()  # checks the sizes of buffers, and reads no content
    except UNREADABLE as error:
        raise InputError(f"{file}: not a readable Arrow file ({error}); prepare the dataset again") from None
    if batch is None:
        raise InputError(f"{file}: {batches} record batches, expected 1; prepare the dataset again")
    wanted = {"user": pa.int64(), "items": _LISTS, "train_end": pa.int64(), "valid_end": pa.int64()}
    if manifest["has_timestamps"]:
        wanted["timestamps"] = _LISTS
    elif "timestamps" in batch.schema.names:
        raise InputError(f"{file}: has timestamps, the manifest says it has none; prepare the dataset again")
    for name, kind in wanted.items():
        position = batch.schema.get_field_index(name)
        fits = position >= 0 and batch.schema.field(position).type == kind
        if not fits or _has_nulls(batch.column(position)):
            raise InputError(f"{file}: column {name} is not {kind} without nulls; prepare the dataset again")
    counts = {"num_users": batch.num_rows, "num_interactions": len(batch.column("items").values)}
    for name, count in counts.items():
        if count != manifest[name]:
            raise InputError(f"{file}: {count} {name}, the manifest says {manifest[name]}; prepare the dataset again")
    return batch


def _has_nulls(column: pa.Array) -> bool:
    return bool(column.null_count or (column.type == _LISTS and column.values.null_count))


def check_parquet(file: Path, num_rows: int, columns: dict[str, pa.DataType]) -> None:
    """Check the number of rows and the columns of a Parquet file, by its footer.

    Raises:
        InputError: they are others, or the file is not a Parquet file.
    """
    try:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except UNREADABLE as error:
        raise InputError(f"{file}: not a readable Parquet file ({error}); prepare the dataset again") from None
    if metadata.num_rows != num_rows:
        raise InputError(f"{file}: {metadata.num_rows} rows, the manifest says {num_rows}; prepare the dataset again")
    for name, kind in columns.items():
        found = [field.type for field in schema if field.name == name]
        if found != [kind]:
            are = ", ".join(map(str, found)) or "missing"
            raise InputError(f"{file}: column {name} is {are}, expected {kind}; prepare the dataset again")


def read_column(file: Path, name: str) -> pa.Array:
    """Return a column of a Parquet file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            return parquet.read(columns=[name]).column(0).combine_chunks()
    except UNREADABLE as error:
        raise InputError(f"{file}: column {name} cannot be read ({error}); prepare the dataset again") from None
