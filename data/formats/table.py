"""Reads a table of interactions from Parquet, CSV or JSON lines; the user chooses the names of the columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from contracts.errors import InputError
from data.formats.columns import check_columns, read_parquet
from data.formats.delimited import check_separator, read_delimited, read_header
from data.formats.interaction_table import interaction_table
from data.formats.json_lines import read_json_lines
from data.layout import UNREADABLE, local_path

_NEXT_MOVE = "name it with --{role}-column"
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z", ".tar", ".tgz")
_ADVICE = {
    ".tsv": "write it as .csv, with commas",
    ".json": "write one object a line and call it .jsonl",
}


def read_table(
    path: str, user_column: str = "user", item_column: str = "item", timestamp_column: str = "timestamp"
) -> pa.Table:
    """Return the interactions of a .parquet, .csv or .jsonl file, in file order; other columns are ignored.

    Returns:
        The table of `interaction_table`: columns user, item (large_string) and timestamp (int64), with nulls.

    Raises:
        InputError: the file has another suffix or cannot be read, a column is missing, or ids or timestamps have a
            wrong type.
    """
    file = local_path(path)
    columns = {"user": user_column, "item": item_column, "timestamp": timestamp_column}
    if file.is_dir():
        raise InputError(f"{path}: is a folder; --format table reads one .parquet, .csv or .jsonl file")
    if not file.is_file():
        raise InputError(f"{path}: no such file; --format table reads one .parquet, .csv or .jsonl file")
    try:
        table = _read(file, path, columns)
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore the file") from None
    return interaction_table(table, columns, path)


def _read(file: Path, path: str, columns: dict[str, str]) -> pa.Table:
    match file.suffix.lower():
        case ".parquet":
            return read_parquet(file, columns, _NEXT_MOVE)
        case ".csv":
            header, names = read_header(path, ",", quoted=True), list(columns.values())
            check_separator(path, header, names, ",")
            check_columns(header, columns, path, _NEXT_MOVE)
            return read_delimited(path, delimiter=",", quoted=True, columns=names, empty_is_null=True)
        case ".jsonl" | ".ndjson":
            return read_json_lines(file, columns, _NEXT_MOVE)
        case suffix if suffix in _COMPRESSED:
            raise InputError(f"{path}: is compressed; decompress it first")
        case suffix:
            advice = _ADVICE.get(suffix, "convert it")
            raise InputError(f"{path}: suffix {file.suffix!r} is not .parquet, .csv or .jsonl; {advice}")
