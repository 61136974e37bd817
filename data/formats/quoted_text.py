"""Reads delimited text with quotes, and notices a quote that never closes.

A CSV parser takes such a quote for a value that reaches to the end of the file. If the value is in the last column, its
row has the right number of columns, and all rows below are lost without an error. So a further row is added after the
last byte. If the parser returns that row, all quotes were closed. If not, the row has become a part of the value.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from contracts.errors import InputError

# Record and unit separators, which no text has side by side.
END = "\x1e\x1f\x1e"


class _WithLastRow(io.RawIOBase):
    """A stream of bytes that a row follows, unless the stream is empty."""

    def __init__(self, source: Any, last_row: bytes) -> None:
        super().__init__()
        self._source, self._last_row, self._is_empty = source, last_row, True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk: bytes = self._source.read(size)
        if chunk:
            self._is_empty = False
            return chunk
        if self._is_empty:
            return b""
        last_row, self._last_row = self._last_row, b""  # it is shorter than any block
        return last_row


def quoted_batches(
    file: str,
    source: Any,
    *,
    header: Sequence[str],
    read: pacsv.ReadOptions,
    parse: pacsv.ParseOptions,
    convert: pacsv.ConvertOptions,
    way_out: str = "",
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of delimited text with quotes, in order.

    Args:
        file: the file's name, for messages.
        source: an open stream of the file's bytes.
        header: the names of all columns.
        read: pyarrow's options, with a block size and, for a file without a header, names of columns.
        parse: pyarrow's options, with the delimiter.
        convert: pyarrow's options; all columns that are read are large_string.
        way_out: a further next move for a quote that never closes.

    Raises:
        InputError: a quote never closes, or a row is longer than a block.
        OSError, pa.ArrowException: the text cannot be read.
    """
    num_rows, before = 0, None
    last_row = "\n" + parse.delimiter.join([END] * len(header)) + "\n"
    try:
        with pacsv.open_csv(_WithLastRow(source, last_row.encode()), read, parse, convert) as reader:
            for batch in reader:
                if before is not None and batch.num_rows:
                    num_rows += before.num_rows
                    yield before
                    before = None
                before = batch if before is None else before
    except pa.ArrowInvalid as error:
        if "straddl" not in str(error):
            raise
        num_rows += before.num_rows if before is not None else 0
        raise InputError(
            f"{file}: row {num_rows + 1} (header not counted) is longer than {read.block_size >> 20} MiB, perhaps "
            f"because a quote in it never closes; close it{way_out}"
        ) from None
    if before is None:
        return
    last = before.slice(before.num_rows - 1).to_pylist()
    if last and all(value == END for value in last[0].values()):
        yield before.slice(0, before.num_rows - 1)
        return
    raise _never_closed(file, num_rows + before.num_rows, last, way_out)


def _never_closed(file: str, row: int, last: Sequence[dict[str, str | None]], way_out: str) -> InputError:
    if not last:
        where = "a quote that opens in the header"
    else:
        values = (f"{name} {(value or '').partition(END)[0][:40]!r}" for name, value in last[0].items())
        where = f"a quote that opens in row {row} (header not counted; {', '.join(values)})"
    return InputError(
        f"{file}: {where} never closes, so all text after it is one value; close it, or restore the file if it is cut "
        f"off{way_out}"
    )
