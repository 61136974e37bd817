"""The compiled loops of `pair_counts`: whole-number counts, and float64 sums in a fixed order.

Each function uses one core and releases the interpreter lock; parallel work is split into tasks.
"""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def window_reach(offsets: np.ndarray, first: int, max_gap: int, reach: np.ndarray) -> int:
    """Count the positions before and after each position that form a pair with it. Return the sum of all counts.

    Args:
        offsets: int64 [users+1], where each sequence begins.
        first: the position that `reach[0]` belongs to.
        max_gap: the largest gap of a pair.
        reach: [centers, 2], filled with the counts before and after.
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
    """Write the entries of all centres, item after item. Return the numbers of rows and of entries.

    Here a centre is a position whose item is the row of its entries.

    Args:
        items: [T], the sequences one after the other.
        order: the centres' positions relative to `first`, sorted by item. In this order every entry is written right
            after the one before it. The random accesses are short reads of histories, one per position, rather than
            one random write per pair.
        first: position of the first centre.
        reach: [centers, 2], from `window_reach`.
        rows: filled as `PairEntries.rows`.
        starts: filled as `PairEntries.starts`.
        columns: filled as `PairEntries.columns`.
        gaps: filled as `PairEntries.gaps`.
    """
    num_rows, written, at = 0, 0, 0
    while at < len(order):
        item = items[first + order[at]]
        begin = written
        while at < len(order) and items[first + order[at]] == item:
            before = np.int64(reach[order[at], 0])
            around = before + np.int64(reach[order[at], 1]) + 1
            earliest = first + order[at] - before
            # The loop includes the centre itself, which is left out like every pair of an item with itself.
            for partner in range(around):
                other = items[np.uint64(earliest + partner)]  # unsigned: Numba then skips its test for negative indices
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
    """Add the number of entries of each row to lengths[row - first_row]."""
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
    """Append each row's entries to the row's section of `keys`, as (prefix | column) << gap_bits | gap.

    Args:
        rows: the rows with entries.
        starts: where each row's entries begin, in a longer array of which `columns` and `gaps` are the part from
            starts[0] on.
        columns: the entries' columns.
        gaps: the entries' gaps.
        first_row: the row that `prefixes[0]` and `cursors[0]` belong to.
        prefixes: int64, indexed by row - first_row.
        gap_bits: bits of a key that hold the gap.
        cursors: int64, indexed by row - first_row: where each row's next key goes; updated.
        keys: int64, filled.
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
    """Add up sorted keys (row, column, gap) to entries of O. Return the number of entries.

    The entries of each row are counted in `lengths[row]`. A weight is the float64 sum of count / gap (or of count)
    over ascending gaps, rounded once to float32.
    """
    # The loop avoids branches, because the processor could not predict them. An entry's column and weight are
    # written at every key, and `written` advances only at the entry's last key.
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
    """Divide weights float32 by the L2 (or L1) norm of their row. Sums and quotients are float64, in stored order."""
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
    """Mark the `max_neighbors` smallest ranks of each row; among equal ranks, the first.

    Args:
        lengths: int64 [rows], entries of each row.
        ranks: uint64 [nnz], with the ascending row numbers in the high bits.
        ordered: uint64 [nnz], `ranks` sorted.
        max_neighbors: entries to keep of each row.
        kept: bool [nnz], filled.
    """
    begin = 0
    for row in range(len(lengths)):
        end = begin + lengths[row]
        if lengths[row] <= max_neighbors:
            kept[begin:end] = True
        else:
            worst = ordered[begin + max_neighbors - 1]
            # Count how many entries equal to the worst are kept: as many as are among the first max_neighbors.
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
