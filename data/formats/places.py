"""Says where a value stands in its file, for messages about bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places of a block's rows.

    Attributes:
        file: the file's name.
        exact: the words for a row of the block, such as "row 7 of 9". It may read the file again to count its rows.
        quick: the same without reading: rows may be counted from a byte of the file instead of from its start.
    """

    file: str
    exact: Callable[[int], str]
    quick: Callable[[int], str]

    def value(self, column: pa.ChunkedArray, row: int, name: str, *, is_exact: bool = True) -> str:
        """Return the words for a value of a column: the file, the column, the value and its row."""
        where = self.exact(row) if is_exact else self.quick(row)
        value = column[row].as_py()
        shown = f"{value.normalize():f}" if isinstance(value, Decimal) else repr(value)
        return f"{self.file}: column {name} is {shown:.100} in {where}"

    def of(self, rows: Callable[[int], int]) -> Places:
        """Return the places of a selection of the rows; `rows` gives the block's row of each selected one."""
        return Places(
            file=self.file,
            exact=lambda row: self.exact(rows(row)),
            quick=lambda row: self.quick(rows(row)),
        )
