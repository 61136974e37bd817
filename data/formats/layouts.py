"""How a file holds its rows: what every layout offers, and the layout of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.formats.columns import check_columns, shown
from data.layout import UNREADABLE

_MOST_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a file that is read.

    Attributes:
        name: the file's name, for messages.
        path: the local file.
        start: the first byte after decompression, or the first row group.
        stop: the byte or row group after the last; None: to the end.
    """

    name: str
    path: Path
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The columns to read.

    Attributes:
        roles: for each of user, item, timestamp and split that the file gives, the name of its column.
        others: for the names of further columns, the condition that needs it.
        next_move: what to do about a missing column of a role; `{role}` in it is replaced.
    """

    roles: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)
    next_move: str = "name it with --{role}-column"

    @property
    def names(self) -> list[str]:
        """The names of all columns, each once."""
        return list(dict.fromkeys([*self.roles.values(), *self.others]))

    def check(self, names: Sequence[str], file: str) -> None:
        """Check that a file has all columns.

        Raises:
            InputError: a column is missing or exists twice, or is named for two roles.
        """
        check_columns(names, self.roles, file, self.next_move)
        for name, condition in self.others.items():
            if name not in names:
                raise InputError(f"{file}: no column {name!r} among {shown(names)}; correct {condition}")
            if names.count(name) > 1:
                raise InputError(f"{file}: {names.count(name)} columns are called {name!r}; rename all but one")


class Layout(Protocol):
    """A way in which files hold rows."""

    @property
    def is_typed(self) -> bool:
        """Whether a file says the types of its columns."""
        ...

    @property
    def row_name(self) -> str:
        """What a row of the tables is called in messages: "row" if it is a row of the file."""
        ...

    def ranges(self, name: str, path: Path, chunk_bytes: int) -> list[tuple[int, int | None]]:
        """Return the starts and stops of the parts, at least one, that a file is divided into."""
        ...

    def column_names(self, name: str, path: Path) -> list[str]:
        """Return the names of a file's columns; for JSON lines, those that its first rows have."""
        ...

    def tables(self, part: Part, wanted: Wanted, block_bytes: int) -> Iterator[pa.Table]:
        """Yield the wanted columns of all rows in order, about this many bytes of the file at a time.

        Raises:
            InputError: the file cannot be read as this layout, or a column is missing.
        """
        ...

    def count_rows(self, part: Part, wanted: Wanted, block_bytes: int) -> int:
        """Return the number of rows of a part."""
        ...


@dataclass(frozen=True)
class ParquetLayout:
    """Parquet files, which are divided by row groups. Page checksums are verified if a file has any."""

    is_typed: ClassVar[bool] = True
    row_name: ClassVar[str] = "row"

    def ranges(self, name: str, path: Path, chunk_bytes: int) -> list[tuple[int, int | None]]:
        """Return ranges of row groups of about this many bytes."""
        with _opened(name, path) as parquet:
            sizes = [_group_bytes(parquet, group) for group in range(parquet.num_row_groups)]
        ranges: list[tuple[int, int | None]] = []
        start, total = 0, 0
        for group, size in enumerate(sizes):
            total += size
            if total >= chunk_bytes:
                ranges.append((start, group + 1))
                start, total = group + 1, 0
        if start < len(sizes) or not sizes:
            ranges.append((start, len(sizes)))
        return ranges

    def column_names(self, name: str, path: Path) -> list[str]:
        """Return the names of a file's columns."""
        with _opened(name, path) as parquet:
            return parquet.schema_arrow.names

    def tables(self, part: Part, wanted: Wanted, block_bytes: int) -> Iterator[pa.Table]:
        """Yield the wanted columns. pyarrow's datasets are not used, because they make columns of folder names."""
        with _opened(part.name, part.path) as parquet:
            wanted.check(parquet.schema_arrow.names, part.name)
            stop = parquet.num_row_groups if part.stop is None else part.stop
            names = wanted.names
            for group in range(part.start, stop):
                num_rows = parquet.metadata.row_group(group).num_rows
                if not num_rows:
                    continue
                per_row = max(1, _group_bytes(parquet, group) // num_rows)
                batch_rows = min(max(1, block_bytes // per_row), _MOST_ROWS)
                try:
                    for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=names, use_threads=False):
                        yield pa.Table.from_batches([batch]).select(names)
                except UNREADABLE as error:
                    raise _unreadable(part.name, error) from None

    def count_rows(self, part: Part, wanted: Wanted, block_bytes: int) -> int:  # noqa: ARG002 (the file says it)
        """Return the number of rows of the row groups."""
        with _opened(part.name, part.path) as parquet:
            stop = parquet.num_row_groups if part.stop is None else part.stop
            return sum(parquet.metadata.row_group(group).num_rows for group in range(part.start, stop))


def _group_bytes(parquet: pq.ParquetFile, group: int) -> int:
    return int(parquet.metadata.row_group(group).total_byte_size)


def _opened(name: str, path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except UNREADABLE as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: cannot be read ({' '.join(str(error).split())}); restore the file")
