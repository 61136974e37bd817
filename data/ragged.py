"""Lists of different lengths kept flat: list r is values[starts[r]:starts[r] + lengths[r]]."""

from __future__ import annotations

import numpy as np


def ragged_indices(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions of all elements of the given lists, list after list: int64 [sum(lengths)]."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total, dtype=np.int64)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """int64 [R+1]: where each list starts when lists lie end to end."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def take_lists(offsets: np.ndarray, values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lists `rows` of a flat collection, in that order: offsets [len(rows)+1] and values."""
    lengths = np.diff(offsets)[rows]
    return offsets_of(lengths), values[ragged_indices(offsets[:-1][rows], lengths)]


def first_difference(
    left: np.ndarray, left_starts: np.ndarray, right: np.ndarray, right_starts: np.ndarray, lengths: np.ndarray
) -> int | None:
    """The first list r where left[left_starts[r]:][:lengths[r]] differs from the same of `right`; None: equal."""
    differs = left[ragged_indices(left_starts, lengths)] != right[ragged_indices(right_starts, lengths)]
    if not differs.any():
        return None
    return int(np.searchsorted(np.cumsum(lengths), np.argmax(differs), side="right"))
