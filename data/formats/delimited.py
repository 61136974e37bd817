"""Reads delimited text as Arrow tables of strings, with errors that name the file and the row."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from contracts.errors import InputError
from data.layout import local_path

# A row that is longer than a block cannot be parsed, and rows with long histories are long.
_BLOCK_BYTES = 16 << 20
_HEADER_BYTES = 1 << 20
# pyarrow's message for a malformed row. (Its handler of malformed rows is not called if a row is not UTF-8.)
_MALFORMED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars", " ": "spaces"}
_EMPTY_LINES = (b"\n", b"\r\n", b"\xef\xbb\xbf\n", b"\xef\xbb\xbf\r\n")  # before a header; pyarrow skips them too
_NO_DELIMITER = "\x1f"  # the unit separator, which no id contains


def read_delimited(
    file: str,
    *,
    delimiter: str = "\t",
    quoted: bool = False,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    empty_is_null: bool = False,
    skip_empty_lines: bool = True,
) -> pa.Table:
    """Return a text file as large_string columns; a row with more or fewer columns is refused, never skipped.

    Args:
        file: path of the file.
        delimiter: the separator of columns.
        quoted: whether '"' quotes a value, as in CSV; RecBole's files have no quoting.
        names: names of the columns of a file without a header; None: the first row has the names.
        columns: names of the columns to read, each of which exists once; other columns are ignored. None: all.
        empty_is_null: whether an empty value is a null.
        skip_empty_lines: whether empty lines are ignored rather than read as rows.

    Raises:
        InputError: the file is missing, empty or not UTF-8, or a row is malformed.
    """
    read = pacsv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, column_names=names)
    parse = _parse_options(delimiter, quoted, skip_empty_lines)
    wanted = columns or names or read_header(file, delimiter, quoted)
    convert = pacsv.ConvertOptions(
        column_types={name: pa.large_string() for name in wanted},
        include_columns=columns,
        strings_can_be_null=empty_is_null,
        null_values=[""] if empty_is_null else [],
    )
    try:
        return pacsv.read_csv(local_path(file), read_options=read, parse_options=parse, convert_options=convert)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({' '.join(str(error).split())}); check the path") from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        if malformed := _MALFORMED.search(str(error)):
            row, expected, actual, text = malformed.groups()
            separated = f" separated by {_SEPARATORS[delimiter]}" if delimiter in _SEPARATORS else ""
            raise InputError(
                f"{file}: row {row} has {actual} columns, expected {expected}{separated} ({text[:60]!r:.60}); "
                "the file is truncated or its delimiter is wrong, restore it"
            ) from None
        if reason == "Empty CSV file":
            raise InputError(f"{file}: is empty; restore it") from None
        raise InputError(f"{file}: cannot be read ({reason}); write it as UTF-8 text") from None


def _parse_options(delimiter: str, quoted: bool, skip_empty_lines: bool = True) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if quoted else False,
        double_quote=quoted,
        escape_char=False,
        newlines_in_values=quoted,
        ignore_empty_lines=skip_empty_lines,
    )


def read_header(file: str, delimiter: str = "\t", quoted: bool = False) -> list[str]:
    """Return the column names in a file's first row, which is parsed like every other row.

    Raises:
        InputError: the file is missing or empty, its first row is not UTF-8, or a quote never closes.
    """
    try:
        with local_path(file).open("rb") as source:
            line = source.readline(_HEADER_BYTES)
            while line in _EMPTY_LINES:
                line = source.readline(_HEADER_BYTES)
            while (
                quoted
                and line.count(b'"') % 2
                and len(line) < _HEADER_BYTES
                and (more := source.readline(_HEADER_BYTES))
            ):
                line += more  # a line break inside quotes
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the input path") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: the first line is not UTF-8 text; is it compressed? decompress it") from None
    if not text:
        raise InputError(f"{file}: is empty; restore it")
    if not quoted:
        return text.split(delimiter)
    read = pacsv.ReadOptions(use_threads=False, block_size=2 * _HEADER_BYTES, autogenerate_column_names=True)
    convert = pacsv.ConvertOptions(default_column_type=pa.large_string(), null_values=[])
    try:
        row = pacsv.read_csv(io.BytesIO(f"{text}\n".encode()), read, _parse_options(delimiter, quoted), convert)
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: the header cannot be read ({reason:.200}); correct it") from None
    return [column[0].as_py() for column in row.columns]


def check_separator(file: str, header: Sequence[str], wanted: Sequence[str], delimiter: str = "\t") -> None:
    """Refuse a file whose columns are separated by something else than the delimiter.

    Args:
        file: the file's name, for the message.
        header: names of its columns, split at the delimiter.
        wanted: names of the columns that it should have.
        delimiter: the expected separator.

    Raises:
        InputError: all wanted names are in one column.
    """
    if len(header) > 1 or not all(name in header[0] for name in wanted):
        return
    between = header[0]
    for name in wanted:
        between = between.replace(name, "", 1)
    found = next((name for separator, name in _SEPARATORS.items() if separator in between), "something else")
    needed = _SEPARATORS[delimiter]
    raise InputError(
        f"{file}: header {header[0]!r:.120} has its columns separated by {found}, expected {', '.join(wanted)} "
        f"separated by {needed}; write the file with {needed}"
    )


def read_ids(file: str) -> pa.Array:
    """Return source ids from a text file with one per line: large_string.

    The whole line is the id, including spaces and quotes. Empty lines at the end are ignored.

    Raises:
        InputError: the file is missing or not UTF-8, or there is an empty line before the last id.
    """
    table = read_delimited(file, delimiter=_NO_DELIMITER, names=["id"], empty_is_null=True, skip_empty_lines=False)
    ids = table.column("id").combine_chunks()
    is_id = ids.is_valid().to_numpy(zero_copy_only=False)
    num = len(is_id) - int(is_id[::-1].argmax()) if is_id.any() else 0
    if not is_id[:num].all():
        line = int(is_id.argmin()) + 1
        raise InputError(f"{file}: line {line} is empty; name the item of every feature row")
    return ids.slice(0, num)
