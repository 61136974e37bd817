"""Translates items' source ids into dense ids and back.

N: items, n: ids that are looked up.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ItemNames:
    """The source ids of a catalogue. An id is found by binary search, so one id takes microseconds among millions."""

    def __init__(self, source_ids: pa.Array) -> None:
        """Take the source ids of all items, large_string [N], in the order of dense ids. They are distinct."""
        self._names = source_ids
        self._sorted: np.ndarray | None = None
        self._order: np.ndarray | None = None

    @cached_property
    def look_like_numbers(self) -> bool:
        """Whether all source ids consist of digits, so that a caller may take dense ids for them."""
        return bool(pc.all(pc.utf8_is_decimal(self._names)).as_py())

    def dense(self, names: pa.Array) -> np.ndarray:
        """Return the dense ids of source ids: int64 [n]; -1 for an id that no item has.

        The first call sorts the catalogue's ids, which takes seconds for ten million items.
        """
        if self._sorted is None or self._order is None:
            all_names = _strings(self._names)
            self._order = np.argsort(all_names, kind="stable")
            self._sorted = all_names[self._order]
        wanted = _strings(names)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(self._sorted[place] == wanted, self._order[place], -1).astype(np.int64)

    def source(self, items: np.ndarray) -> np.ndarray:
        """Return the source ids of dense ids of any shape, as Python strings in the same shape; None for -1."""
        found = self._names.take(pa.array(np.maximum(items, 0).reshape(-1))).to_numpy(zero_copy_only=False)
        names = found.astype(object).reshape(items.shape)
        names[items < 0] = None
        return names


def _strings(names: pa.Array) -> np.ndarray:
    return names.to_numpy(zero_copy_only=False).astype(np.dtypes.StringDType())
