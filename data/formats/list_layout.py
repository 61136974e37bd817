"""The layout of lists: a line is a user and then the user's items, oldest first, separated by white space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from data.formats.delimited import SEPARATOR, parse_options, refused
from data.formats.layouts import Part, Wanted
from data.formats.text_blocks import is_compressed, line_blocks, line_ranges

USER, ITEM = "user", "item"
_LINE = "line"


@dataclass(frozen=True)
class ListLayout:
    """Lists of items. Each item is a row with the columns user and item; a user without items is a row without one."""

    is_typed: ClassVar[bool] = False
    row_name: ClassVar[str] = "item"

    def ranges(self, name: str, path: Path, chunk_bytes: int) -> list[tuple[int, int | None]]:  # noqa: ARG002
        """Return byte ranges that end with lines. A compressed file is one part."""
        if is_compressed(path):
            return [(0, None)]
        return [*line_ranges(path, 0, chunk_bytes)] or [(0, 0)]

    def column_names(self, name: str, path: Path) -> list[str]:  # noqa: ARG002 (all files have the same)
        """Return the names user and item."""
        return [USER, ITEM]

    def tables(self, part: Part, wanted: Wanted, block_bytes: int) -> Iterator[pa.Table]:
        """Yield columns user and item as large_string."""
        wanted.check([USER, ITEM], part.name)
        convert = pacsv.ConvertOptions(column_types={_LINE: pa.large_string()})
        try:
            for block in line_blocks(part.name, part.path, part.start, part.stop, block_bytes):
                read = pacsv.ReadOptions(use_threads=False, block_size=len(block), column_names=[_LINE])
                lines = pacsv.read_csv(pa.BufferReader(block), read, parse_options(SEPARATOR, False), convert)
                yield _rows(lines.column(_LINE)).select(wanted.names)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise refused(part.name, error, " ", path=part.path) from None

    def count_rows(self, part: Part, wanted: Wanted, block_bytes: int) -> int:
        """Return the number of rows of a part, by reading it."""
        return sum(table.num_rows for table in self.tables(part, wanted, block_bytes))


def _rows(lines: pa.ChunkedArray) -> pa.Table:
    """Return a row for each item of the lines, and one without an item for each user without items."""
    text = pc.ascii_trim_whitespace(lines.combine_chunks())
    text = text.filter(pc.not_equal(text, ""))
    words = pc.ascii_split_whitespace(text)
    offsets = words.offsets.to_numpy().astype(np.int64)
    flat, lengths = pc.list_flatten(words), np.diff(offsets)
    starts = offsets[:-1] - offsets[0] if len(offsets) else offsets
    is_user = np.zeros(len(flat), bool)
    is_user[starts] = True
    is_kept = ~is_user
    is_kept[starts[lengths == 1]] = True
    items = pc.if_else(pa.array(is_user), pa.scalar(None, pa.large_string()), flat).filter(pa.array(is_kept))
    owners = np.repeat(starts, np.maximum(lengths - 1, 1))
    return pa.table({USER: flat.take(pa.array(owners)), ITEM: items})
