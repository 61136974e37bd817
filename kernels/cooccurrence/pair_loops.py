"""The compiled loops of `pair_counts`: whole numbers in, whole numbers and exactly ordered float64 sums out.

Plain loops that release the GIL and use one core; tasks are what runs side by side.
"""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def window_reach(offsets: np.ndarray, first: int, max_gap: int, reach: np.ndarray) -> int:
    """How many positions before and after each one are its partners: fills [centers, 2], returns their sum.

    Args:
        offsets: int64 [users+1]; first: position of `reach[0]`.
    """
    last = first + len(reach)
    total = 0
    for user in range(len(offsets) - 1):
        begin, end = offsets[user], offsets[user + 1]
        for position in range(max(begin, first), min(end, last)):
            before = min(position - begin, max_gap)
            after = min(end - 1 - position, max_gap)
            reach[position - first, 0] = before
            reach[position - first, 1] = after
            total += before + after
    return total


@numba.njit(nogil=True, cache=True)
def expand_windows(
    items: np.ndarray,
    order: np.ndarray,
    first: int,
    reach: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    columns: np.ndarray,
    gaps: np.ndarray,
) -> tuple[int, int]:
    """Writes the entries of all centres, item after item; returns how many rows and entries there are.

    Args:
        order: positions relative to `first`, by item. Going through them in this order, every entry is
            written once and beside its predecessor: the histories are what is read at random, one
            short read per event instead of one write per pair.
    """
    num_rows, written, at = 0, 0, 0
    while at < len(order):
        item = items[first + order[at]]
        begin = written
        while at < len(order) and items[first + order[at]] == item:
            before = np.int64(reach[order[at], 0])
            around = before + np.int64(reach[order[at], 1]) + 1
            earliest = first + order[at] - before
            # The centre is its own partner here, and left out like every pair of an item with itself.
            for partner in range(around):
                other = items[np.uint64(earliest + partner)]  # unsigned: no look at whether it counts from the end
                columns[np.uint64(written)] = other
                gaps[np.uint64(written)] = abs(partner - before)
                written += int(other != item)
            at += 1
        if written > begin:
            rows[num_rows] = item
            starts[num_rows] = begin
            num_rows += 1
    starts[num_rows] = written
    return num_rows, written


@numba.njit(nogil=True, cache=True)
def add_row_lengths(rows: np.ndarray, starts: np.ndarray, first_row: int, lengths: np.ndarray) -> None:
    """lengths[row - first_row] += how many entries the row has."""
    for at in range(len(rows)):
        lengths[rows[at] - first_row] += starts[at + 1] - starts[at]


@numba.njit(nogil=True, cache=True)
def place_keys(
    rows: np.ndarray,
    starts: np.ndarray,
    columns: np.ndarray,
    gaps: np.ndarray,
    first_row: int,
    prefixes: np.ndarray,
    gap_bits: int,
    cursors: np.ndarray,
    keys: np.ndarray,
) -> None:
    """Appends each row's entries to its place in `keys` as (prefix | column) << gap_bits | gap.

    Args:
        starts: into some longer array of which `columns` and `gaps` are the part from starts[0] on.
        prefixes, cursors: int64, by row - first_row; where each row's next key goes, moved on.
    """
    for at in range(len(rows)):
        row = rows[at] - first_row
        prefix = prefixes[row]
        cursor = cursors[row]
        for entry in range(starts[at] - starts[0], starts[at + 1] - starts[0]):
            keys[cursor] = (prefix | np.int64(columns[entry])) << gap_bits | np.int64(gaps[entry])
            cursor += 1
        cursors[row] = cursor


@numba.njit(nogil=True, cache=True)
def sum_keys(
    keys: np.ndarray,
    column_bits: int,
    gap_bits: int,
    by_distance: bool,
    lengths: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
) -> int:
    """Adds up sorted keys (row, column, gap) to entries of O; `lengths[row]` counts them. Returns their number.

    A weight is the float64 sum of count / gap (or count) over ascending gaps, rounded once to float32.
    """
    # What an entry comes to is written over until its last key, and only what it adds to counters depends on
    # whether this is the last: most branches would be as good as random.
    gap_mask = (1 << gap_bits) - 1
    column_mask = (1 << column_bits) - 1
    written, count, total = 0, 0, 0.0
    key = np.int64(keys[0]) if len(keys) else np.int64(-1)
    for at in range(len(keys)):
        following = np.int64(keys[at + 1]) if at + 1 < len(keys) else np.int64(-1)
        pair = key >> gap_bits
        count += 1
        if key != following:
            total += count / (key & gap_mask if by_distance else 1)
            count = 0
        is_last = int(pair != following >> gap_bits)
        columns[np.uint64(written)] = pair & column_mask
        weights[np.uint64(written)] = total
        lengths[np.uint64(pair >> column_bits)] += is_last
        written += is_last
        if is_last:
            total = 0.0
        key = following
    return written


@numba.njit(nogil=True, cache=True)
def scale_rows(lengths: np.ndarray, weights: np.ndarray, by_squares: bool, scaled: np.ndarray) -> None:
    """Weights float32 over the L2 (or L1) norm of their row, summed and divided in float64 in stored order."""
    at = 0
    for length in lengths:
        total = 0.0
        for entry in range(at, at + length):
            weight = np.float64(weights[entry])
            total += weight * weight if by_squares else weight
        norm = math.sqrt(total) if by_squares else total
        for entry in range(at, at + length):
            scaled[entry] = weights[entry] / norm
        at += length


@numba.njit(nogil=True, cache=True)
def keep_strongest(
    lengths: np.ndarray, ranks: np.ndarray, ordered: np.ndarray, max_neighbors: int, kept: np.ndarray
) -> None:
    """Marks the `max_neighbors` smallest ranks of each row; of equal ones the first.

    Args:
        ranks: uint64 [nnz], ascending rows in the high bits; ordered: the same, sorted.
    """
    begin = 0
    for row in range(len(lengths)):
        end = begin + lengths[row]
        if lengths[row] <= max_neighbors:
            kept[begin:end] = True
        else:
            worst = ordered[begin + max_neighbors - 1]
            # How many equal to the worst one are kept: those among the first max_neighbors in order.
            equal = 0
            while equal < max_neighbors and ordered[begin + max_neighbors - 1 - equal] == worst:
                equal += 1
            for at in range(begin, end):
                if ranks[at] == worst:
                    kept[at] = equal > 0
                    equal -= 1
                else:
                    kept[at] = ranks[at] < worst
        begin = end
