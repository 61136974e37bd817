"""The interface of an array that is read by rows, and that may lie in several files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class Rows(Protocol):
    """Read access to the rows of an array (implemented by `numpy.ndarray` and `storage.stacked_rows.StackedRows`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and then the shape of a row."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return rows: one by its number, or an array of several by a slice, or an array of numbers or booleans."""
        ...

    def __array__(self, dtype: Any = None, /) -> np.ndarray:
        """Return all rows in memory."""
        ...
