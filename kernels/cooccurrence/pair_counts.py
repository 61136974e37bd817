"""Count which items occur together in a sequence, and how far apart (MDSRec Eq. 1-2).

O_ij is the sum of 1 / |pos_i - pos_j| over all pairs of positions in all users' training sequences. `bucket_pairs`
writes one entry (row i, column j, gap) per direction of each pair, for some users. `RowSums` adds up the entries of
some rows. Entries are whole numbers, so their counts do not depend on how users are split over tasks. The
floating-point sum over gaps is computed once, in a fixed order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from kernels.cooccurrence.pair_loops import (
    add_row_lengths,
    expand_windows,
    keep_strongest,
    place_keys,
    scale_rows,
    sum_keys,
    window_reach,
)

# Keys that are sorted and added up at a time, so that they stay in a core's cache. A longer row is sorted at once.
SORTED_AT_A_TIME = 1 << 16
_KEY_BITS = 63
_GAP_BITS = 32


class PairEntries(NamedTuple):
    """Entries (row, column, gap), sorted by row and unordered within a row.

    Attributes:
        rows: [R], the items with an entry, ascending and distinct; their dtype is the items'.
        starts: int64 [R+1], from 0: where the entries of each row begin.
        columns: [P], of the same dtype as `rows`.
        gaps: [P], 1 to max_gap; their dtype is `gap_dtype(max_gap)`.
    """

    rows: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    gaps: np.ndarray


def item_dtype(num_items: int) -> np.dtype:
    """Return int32 if it holds every item id, else int64."""
    return np.dtype(np.int32 if num_items <= 2**31 else np.int64)


def gap_dtype(max_gap: int) -> np.dtype:
    """Return the narrowest of uint8, uint16 and uint32 that holds every gap."""
    assert 1 <= max_gap < 2**_GAP_BITS
    return np.dtype(np.uint8 if max_gap < 2**8 else np.uint16 if max_gap < 2**16 else np.uint32)


def largest_counted_gap(num_items: int) -> int:
    """Return the largest max_gap for which a column and a gap fit into one key; below 1, not even gap 1 fits."""
    return 2 ** min(_GAP_BITS, _KEY_BITS - column_bits(num_items)) - 1


def column_bits(num_items: int) -> int:
    return (num_items - 1).bit_length()


def bucket_pairs(
    items: np.ndarray, offsets: np.ndarray, max_gap: int, centers: tuple[int, int] | None = None
) -> PairEntries:
    """Return the entries of all pairs of distinct items at most `max_gap` apart in a sequence, in both directions.

    Memory: the entries (P (4 + 1) bytes for int32 items and max_gap < 256), and about 30 bytes per position of
    `centers`. Memory does not grow with the catalogue. A sequence of n items has at most n * min(2 G, n - 1) entries.

    Args:
        items: int32 or int64 [T], the sequences one after the other.
        offsets: int64 [users+1], where each sequence begins: offsets[0] = 0, offsets[-1] = T.
        max_gap: G; pairs further apart are left out.
        centers: (first, last): return only entries whose row item is at a position in [first, last); null: all.
            Disjoint ranges that cover [0, T) give every entry once, so tasks can share a sequence with many pairs.
    """
    first, last = centers or (0, len(items))
    reach = np.empty((last - first, 2), dtype=gap_dtype(max_gap))
    # One more, because `expand_windows` writes each entry before it decides whether to keep it.
    capacity = window_reach(offsets, first, max_gap, reach) + 1
    order = _by_item(items[first:last])
    num_rows = 0 if not len(order) else 1 + int(np.count_nonzero(np.diff(items[first:last][order])))
    rows, starts = np.empty(num_rows, dtype=items.dtype), np.empty(num_rows + 1, dtype=np.int64)
    columns, gaps = np.empty(capacity, dtype=items.dtype), np.empty(capacity, dtype=gap_dtype(max_gap))
    num_rows, written = expand_windows(items, order, first, reach, rows, starts, columns, gaps)
    return PairEntries(rows[:num_rows], starts[: num_rows + 1], columns[:written], gaps[:written])


def row_lengths(rows: range, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return how many entries each of `rows` has, int64.

    Args:
        rows: a range of row ids.
        parts: (rows, starts) of each PairEntries to count; its rows lie in the range.
    """
    lengths = np.zeros(len(rows), dtype=np.int64)
    for part_rows, starts in parts:
        add_row_lengths(part_rows, starts, rows.start, lengths)
    return lengths


class RowSums:
    """Sums of the entries of some rows, which are weights of O. Call `place` with every part, then `sums` once.

    Memory: 8 bytes per entry, 32 per row, and 12 per entry of SORTED_AT_A_TIME or of the longest row.
    """

    def __init__(self, *, first_row: int, lengths: np.ndarray, num_items: int, max_gap: int, block_rows: int) -> None:
        """Prepare to add up the rows first_row, first_row + 1, ...

        Args:
            first_row: id of the first row.
            lengths: int64, the number of entries of each row (`row_lengths`).
            num_items: N.
            max_gap: the largest gap of the entries.
            block_rows: rows that `sums` yields together never cross a multiple of it.
        """
        self.column_bits = column_bits(num_items)
        self.gap_bits = max_gap.bit_length()
        assert self.column_bits + self.gap_bits <= _KEY_BITS
        self._first_row = first_row
        self._starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        self._cursors = self._starts[:-1].copy()
        self._keys = np.empty(self._starts[-1], dtype=np.int64)
        # Within a slice, the bits of a key that columns and gaps do not use hold the row's number.
        num_rows = len(lengths)
        max_rows = min(1 << (_KEY_BITS - self.column_bits - self.gap_bits), num_rows)
        block_edges = np.arange(first_row // block_rows + 1, -(-(first_row + num_rows) // block_rows)) * block_rows
        cuts = [cut_rows(lengths, SORTED_AT_A_TIME), np.arange(0, num_rows, max_rows), block_edges - first_row]
        self._slices = np.unique(np.concatenate(cuts))
        firsts = np.repeat(self._slices[:-1], np.diff(self._slices))
        self._prefixes = (np.arange(num_rows) - firsts) << self.column_bits

    def place(self, entries: PairEntries) -> None:
        """Add a part of these rows' entries. Its `starts` may begin above 0; then `columns` and `gaps` begin there."""
        place_keys(*entries, self._first_row, self._prefixes, self.gap_bits, self._cursors, self._keys)

    def sums(self, distance_weighting: bool) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the rows of O in order, some rows at a time.

        Each time: the id of the first row, lengths int64 [rows], columns int64 [nnz] ascending within a row, and
        weights float32 [nnz]. A weight is the sum over gaps of count / gap (or of count, without distance
        weighting), added in float64 in ascending order of gaps and rounded once to float32. The next step overwrites
        the arrays.
        """
        assert (self._cursors == self._starts[1:]).all()
        edges = self._starts[self._slices]
        size = int(np.max(np.diff(edges), initial=0))
        columns, weights = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.float32)
        for chunk, (first, last) in enumerate(itertools.pairwise(self._slices.tolist())):
            keys = self._keys[edges[chunk] : edges[chunk + 1]]
            if (last - first - 1).bit_length() + self.column_bits + self.gap_bits <= 32:
                keys = keys.astype(np.uint32)  # sorts twice as fast
            keys.sort()
            lengths = np.zeros(last - first, dtype=np.int64)
            count = sum_keys(keys, self.column_bits, self.gap_bits, distance_weighting, lengths, columns, weights)
            yield self._first_row + first, lengths, columns[:count], weights[:count]


def cut_rows(lengths: np.ndarray, max_entries: int) -> np.ndarray:
    """Cut rows into ranges of about `max_entries` entries: int64 [ranges+1].

    A range exceeds `max_entries` by at most the entries of its last row.
    """
    before = np.cumsum(lengths) - lengths
    chunk = before // max_entries
    inner = np.flatnonzero(chunk[1:] != chunk[:-1]) + 1
    return np.concatenate([[0], inner, [len(lengths)]]).astype(np.int64)


def _by_item(items: np.ndarray) -> np.ndarray:
    """Return the positions, int64 [T], sorted by item, then by position."""
    if items.dtype != np.int32:
        return np.argsort(items, kind="stable")
    # Sorting keys (item, position) is several times faster than argsort.
    assert len(items) <= 2**32
    keys = items.astype(np.int64) << 32
    keys |= np.arange(len(items))
    keys.sort()
    keys &= 2**32 - 1
    return keys


def normalized(lengths: np.ndarray, weights: np.ndarray, normalization: str) -> np.ndarray:
    """Return weights float32 [nnz] divided by the L2 or L1 norm of their row; see `scale_rows`."""
    if normalization == "none":
        return weights
    scaled = np.empty_like(weights)
    scale_rows(lengths, weights, normalization == "row_l2", scaled)
    return scaled


def strongest(lengths: np.ndarray, weights: np.ndarray, max_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Select the `max_neighbors` largest weights of each row; among equal weights, those of the lowest columns.

    Args:
        lengths: int64 [rows], entries of each row.
        weights: float32 [nnz], positive.
        max_neighbors: entries to keep of each row.

    Returns the new lengths int64 [rows], and which entries are kept, bool [nnz].
    """
    # Positive floats have the same order as their bits. Subtracting puts large weights first.
    falling = np.uint64(2**32 - 1) - weights.view(np.uint32)
    ranks = np.repeat(np.arange(len(lengths), dtype=np.uint64) << np.uint64(32), lengths) | falling
    kept = np.empty(len(weights), dtype=bool)
    keep_strongest(lengths, ranks, np.sort(ranks), max_neighbors, kept)
    return np.minimum(lengths, max_neighbors), kept
