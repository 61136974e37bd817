"""What a reader of raw interactions offers: chunks of its files that can be read apart, and blocks of rows in order.

The rows of a source have one order: those of chunk 0 in the order of its file, then those of chunk 1, and so on. The
numbers of users and items, ties of time and the choice among duplicates depend on it, so every engine keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from data.formats.held import Held
from data.formats.time_kinds import TimeKind


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of the input that one process reads: a file, or bytes or row groups of one.

    Attributes:
        number: its place among the chunks, from 0.
        file: path of the file.
        start: the first byte, or the first row group of a Parquet file.
        stop: the byte or row group after the last; None: to the end of the file.
        num_bytes: about how many bytes of the file it holds.
    """

    number: int
    file: str
    start: int = 0
    stop: int | None = None
    num_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive rows of a chunk, without those that are left out.

    Attributes:
        rows: columns user and item (large_string), timestamp (int64, in `time_kind`'s unit) unless the source has
            none, and split (int8; 0: training, 1: validation, 2: test) if the source's own split is kept. No nulls.
        time_kind: what the timestamps are; None: the source has none, and rows are in order of time.
        num_read: the number of rows of the file that the block stands for.
        dropped: for each reason (`rows_with_null`, `rows_not_kept`), the number of rows that were left out.
        held: for each condition of `--keep`, how many rows hold it.
    """

    rows: pa.Table
    time_kind: TimeKind | None
    num_read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    held: tuple[Held, ...] = ()


class InteractionSource(Protocol):
    """Raw interactions in files. Sources can be pickled: processes on other nodes read chunks of them."""

    @property
    def name(self) -> str:
        """The input as the user named it, for messages."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The format and its parameters, for the manifest."""
        ...

    def chunks(self, chunk_bytes: int) -> Sequence[Chunk]:
        """Return the chunks in order, of about this size where a file can be divided."""
        ...

    def blocks(self, chunk: Chunk, block_bytes: int) -> Iterator[Block]:
        """Yield the rows of a chunk in file order, about this many bytes of the file at a time."""
        ...

    def item_columns(self) -> pa.Table | None:
        """Return what the source tells about items: item (large_string, each once) and further columns, or None."""
        ...


def all_blocks(source: InteractionSource, chunks: Iterable[Chunk], block_bytes: int) -> Iterator[Block]:
    """Yield the blocks of the chunks in order."""
    for chunk in chunks:
        yield from source.blocks(chunk, block_bytes)
