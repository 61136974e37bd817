"""Reads delimited text as Arrow tables of strings, with errors that name the file and the row."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv as pacsv

from contracts.errors import InputError
from data.formats.encodings import check_not_utf16, is_utf16, not_utf8
from data.formats.quoted_text import END
from data.formats.text_blocks import is_compressed, open_bytes, refused_compression
from data.layout import local_path

# A row that is longer than a block cannot be parsed, and rows with long histories are long.
_BLOCK_BYTES = 16 << 20
_HEADER_BYTES = 1 << 20
# pyarrow's message for a malformed row. (Its handler of malformed rows is not called if a row is not UTF-8.)
_MALFORMED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars", " ": "spaces"}
_LINE_END = re.compile(rb"\r\n|\n|\r")
SEPARATOR = "\x1f"  # the unit separator, which no id contains


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
    parse = parse_options(delimiter, quoted, skip_empty_lines)
    wanted = columns or names or read_header(file, delimiter, quoted)
    convert = pacsv.ConvertOptions(
        column_types={name: pa.large_string() for name in wanted},
        include_columns=columns,
        strings_can_be_null=empty_is_null,
        null_values=[""] if empty_is_null else [],
    )
    try:
        return pacsv.read_csv(local_path(file), read_options=read, parse_options=parse, convert_options=convert)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise refused(file, error, delimiter, path=local_path(file)) from None


def refused(
    file: str,
    error: Exception,
    delimiter: str,
    rows_before: Callable[[], int] = lambda: 0,
    *,
    path: Path | None = None,
) -> InputError:
    """Return the error for text that pyarrow refused.

    Args:
        file: the file's name, for the message.
        error: pyarrow's error.
        delimiter: the separator of columns.
        rows_before: returns the number of rows before those that pyarrow read, and with them the header.
        path: the local file, in which text that is not UTF-8 is searched for; None: it is not.
    """
    reason = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return InputError(f"{file}: no such file; check the path")
    if isinstance(error, OSError):
        if is_compressed(file):
            return refused_compression(file, error)
        return InputError(f"{file}: cannot be read ({reason}); check the path")
    is_encoding = "UTF8" in reason or isinstance(error, UnicodeDecodeError)
    if path is not None and (is_encoding or is_utf16(path)) and (found := not_utf8(file, path, delimiter)):
        return found
    if malformed := _MALFORMED.search(str(error)):
        row, expected, actual, text = malformed.groups()
        separated = f" separated by {separator_name(delimiter)}"
        text = text.partition(f"\n{END}")[0]
        shown = text.replace(SEPARATOR, delimiter)[:60]
        # Only a value in quotes has a line end.
        way_out = "perhaps a quote in it never closes, close it; or " if "\n" in text.rstrip() else ""
        return InputError(
            f"{file}: row {int(row) + rows_before()} has {actual} columns, expected {expected}{separated} "
            f"({shown!r:.60}); {way_out}the file is truncated or its delimiter is wrong, restore it"
        )
    if "Empty CSV file or block" in reason:
        return InputError(f"{file}: has no rows; restore it")
    if reason == "Empty CSV file":
        return InputError(f"{file}: is empty; restore it")
    reason = re.sub(r"Row #(\d+)", lambda row: f"Row #{int(row[1]) + rows_before()}", reason)
    return InputError(f"{file}: cannot be read ({reason}); write it as UTF-8 text")


def separator_name(delimiter: str) -> str:
    """Return a separator's name for messages, such as commas."""
    return _SEPARATORS.get(delimiter, repr(delimiter))


def parse_options(delimiter: str, quoted: bool, skip_empty_lines: bool = True) -> pacsv.ParseOptions:
    """Return pyarrow's options for text with this separator of one character."""
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
    return header_of(file, local_path(file), delimiter, quoted)[0]


def header_of(file: str, path: Path, delimiter: str, quoted: bool) -> tuple[list[str], int]:
    """Return the names in a file's first row, and the place of the byte after that row (after decompression).

    Args:
        file: the file's name, for messages.
        path: the file.
        delimiter: the separator of columns.
        quoted: whether '"' quotes a name.

    Raises:
        InputError: as `read_header`.
    """
    try:
        with open_bytes(path) as source:
            start, line = _first_line(source, quoted)
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except pa.ArrowException as error:
        raise refused_compression(file, error) from None
    except OSError as error:
        if is_compressed(path) and not error.strerror:
            raise refused_compression(file, error) from None
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the input path") from None
    except UnicodeDecodeError:
        check_not_utf16(file, line)
        if b"\0" not in line and (found := not_utf8(file, path, delimiter)):
            raise found from None
        raise InputError(f"{file}: the first line is not UTF-8 text; is it compressed? decompress it") from None
    if not text:
        raise InputError(f"{file}: is empty; restore it")
    if not quoted:
        return text.split(delimiter), start + len(line)
    read = pacsv.ReadOptions(use_threads=False, block_size=2 * _HEADER_BYTES, autogenerate_column_names=True)
    convert = pacsv.ConvertOptions(default_column_type=pa.large_string(), null_values=[])
    try:
        row = pacsv.read_csv(io.BytesIO(f"{text}\n".encode()), read, parse_options(delimiter, quoted), convert)
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        way_out = "a quote in it never closes, close it" if text.count('"') % 2 else "correct it"
        raise InputError(f"{file}: the header cannot be read ({reason:.200}); {way_out}") from None
    return [column[0].as_py() for column in row.columns], start + len(line)


def _first_line(source: IO[bytes], quoted: bool) -> tuple[int, bytes]:
    """Return the place and the bytes of the first line that is not empty. Lines may end with \\r alone."""
    text = source.read(_HEADER_BYTES)
    begin = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    while text[begin : begin + 1] in (b"\r", b"\n"):
        begin += 1
    end = begin
    while found := _LINE_END.search(text, end):
        end = found.end()
        if not (quoted and text.count(b'"', begin, end) % 2):
            return begin, text[begin:end]
    return begin, text[begin:]  # a line break inside quotes, or no line end


def check_separator(
    file: str, header: Sequence[str], wanted: Sequence[str], delimiter: str = "\t", advice: str = ""
) -> None:
    """Refuse a file whose columns are separated by something else than the delimiter.

    Args:
        file: the file's name, for the message.
        header: names of its columns, split at the delimiter.
        wanted: names of the columns that it should have.
        delimiter: the expected separator.
        advice: a further way out, which the message ends with.

    Raises:
        InputError: all wanted names are in one column.
    """
    if len(header) > 1 or not all(name in header[0] for name in wanted):
        return
    between = header[0]
    for name in wanted:
        between = between.replace(name, "", 1)
    found = next((name for separator, name in _SEPARATORS.items() if separator in between), "something else")
    needed = separator_name(delimiter)
    raise InputError(
        f"{file}: header {header[0]!r:.120} has its columns separated by {found}, expected {', '.join(wanted)} "
        f"separated by {needed}; write the file with {needed}{advice}"
    )


def read_ids(file: str) -> pa.Array:
    """Return source ids from a text file with one per line: large_string.

    The whole line is the id, including spaces and quotes. Empty lines at the end are ignored.

    Raises:
        InputError: the file is missing or not UTF-8, or there is an empty line before the last id.
    """
    table = read_delimited(file, delimiter=SEPARATOR, names=["id"], empty_is_null=True, skip_empty_lines=False)
    ids = table.column("id").combine_chunks()
    is_id = ids.is_valid().to_numpy(zero_copy_only=False)
    num = len(is_id) - int(is_id[::-1].argmax()) if is_id.any() else 0
    if not is_id[:num].all():
        line = int(is_id.argmin()) + 1
        raise InputError(f"{file}: line {line} is empty; name the item of every feature row")
    return ids.slice(0, num)
