"""Arrays that lie in several files are read as one array, without a copy of the whole.

Shapes: n requested rows, N rows of all parts together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from contracts.rows import Rows


class StackedRows:
    """Several arrays, one after the other, read as one (implements `contracts.rows.Rows`).

    Equivalent to np.concatenate of the parts, except that

    - nothing is read before it is asked for, and a read takes memory only for the rows that it returns;
    - values >= 0 of a part grow by the part's shift, and negative ones stay, because they stand for "none";
    - an index is a whole number, a slice, or one array of whole numbers or booleans, and not a tuple of several.

    An array of numbers is sorted into parts by a binary search for each number. A slice with step 1 that lies in one
    part is a view of this part, unless the part has a shift or another type.

    Args:
        parts: at least one array; rows of all have the same shape.
        shifts: what is added to the values of each part; None: nothing.
        dtype: the type of the values; None: that of the parts, and float32 if they differ.

    Attributes:
        shape: the number of rows N, and then the shape of a row.
        dtype: the type of the values.
    """

    def __init__(self, parts: Sequence[Rows], *, shifts: Sequence[int] | None = None, dtype: Any = None) -> None:
        row_shapes = {part.shape[1:] for part in parts}
        assert len(row_shapes) == 1, f"rows of shapes {sorted(row_shapes)}"
        dtypes = {np.dtype(part.dtype) for part in parts}
        self.dtype: np.dtype[Any] = np.dtype(dtype or (np.float32 if len(dtypes) > 1 else dtypes.pop()))
        self._parts = tuple(parts)
        self._shifts = tuple(shifts) if shifts is not None else (0,) * len(parts)
        assert len(self._shifts) == len(self._parts), "one shift for each part"
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *row_shapes.pop())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._slice(start, max(start, stop))
            return self._take(np.arange(start, stop, step))
        if isinstance(index, tuple):
            raise IndexError(f"{index}: only whole rows can be read")
        wanted = np.asarray(index)
        if wanted.dtype == bool:
            if wanted.shape != (len(self),):
                raise IndexError(f"booleans of shape {list(wanted.shape)} for {len(self)} rows")
            return self._take(np.flatnonzero(wanted))
        if wanted.size == 0 and not isinstance(index, np.ndarray):
            wanted = wanted.astype(np.int64)
        if not np.issubdtype(wanted.dtype, np.integer):
            raise IndexError(f"rows are numbered by whole numbers, not by {wanted.dtype}")
        return self._take(wanted) if wanted.ndim else self._take(wanted[None])[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows of several files cannot be an array without a copy")
        return np.asarray(self._slice(0, len(self)), dtype=dtype)

    def _slice(self, start: int, stop: int) -> np.ndarray:
        first, last = np.searchsorted(self._ends, [start, max(start, stop - 1)], side="right")
        if first == last and first < len(self._parts):
            return self._read(int(first), slice(*(bound - self._begin(int(first)) for bound in (start, stop))))
        found = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        for number in range(int(first), min(int(last) + 1, len(self._parts))):
            begin, end = max(start, self._begin(number)), min(stop, int(self._ends[number]))
            own = slice(begin - self._begin(number), end - self._begin(number))
            found[begin - start : end - start] = self._read(number, own)
        return found

    def _take(self, index: np.ndarray) -> np.ndarray:
        size = len(self)
        if index.size and (index.min() < -size or index.max() >= size):
            wrong = int(index[(index < -size) | (index >= size)][0])
            raise IndexError(f"row {wrong} is out of bounds for {size} rows")
        rows = index.astype(np.int64, copy=False).ravel()
        rows = np.where(rows < 0, rows + size, rows)
        part = np.searchsorted(self._ends, rows, side="right")
        numbers = np.flatnonzero(np.bincount(part))
        if len(numbers) == 1:
            found = self._read(int(numbers[0]), rows - self._begin(int(numbers[0])))
        else:
            found = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
            for number in map(int, numbers):
                own = np.flatnonzero(part == number)
                found[own] = self._read(number, rows[own] - self._begin(number))
        return found.reshape((*index.shape, *self.shape[1:]))

    def _begin(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0

    def _read(self, number: int, own: slice | np.ndarray) -> np.ndarray:
        """Return rows of one part, numbered within it, in the type of the whole and shifted."""
        rows: np.ndarray = np.asarray(self._parts[number][own]).astype(self.dtype, copy=False)
        shift = self._shifts[number]
        return np.where(rows >= 0, rows + self.dtype.type(shift), rows) if shift else rows


class EqualRows:
    """An array whose values are all the same, without memory for them (implements `contracts.rows.Rows`).

    Args:
        value: every value.
        shape: the number of rows, and then the shape of a row.
        dtype: the type of the values.
    """

    def __init__(self, *, value: Any, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._all = np.broadcast_to(np.asarray(value, dtype=self.dtype), shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Any:
        return self._all[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._all, dtype=dtype, copy=copy)


class NumberedRows:
    """Rows of which each has its own number and then -1, int64 [N, width] (implements `contracts.rows.Rows`)."""

    def __init__(self, count: int, width: int) -> None:
        self.shape, self.dtype = (count, width), np.dtype(np.int64)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Any:
        numbers = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        rows = np.full((*numbers.shape, self.shape[1]), -1, dtype=self.dtype)
        rows[..., 0] = numbers
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)
