"""Errors for text that is not UTF-8: where the first such value is, and the command that converts the file."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import pyarrow as pa

from contracts.errors import InputError
from data.formats.text_blocks import COMPRESSED, is_compressed, open_bytes

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_LINE = 16 << 20


def check_not_utf16(file: str, start: bytes) -> None:
    """Refuse a file that starts with the byte order mark of UTF-16.

    Raises:
        InputError: names the command that converts it.
    """
    if start.startswith(_UTF16):
        raise _utf16(file)


def is_utf16(path: Path) -> bool:
    """Return whether a file starts with the byte order mark of UTF-16; False if it cannot be read."""
    try:
        with open_bytes(path) as stream:
            return bytes(stream.read(2)).startswith(_UTF16)
    except (OSError, pa.ArrowException):
        return False


def _utf16(file: str) -> InputError:
    return InputError(f"{file}: is UTF-16 text, not UTF-8; convert it with {_command(file, 'UTF-16')}")


def not_utf8(file: str, path: Path, delimiter: str) -> InputError | None:
    """Return the error for the first line of a file that is not UTF-8, or None if there is none.

    Args:
        file: the file's name, for the message.
        path: the file.
        delimiter: the separator of columns.
    """
    if is_utf16(path):
        return _utf16(file)
    number = 0
    try:
        with open_bytes(path) as stream:
            left = b""
            while chunk := bytes(stream.read(1 << 20)):
                lines = (left + chunk).split(b"\n")
                left = lines.pop()
                for line in lines:
                    number += 1
                    if not _is_utf8(line):
                        return _error(file, number, line, delimiter)
                if len(left) > _LONGEST_LINE:
                    return None
    except (OSError, pa.ArrowException):
        return None
    return None if _is_utf8(left) else _error(file, number + 1, left, delimiter)


def not_utf8_column(file: str, name: str, column: pa.ChunkedArray) -> InputError:
    """Return the error for a column of text that holds bytes that are not UTF-8."""
    value = next((value for value in column.cast(pa.large_binary()).to_pylist() if value and not _is_utf8(value)), b"")
    return InputError(f"{file}: column {name} is {_shown(value)}, which is not UTF-8 text; {_advice(file)}")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _error(file: str, number: int, line: bytes, delimiter: str) -> InputError:
    value = next((value for value in line.split(delimiter.encode()) if not _is_utf8(value)), line)
    return InputError(f"{file}: line {number} has {_shown(value)}, which is not UTF-8 text; {_advice(file)}")


def _shown(value: bytes) -> str:
    """Return bytes for a message, without the b of Python: 'Jos\\xe9'."""
    return f"{repr(value)[1:]:.60}"


def _advice(file: str) -> str:
    if file.lower().endswith((".parquet", ".pq")):
        return "write the file again with text in UTF-8"
    return f"if it is Latin-1, convert it with {_command(file, 'LATIN1')}"


def _command(file: str, encoding: str) -> str:
    convert = f"iconv -f {encoding} -t UTF-8"
    if not is_compressed(file):
        path = Path(file)
        return f"{convert} {quote(path.name)} > {quote(f'{path.stem}-utf8{path.suffix}')}"
    path = Path(next(file[: -len(end)] for end in COMPRESSED if file.lower().endswith(end)))
    tool = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}[file[len(str(path)) :].lower()]
    return f"{tool} -dc {quote(Path(file).name)} | {convert} > {quote(f'{path.stem}-utf8{path.suffix}')}"
