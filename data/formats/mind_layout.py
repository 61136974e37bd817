"""The layout of MIND's impressions: a row lists the news that a user was shown, each with whether it was clicked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.delimited_layout import DelimitedLayout
from data.formats.layouts import Part, Wanted

USER, TIME, ITEM = "user", "time", "item"
_SHOWN = "impressions"
_ROWS = DelimitedLayout(delimiter="\t", quoted=False, names=("impression", USER, TIME, "history", _SHOWN))
_LABELLED, _CLICKED = r"^.+-[01]$", "-1"


@dataclass(frozen=True)
class MindLayout:
    """Rows of an impression's id, user, time, history, and news such as `N23-1 N7-0`. Each click becomes a row."""

    is_typed: ClassVar[bool] = False
    row_name: ClassVar[str] = "click"

    def ranges(self, name: str, path: Path, chunk_bytes: int) -> list[tuple[int, int | None]]:
        """Return byte ranges that end with lines. A compressed file is one part."""
        return _ROWS.ranges(name, path, chunk_bytes)

    def column_names(self, name: str, path: Path) -> list[str]:  # noqa: ARG002 (all files have the same)
        """Return the names of the columns that a click has."""
        return [USER, ITEM, TIME]

    def tables(self, part: Part, wanted: Wanted, block_bytes: int) -> Iterator[pa.Table]:
        """Yield user, item and time of all clicks as large_string.

        Raises:
            InputError: a row has another number of columns, or news without labels, as in MIND's test set.
        """
        wanted.check([USER, ITEM, TIME], part.name)
        num_rows = 0
        for table in _ROWS.tables(part, Wanted(roles={USER: USER, "timestamp": TIME, ITEM: _SHOWN}), block_bytes):
            yield _clicks(table, part.name, num_rows if part.start == 0 else None).select(wanted.names)
            num_rows += table.num_rows

    def count_rows(self, part: Part, wanted: Wanted, block_bytes: int) -> int:
        """Return the number of clicks of a part, by reading it."""
        return sum(table.num_rows for table in self.tables(part, wanted, block_bytes))


def _clicks(table: pa.Table, file: str, rows_before: int | None) -> pa.Table:
    """Return the clicks of a block; `rows_before` rows of the file are before it, None: an unknown number."""
    shown = pc.ascii_split_whitespace(pc.fill_null(pc.ascii_trim_whitespace(table.column(_SHOWN)), "").combine_chunks())
    news, rows = pc.list_flatten(shown), pc.list_parent_indices(shown)
    place = pc.index(pc.or_(pc.match_substring_regex(news, _LABELLED), pc.equal(news, "")), False).as_py()
    if place >= 0:
        row = rows[place].as_py() + 1
        where = f"line {rows_before + row}" if rows_before is not None else f"user {table.column(USER)[row - 1]}"
        raise InputError(
            f"{file}: column impressions has {news[place].as_py()!r:.60} in {where}, expected news with -1 (clicked) "
            "or -0; MIND's test set has no such labels, use the folders for training and validation"
        )
    clicked = np.flatnonzero(pc.ends_with(news, _CLICKED).to_numpy(zero_copy_only=False))
    owners = rows.take(pa.array(clicked))
    return pa.table(
        {
            USER: table.column(USER).take(owners),
            ITEM: pc.utf8_slice_codeunits(news.take(pa.array(clicked)), 0, -len(_CLICKED)),
            TIME: table.column(TIME).take(owners),
        }
    )
