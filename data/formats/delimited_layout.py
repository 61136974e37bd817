"""The layout of delimited text: CSV, tab-separated files, `::` and others, with a header or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.csv as pacsv

from contracts.errors import InputError
from data.formats.delimited import SEPARATOR, check_separator, header_of, parse_options, refused
from data.formats.layouts import Part, Wanted
from data.formats.quoted_text import quoted_batches
from data.formats.text_blocks import is_compressed, line_blocks, line_ranges, open_bytes

# A row of a file with quotes cannot be longer than this. pyarrow reads up to 32 such blocks ahead.
_QUOTED_BLOCK_BYTES = 4 << 20
_MARK = b"\xef\xbb\xbf"
_IGNORED = ("", "_")


@dataclass(frozen=True, kw_only=True)
class DelimitedLayout:
    """Text with one row a line.

    Attributes:
        delimiter: the separator of columns, of one or several characters.
        quoted: whether '"' quotes a value, which may then contain line ends.
        names: the names of the columns of files without a header; `_` or empty: the column is ignored. None: the first
            row has the names.
        are_names_given: whether the user named the columns, so that a header would be a mistake.
        of_items: whether the files describe items, so that messages name the options for them.
        encoding: the encoding of files without a header and quotes; all others are UTF-8.
    """

    delimiter: str = ","
    quoted: bool = True
    names: tuple[str, ...] | None = None
    are_names_given: bool = False
    of_items: bool = False
    encoding: str = "utf-8"

    is_typed: ClassVar[bool] = False
    row_name: ClassVar[str] = "row"

    def check(self) -> None:
        """Raise InputError if the delimiter is empty, or values cannot be quoted with it."""
        if not self.delimiter or set(self.delimiter) & set('\r\n"'):
            raise InputError(f"{self._flag} {self.delimiter!r}: cannot separate columns; name another")
        if self.quoted and len(self.delimiter.encode()) > 1:
            raise InputError(
                f"--delimiter {self.delimiter!r}: only a delimiter of one character can go with quotes; add --no-quotes"
            )

    @property
    def _flag(self) -> str:
        return "--item-delimiter" if self.of_items else "--delimiter"

    def ranges(self, name: str, path: Path, chunk_bytes: int) -> list[tuple[int, int | None]]:
        """Return byte ranges that end with lines. A file that is compressed or has quotes is one part."""
        if self.quoted or is_compressed(path):
            return [(0, None)]
        start = header_of(name, path, self.delimiter, self.quoted)[1] if self.names is None else 0
        return [*line_ranges(path, start, chunk_bytes)] or [(start, start)]

    def column_names(self, name: str, path: Path) -> list[str]:
        """Return the names in the header, or those that the layout gives."""
        if self.names is None:
            return header_of(name, path, self.delimiter, self.quoted)[0]
        return [column for column in self.names if column not in _IGNORED]

    def tables(self, part: Part, wanted: Wanted, block_bytes: int) -> Iterator[pa.Table]:
        """Yield the wanted columns as large_string; an empty value is a null."""
        header = self.column_names(part.name, part.path)
        if self.names is None:
            advice = f", or name its separator with {self._flag}"
            check_separator(part.name, header, wanted.names, self.delimiter, advice)
            if not self.quoted and not set(wanted.names) & {*header} and header[0][:1] == header[0][-1:] == '"':
                way_out = "write the file without them" if self.of_items else "add --quotes"
                raise InputError(f"{part.name}: header {header[0]!r:.60} is in quotes; {way_out}")
        elif self.are_names_given and not part.start:
            self._check_no_header(part)
        wanted.check(header, part.name)
        if self.quoted:
            yield from self._quoted_tables(part, wanted, header)
            return
        start = part.start
        if self.names is None:
            start = max(start, header_of(part.name, part.path, self.delimiter, self.quoted)[1])
        names = header if self.names is None else self._unique_names()
        num_rows = 0
        try:
            for block in line_blocks(part.name, part.path, start, part.stop, block_bytes):
                num_before = num_rows
                table = self._parsed(part, wanted, names, block, is_first=start == num_rows == 0, before=num_before)
                num_rows += table.num_rows
                yield table
        except OSError as error:
            raise refused(part.name, error, self.delimiter) from None

    def _parsed(
        self, part: Part, wanted: Wanted, names: list[str], block: bytes, *, is_first: bool, before: int
    ) -> pa.Table:
        """Parse a block of whole lines; `before` rows of the part are before it."""
        if block.startswith(_MARK) and not is_first:
            block = b"\n" + block  # so that pyarrow does not take the first character for a byte order mark
        if self.encoding != "utf-8":
            block = block.decode(self.encoding).encode()
        delimiter = self.delimiter
        if len(delimiter.encode()) > 1:
            if SEPARATOR.encode() in block:
                raise InputError(f"{part.name}: holds the character {SEPARATOR!r}, which cannot be read; remove it")
            block, delimiter = block.replace(delimiter.encode(), SEPARATOR.encode()), SEPARATOR
        read = pacsv.ReadOptions(use_threads=False, block_size=len(block), column_names=names)
        try:
            return pacsv.read_csv(pa.BufferReader(block), read, parse_options(delimiter, False), _convert(wanted))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            header = int(self.names is None)
            raise refused(
                part.name,
                error,
                self.delimiter,
                lambda: header + before + self._rows_before(part, wanted),
                path=part.path,
            ) from None

    def _rows_before(self, part: Part, wanted: Wanted) -> int:
        if not part.start:
            return 0
        before = Part(name=part.name, path=part.path, stop=part.start)
        return self.count_rows(before, wanted, 16 << 20)

    def _quoted_tables(self, part: Part, wanted: Wanted, header: Sequence[str]) -> Iterator[pa.Table]:
        names = None if self.names is None else self._unique_names()
        read = pacsv.ReadOptions(use_threads=False, block_size=_QUOTED_BLOCK_BYTES, column_names=names)
        try:
            stream = open_bytes(part.path) if is_compressed(part.path) else pa.OSFile(str(part.path))
            with stream:
                for batch in quoted_batches(
                    part.name,
                    stream,
                    header=names or header,
                    read=read,
                    parse=parse_options(self.delimiter, True),
                    convert=_convert(wanted),
                    way_out="" if self.of_items else ", or add --no-quotes if quotes mean nothing",
                ):
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise refused(part.name, error, self.delimiter, path=part.path) from None

    def _check_no_header(self, part: Part) -> None:
        """Refuse a file whose first row has the names that were given for its columns."""
        assert self.names is not None
        try:
            first = header_of(part.name, part.path, self.delimiter, self.quoted)[0]
        except InputError:
            return  # reading says why
        first = [name.strip() for name in first]
        pairs = [pair for pair in zip(self.names, first, strict=False) if pair[0] not in _IGNORED]
        if len(first) == len(self.names) and all(name == value for name, value in pairs):
            flag = "--item-names" if self.of_items else "--columns"
            raise InputError(f"{part.name}: the file has a header, {','.join(first)!r:.120}; leave out {flag}")

    def _unique_names(self) -> list[str]:
        """Return the names of a file without a header, with other names for columns that are ignored."""
        assert self.names is not None
        return [f"\0{place}" if name in _IGNORED else name for place, name in enumerate(self.names)]

    def count_rows(self, part: Part, wanted: Wanted, block_bytes: int) -> int:
        """Return the number of rows of a part, by reading it."""
        return sum(table.num_rows for table in self.tables(part, wanted, block_bytes))


def _convert(wanted: Wanted) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types={name: pa.large_string() for name in wanted.names},
        include_columns=wanted.names,
        strings_can_be_null=True,
        null_values=[""],
    )
