"""Delimited text as Arrow tables of strings, with errors that name the file and the row."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from configs.errors import InputError
from data.layout import UNREADABLE, local_path

# A row longer than a block cannot be parsed, and prefixes of long histories are long rows.
_BLOCK_BYTES = 16 << 20
# What pyarrow says of one. (Its handler of malformed rows is not called for those that are not UTF-8.)
_MALFORMED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)


def read_delimited(
    file: str,
    *,
    delimiter: str = "\t",
    quoted: bool = False,
    names: Sequence[str] | None = None,
    empty_is_null: bool = False,
) -> pa.Table:
    """A text file as large_string columns; a row with more or fewer columns is refused, never skipped.

    Args:
        quoted: whether '"' quotes a value (CSV); RecBole's files have no quoting.
        names: the columns of a file without a header; None: the first row names them.
        empty_is_null: whether an empty value is a null.

    Raises:
        InputError: missing, empty, not UTF-8, or a malformed row.
    """
    read = pacsv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, column_names=names)
    parse = pacsv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if quoted else False,
        double_quote=quoted,
        escape_char=False,
        newlines_in_values=quoted,
    )
    header = list(names) if names else read_header(file, delimiter, quoted)
    convert = pacsv.ConvertOptions(
        column_types={name: pa.large_string() for name in header},
        strings_can_be_null=empty_is_null,
        null_values=[""] if empty_is_null else [],
    )
    try:
        return pacsv.read_csv(local_path(file), read_options=read, parse_options=parse, convert_options=convert)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        if malformed := _MALFORMED.search(str(error)):
            row, expected, actual, text = malformed.groups()
            raise InputError(
                f"{file}: row {row} has {actual} columns, expected {expected} ({text[:60]!r:.60}); the file is "
                "truncated or its delimiter is wrong, restore it"
            ) from None
        raise InputError(f"{file}: cannot be read ({reason}); write it as UTF-8 text") from None


def read_header(file: str, delimiter: str = "\t", quoted: bool = False) -> list[str]:
    """The column names in a file's first line.

    Raises:
        InputError: missing or empty file, or bytes that are not UTF-8.
    """
    try:
        with local_path(file).open("rb") as source:
            line = source.readline(1 << 20).decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the input path") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: the first line is not UTF-8 text; is it compressed? decompress it") from None
    if not line:
        raise InputError(f"{file}: is empty; restore it")
    return [name.strip('"') if quoted else name for name in line.split(delimiter)]
