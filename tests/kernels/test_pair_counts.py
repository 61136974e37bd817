"""Pair counting equals the double loop, and leaves no trace of how it was split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import reference
from kernels.cooccurrence import pair_counts
from kernels.cooccurrence.pair_counts import (
    PairEntries,
    RowSums,
    bucket_pairs,
    cut_rows,
    gap_dtype,
    item_dtype,
    largest_counted_gap,
    normalized,
    row_lengths,
    strongest,
)

NUM_ITEMS = 9
SEQUENCES = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=12), max_size=8)


def flat(sequences: list[list[int]], dtype: type = np.int32) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, sequences)])
    return np.array([item for sequence in sequences for item in sequence], dtype=dtype), offsets


def longest_gap(sequences: list[list[int]]) -> int:
    return max([len(sequence) - 1 for sequence in sequences] + [1])


def dense(
    parts: list[PairEntries],
    max_gap: int,
    distance_weighting: bool,
    num_items: int = NUM_ITEMS,
    rows: range | None = None,
    block_rows: int = 1 << 20,
) -> np.ndarray:
    """Rows of O, dense, from all entries of those rows."""
    rows = rows or range(num_items)
    slices = []
    for part in parts:
        begin, end = np.searchsorted(part.rows, [rows.start, rows.stop])
        edges = part.starts[[begin, end]]
        slices.append(
            PairEntries(part.rows[begin:end], part.starts[begin : end + 1], *(a[slice(*edges)] for a in part[2:]))
        )
    lengths = row_lengths(rows, (part[:2] for part in slices))
    sums = RowSums(first_row=rows.start, lengths=lengths, num_items=num_items, max_gap=max_gap, block_rows=block_rows)
    for part in slices:
        sums.place(part)
    matrix = np.zeros((len(rows), num_items), dtype=np.float32)
    expected_row = rows.start
    for first, lengths, columns, weights in sums.sums(distance_weighting):
        assert first == expected_row
        assert weights.dtype == np.float32
        assert columns.dtype == np.int64
        assert first // block_rows == (first + len(lengths) - 1) // block_rows
        row_of = np.repeat(np.arange(first, first + len(lengths)), lengths)
        assert (np.diff(row_of * num_items + columns) > 0).all()
        matrix[row_of - rows.start, columns] = weights
        expected_row += len(lengths)
    assert expected_row == rows.stop
    return matrix


@settings(max_examples=60, deadline=None)
@given(SEQUENCES, st.sampled_from([None, 1, 3]), st.booleans(), st.sampled_from([np.int32, np.int64]))
def test_equals_double_loop(
    sequences: list[list[int]], window: int | None, distance_weighting: bool, dtype: type
) -> None:
    max_gap = window or longest_gap(sequences)
    entries = bucket_pairs(*flat(sequences, dtype), max_gap)
    matrix = dense([entries], max_gap, distance_weighting)
    expected = reference.cooccurrence(sequences, NUM_ITEMS, window, distance_weighting)
    np.testing.assert_array_equal(matrix, expected.astype(np.float32))
    np.testing.assert_array_equal(matrix, matrix.T)
    assert not matrix.diagonal().any()


@settings(max_examples=60, deadline=None)
@given(SEQUENCES, st.sampled_from([None, 2]))
def test_entries_keep_their_contract(sequences: list[list[int]], window: int | None) -> None:
    max_gap = window or longest_gap(sequences)
    rows, starts, columns, gaps = bucket_pairs(*flat(sequences), max_gap)
    assert (rows.dtype, starts.dtype, columns.dtype, gaps.dtype) == (np.int32, np.int64, np.int32, np.uint8)
    assert (np.diff(rows) > 0).all()
    assert (np.diff(starts) > 0).all()
    assert starts[0] == 0
    assert starts[-1] == len(columns) == len(gaps)
    found = sorted(zip(np.repeat(rows, np.diff(starts)).tolist(), columns.tolist(), gaps.tolist(), strict=True))
    assert found == sorted(
        (sequence[left], sequence[right], abs(right - left))
        for sequence in sequences
        for left in range(len(sequence))
        for right in range(len(sequence))
        if sequence[left] != sequence[right] and abs(right - left) <= max_gap
    )


@settings(max_examples=40, deadline=None)
@given(SEQUENCES, st.sampled_from([None, 2]), st.lists(st.integers(0, 100), max_size=4), st.integers(1, NUM_ITEMS))
def test_splits_leave_no_trace(sequences: list[list[int]], window: int | None, cuts: list[int], middle: int) -> None:
    """Events split anywhere, within histories too, and rows split in two."""
    max_gap = window or longest_gap(sequences)
    items, offsets = flat(sequences)
    edges = sorted([0, len(items), *(cut for cut in cuts if cut < len(items))])
    whole = dense([bucket_pairs(items, offsets, max_gap)], max_gap, True)
    parts = [bucket_pairs(items, offsets, max_gap, centers) for centers in itertools.pairwise(edges)]
    assert dense(parts, max_gap, True).tobytes() == whole.tobytes()
    halves = [dense(parts, max_gap, True, rows=rows) for rows in (range(middle), range(middle, NUM_ITEMS)) if rows]
    assert np.concatenate(halves).tobytes() == whole.tobytes()


@pytest.mark.parametrize("sorted_at_a_time", [1, 20, 10**6])
@pytest.mark.parametrize("block_rows", [1, 4, 100])
def test_parts_and_blocks_do_not_change_the_sums(
    monkeypatch: pytest.MonkeyPatch, sorted_at_a_time: int, block_rows: int
) -> None:
    random = np.random.default_rng(0)
    sequences = [random.integers(0, NUM_ITEMS, random.integers(0, 15)).tolist() for _ in range(40)]
    entries = bucket_pairs(*flat(sequences), 14)
    expected = reference.cooccurrence(sequences, NUM_ITEMS).astype(np.float32)
    monkeypatch.setattr(pair_counts, "SORTED_AT_A_TIME", sorted_at_a_time)
    np.testing.assert_array_equal(dense([entries], 14, True, block_rows=block_rows), expected)
    rows = range(2, 7)
    np.testing.assert_array_equal(dense([entries], 14, True, rows=rows, block_rows=block_rows), expected[2:7])


@pytest.mark.parametrize(("num_items", "length"), [(2, 257), (2, 256), (3, 300)])
def test_wide_gaps(num_items: int, length: int) -> None:
    """Gaps of 256 and more take two bytes."""
    sequence = np.random.default_rng(1).integers(0, num_items, length).tolist()
    entries = bucket_pairs(*flat([sequence]), length - 1)
    assert entries.gaps.dtype == (np.uint16 if length > 256 else np.uint8)
    matrix = dense([entries], length - 1, True, num_items)
    np.testing.assert_array_equal(matrix, reference.cooccurrence([sequence], num_items).astype(np.float32))


@pytest.mark.parametrize("largest", [2**28 - 1, 2**29 - 1, 2**31 - 1, 2**31, 2**59])
def test_large_ids(largest: int) -> None:
    """Ids at the edges of what is stored, and of 32-bit keys: 28 for columns, 2 for gaps, 2 for rows.

    Keys hold few rows at a time where columns take many bits.
    """
    num_items = largest + 1
    sequence = [largest, largest - 1, largest - 3, largest]
    items, offsets = flat([sequence], item_dtype(num_items).type)
    rows, starts, columns, gaps = bucket_pairs(items, offsets, 3)
    assert columns.dtype == (np.int32 if largest < 2**31 else np.int64)
    lengths = row_lengths(range(largest - 3, num_items), [(rows, starts)])
    sums = RowSums(first_row=largest - 3, lengths=lengths, num_items=num_items, max_gap=3, block_rows=1 << 60)
    sums.place(PairEntries(rows, starts, columns, gaps))
    found = {}
    for first, lengths, some_columns, weights in sums.sums(True):
        row_of = np.repeat(np.arange(first, first + len(lengths)), lengths)
        found |= dict(zip(zip(row_of.tolist(), some_columns.tolist(), strict=True), weights.tolist(), strict=True))
    small = reference.cooccurrence([[3, 2, 0, 3]], 4).astype(np.float32)
    assert found == {
        (largest - 3 + row, largest - 3 + column): small[row, column]
        for row, column in zip(*np.nonzero(small), strict=True)
    }


def test_counts_are_divided_and_sums_are_rounded_once() -> None:
    """100 + 2^-17 + 2^-18 is a tie that goes up; a thousand times 0.1 is less than 100, and float32 drops 2^-18."""
    gaps = np.array([2**18, *[10] * 1000, 2**17], dtype=np.uint32)
    part = PairEntries(np.array([0]), np.array([0, len(gaps)]), np.ones(len(gaps), dtype=np.int32), gaps)
    assert dense([part], 2**18, True)[0, 1] == 100 + 2**-16


def test_nothing_to_count() -> None:
    for sequences in ([], [[]], [[], [4], []], [[5, 5, 5]]):
        entries = bucket_pairs(*flat(sequences), 1)
        assert [len(array) for array in entries] == [0, 1, 0, 0]
        assert not dense([entries, entries], 1, True).any()


def test_narrowest_dtypes() -> None:
    assert [gap_dtype(gap) for gap in (1, 255, 256, 65535, 65536)] == [np.uint8] * 2 + [np.uint16] * 2 + [np.uint32]
    assert [item_dtype(count) for count in (1, 2**31, 2**31 + 1)] == [np.int32, np.int32, np.int64]
    assert [largest_counted_gap(count) for count in (1, 2**31, 2**32, 2**60, 2**63)] == [
        2**32 - 1,
        2**32 - 1,
        2**31 - 1,
        7,
        0,
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.25, 0.5, 1.0, 3.0]), max_size=7), min_size=1, max_size=5), st.integers(1, 4)
)
def test_strongest_and_normalized(rows: list[list[float]], max_neighbors: int) -> None:
    lengths = np.array([len(row) for row in rows])
    weights = np.array([weight for row in rows for weight in row], dtype=np.float32)
    columns = np.array([column for row in rows for column in range(len(row))], dtype=np.int64)
    raw = np.zeros((len(rows), 7))
    for row, row_weights in enumerate(rows):
        raw[row, : len(row_weights)] = row_weights
    left, kept = strongest(lengths, weights, max_neighbors)
    for normalization in ("row_l2", "row_l1", "none"):
        expected = reference.normalized_cooccurrence(raw, normalization, max_neighbors)
        found = np.zeros_like(raw)
        scaled = normalized(lengths, weights, normalization)
        found[np.repeat(np.arange(len(rows)), left), columns[kept]] = scaled[kept]
        np.testing.assert_array_equal(found != 0, expected != 0)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cut_rows() -> None:
    assert cut_rows(np.array([3, 0, 3, 10, 0, 1, 1]), 4).tolist() == [0, 3, 4, 7]
    assert cut_rows(np.array([3]), 1).tolist() == [0, 1]
    assert cut_rows(np.zeros(5, dtype=np.int64), 1).tolist() == [0, 5]
