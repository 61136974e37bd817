"""Reads RecBole's atomic files of interactions, which have one interaction per row, tabs, and a typed header."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from contracts.errors import InputError
from data.formats.columns import check_columns
from data.formats.delimited import check_separator, read_delimited, read_header
from data.formats.interaction_table import interaction_table
from data.layout import local_path

_COLUMNS = {"user": "user_id:token", "item": "item_id:token", "timestamp": "timestamp:float"}


def read_recbole(path: str) -> pa.Table:
    """Return the interactions of a `.inter` file, or of the only `.inter` file in a folder, in file order.

    Returns:
        Columns user, item (large_string) and timestamp (int64), with nulls for empty values.

    Raises:
        InputError: there is no such file, the header lacks one of the three columns, or a row or timestamp is
            malformed.
    """
    file = str(_inter_file(local_path(path)))
    header = read_header(file)
    check_separator(file, header, list(_COLUMNS.values()))
    missing = [name for name in _COLUMNS.values() if name not in header]
    if missing:
        raise InputError(
            f"{file}: header {header} lacks {', '.join(missing)}; RecBole interactions need "
            f"{', '.join(_COLUMNS.values())} (files with item_id_list are --format unisrec)"
        )
    check_columns(header, _COLUMNS, file, "")
    table = read_delimited(file, columns=list(_COLUMNS.values()), empty_is_null=True)
    return interaction_table(table, _COLUMNS, file)


def _inter_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.inter"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{path}: expected one .inter file, found {names}; name the file itself as --input")
    return files[0]
