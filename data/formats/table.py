"""Interactions as a table: Parquet, CSV or JSON lines, with column names of the user's choice."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.json as pajson

from configs.errors import InputError
from data.formats.columns import check_columns, read_parquet
from data.formats.delimited import read_delimited, read_header
from data.interactions import interaction_table
from data.layout import UNREADABLE, local_path

_NEXT_MOVE = "name it with --{role}-column"


def read_table(
    path: str, user_column: str = "user", item_column: str = "item", timestamp_column: str = "timestamp"
) -> pa.Table:
    """Interactions of a .parquet, .csv or .jsonl file, in file order.

    Returns:
        Columns user, item (large_string) and timestamp (int64), with the file's nulls.

    Raises:
        InputError: another suffix, an unreadable file, a missing column, ids or timestamps of a wrong type.
    """
    file = local_path(path)
    columns = {"user": user_column, "item": item_column, "timestamp": timestamp_column}
    if not file.is_file():
        raise InputError(f"{path}: no such file; --format table reads one .parquet, .csv or .jsonl file")
    try:
        if file.suffix == ".parquet":
            table = read_parquet(file, columns, _NEXT_MOVE)
        elif file.suffix == ".csv":
            check_columns(read_header(path, ",", quoted=True), columns, path, _NEXT_MOVE)
            table = read_delimited(path, delimiter=",", quoted=True, empty_is_null=True)
        elif file.suffix in (".jsonl", ".ndjson"):
            table = pajson.read_json(file, read_options=pajson.ReadOptions(block_size=16 << 20))
            check_columns(table.column_names, columns, path, _NEXT_MOVE)
        else:
            raise InputError(f"{path}: suffix {file.suffix!r} is not .parquet, .csv or .jsonl; rename or convert it")
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore the file") from None
    return interaction_table(table, columns, path)
