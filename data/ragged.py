"""Lists of different lengths in one flat array: list r is values[starts[r]:starts[r] + lengths[r]]."""

from __future__ import annotations

import numpy as np

from contracts.rows import Rows


def ragged_indices(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the positions of all elements of the given lists, list after list: int64 [sum(lengths)]."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total, dtype=np.int64)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return the start of each list if lists of these lengths are stored one after the other: int64 [R+1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def take_lists(offsets: np.ndarray, values: Rows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lists `rows` of a flat collection, in this order: offsets [len(rows)+1] and values."""
    lengths = np.diff(offsets)[rows]
    return offsets_of(lengths), values[ragged_indices(offsets[:-1][rows], lengths)]


def first_difference(
    left: np.ndarray, left_starts: np.ndarray, right: np.ndarray, right_starts: np.ndarray, lengths: np.ndarray
) -> int | None:
    """Return the first list r whose lengths[r] values differ between `left` and `right`; None: all are equal."""
    differs = left[ragged_indices(left_starts, lengths)] != right[ragged_indices(right_starts, lengths)]
    if not differs.any():
        return None
    return int(np.searchsorted(np.cumsum(lengths), np.argmax(differs), side="right"))
