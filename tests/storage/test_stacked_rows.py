"""Arrays that are read as one give what NumPy gives for their concatenation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.stacked_rows import EqualRows, NumberedRows, StackedRows


@st.composite
def stacks(draw):
    """Some arrays, their shifts, and their concatenation."""
    width = draw(st.sampled_from([None, 0, 3]))
    sizes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shapes = [(size,) if width is None else (size, width) for size in sizes]
    parts = [rng.integers(-1, 9, shape) for shape in shapes]
    shifts = draw(st.lists(st.integers(0, 50), min_size=len(parts), max_size=len(parts)))
    whole = [np.where(part >= 0, part + shift, part) for part, shift in zip(parts, shifts, strict=True)]
    return StackedRows(parts, shifts=shifts), np.concatenate(whole)


@settings(max_examples=60)
@given(stacks(), st.data())
def test_every_index_reads_what_it_reads_in_the_concatenation(stack, data):
    stacked, whole = stack
    size = len(whole)
    assert (stacked.shape, len(stacked), stacked.dtype) == (whole.shape, size, whole.dtype)
    bounds = st.none() | st.integers(-size - 3, size + 3)
    step = data.draw(st.none() | st.integers(-3, 3).filter(bool))
    index = [slice(data.draw(bounds), data.draw(bounds), step), np.arange(size) % 2 == 0, np.asarray, []]
    if size:
        shape = data.draw(st.sampled_from([(), (0,), (5,), (2, 3), (2, 0, 3)]))
        some = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-size, size, shape)
        index += [some, some.astype(np.int32), some.tolist(), np.int64(-1), size - 1]
    for one in index:
        expected, found = (np.asarray(rows) if one is np.asarray else rows[one] for rows in (whole, stacked))
        assert np.array_equal(expected, found)
        assert np.asarray(found).dtype == whole.dtype
        assert np.shape(found) == np.shape(expected)


@pytest.mark.parametrize("index", [7, -8, np.array([0, 7]), np.array([-8]), np.ones(6, bool), np.array([0.5]), (1, 2)])
def test_what_numpy_refuses_is_refused(index):
    stacked = StackedRows([np.arange(4), np.arange(3)])
    with pytest.raises(IndexError):
        np.arange(7)[index]
    with pytest.raises(IndexError):
        stacked[index]


def test_a_stretch_of_one_part_is_not_copied_and_other_types_become_float32():
    parts = [np.arange(6, dtype=np.float16).reshape(3, 2), np.ones((2, 2), np.float32)]
    assert np.shares_memory(StackedRows([parts[0], parts[0]])[3:5], parts[0])
    mixed = StackedRows(parts)
    assert mixed.dtype == mixed[:2].dtype == mixed[[0, 4]].dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        np.array(mixed, copy=False)


@pytest.mark.parametrize("index", [slice(1, 3), np.array([[2, 0]]), 2])
def test_rows_without_memory(index):
    numbered = np.full((3, 4), -1)
    numbered[:, 0] = np.arange(3)
    for rows, expected in (
        (NumberedRows(3, 4), numbered),
        (EqualRows(value=-1, shape=(3, 4), dtype=np.int64), np.full((3, 4), -1)),
    ):
        assert np.array_equal(rows[index], expected[index])
        assert np.array_equal(rows, expected)
        assert (len(rows), rows.shape, rows.dtype) == (3, (3, 4), np.int64)
