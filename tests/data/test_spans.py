"""Windows and prefix rows: every training target once, with as much of its past as promised."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sampling.spans import TrainingSpans, spans_before
from tests.sequences import Sequences

OVERLAPS = [0, 0.5, 0.9]


def data_of(train_ends: list[int]) -> Sequences:
    """Users with so many training items, and two more each."""
    ends = np.array(train_ends, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(ends + 2)])
    return Sequences(7, len(ends), offsets, np.arange(offsets[-1]) % 7, ends, ends + 1)


def listed(spans: TrainingSpans, index: np.ndarray | None = None) -> list[tuple[int, int, int, int]]:
    """(user, start, end, num_targets) of the spans, all or some."""
    found = spans.locate(np.arange(len(spans)) if index is None else index)
    arrays = (found.users, found.starts, found.ends, found.num_targets)
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    return list(zip(*(array.tolist() for array in arrays), strict=True))


def times_seen(spans: TrainingSpans, max_length: int) -> dict[tuple[int, int], int]:
    """How many items each target (user, position) sees; they end at its place - 1."""
    seen: dict[tuple[int, int], int] = {}
    for user, start, end, num_targets in listed(spans):
        assert 0 <= start < end <= start + max_length
        assert 1 <= num_targets <= end - start
        for position in range(end - num_targets + 1, end + 1):
            assert (user, position) not in seen, "trained twice"
            seen[user, position] = position - start
    return seen


# Without targets (0, 1), short, of L + 1 items and around it, and much longer than any L drawn.
train_ends = st.lists(st.one_of(st.integers(0, 14), st.integers(40, 130)), max_size=6)


@pytest.mark.parametrize("overlap", OVERLAPS)
@settings(max_examples=80, deadline=None)
@given(ends=train_ends, max_length=st.integers(1, 13))
def test_every_target_is_in_one_window_and_sees_what_is_promised(
    overlap: float, ends: list[int], max_length: int
) -> None:
    spans = TrainingSpans(data=data_of(ends), unit="windows", max_length=max_length, overlap=overlap)
    seen = times_seen(spans, max_length)
    assert sorted(seen) == [(user, position) for user, end in enumerate(ends) for position in range(1, end)]
    assert spans.num_targets == len(seen)
    for (user, position), num_items in seen.items():
        prefix = min(position, max_length)
        assert num_items <= prefix
        if ends[user] <= max_length + 1:
            assert num_items == prefix
        assert num_items >= min(prefix, math.floor(overlap * max_length) + 1)


@settings(max_examples=60, deadline=None)
@given(ends=train_ends, max_length=st.integers(1, 13))
def test_a_prefix_row_has_one_target_and_all_that_a_target_may_see(ends: list[int], max_length: int) -> None:
    spans = TrainingSpans(data=data_of(ends), unit="prefixes", max_length=max_length, overlap=0.5)
    expected = [(user, position) for user, end in enumerate(ends) for position in range(1, end)]
    assert listed(spans) == [(user, max(0, position - max_length), position, 1) for user, position in expected]
    assert (len(spans), spans.num_targets) == (len(expected), len(expected))


def test_windows_of_a_long_sequence_by_hand() -> None:
    data = data_of([1, 32, 0, 11, 12])
    # Targets 1..31 of user 1: the first ten see the beginning; then five at a time, the first of which sees six items.
    expected = [(1, 0, 10, 10), (1, 5, 15, 5), (1, 10, 20, 5), (1, 15, 25, 5), (1, 20, 30, 5), (1, 21, 31, 1)]
    expected += [(3, 0, 10, 10), (4, 0, 10, 10), (4, 1, 11, 1)]
    assert listed(TrainingSpans(data=data, unit="windows", max_length=10, overlap=0.5)) == expected
    assert listed(TrainingSpans(data=data, unit="windows", max_length=10, overlap=0))[:4] == [
        *[(1, 0, 10, 10), (1, 10, 20, 10), (1, 20, 30, 10)],
        (1, 21, 31, 1),
    ]
    assert len(TrainingSpans(data=data, unit="windows", max_length=10, overlap=0.9)) == (1 + 21) + 1 + (1 + 1)
    last = math.nextafter(1, 0)  # the largest overlap below 1 still moves on
    assert len(TrainingSpans(data=data, unit="windows", max_length=10, overlap=last)) == (1 + 21) + 1 + (1 + 1)


@pytest.mark.parametrize("unit", ["windows", "prefixes"])
@settings(max_examples=40, deadline=None)
@given(ends=train_ends, seed=st.integers(0, 1000))
def test_spans_are_located_in_any_order_and_number(unit: str, ends: list[int], seed: int) -> None:
    spans = TrainingSpans(data=data_of(ends), unit=unit, max_length=7, overlap=0.5)  # type: ignore[arg-type]
    whole = listed(spans)
    assert listed(spans, np.empty(0, dtype=np.int64)) == []
    if whole:
        index = np.random.default_rng(seed).integers(0, len(whole), 30)
        assert listed(spans, index) == [whole[number] for number in index]
    for outside in (-1, len(whole)):
        with pytest.raises(AssertionError, match="outside"):
            spans.locate(np.array([outside]))


@pytest.mark.parametrize("unit", ["windows", "prefixes"])
def test_counts_above_32_bits_are_located(unit: str) -> None:
    """Three users of 2^38 interactions each, in 2^33 windows and more: nothing but per-user arrays is touched."""
    length, max_length, stride = 2**38, 50, 25
    ends = np.full(3, length)
    data = Sequences(5, 3, np.arange(4) * (length + 2), np.empty(0, np.int64), ends, ends + 1)
    spans = TrainingSpans(data=data, unit=unit, max_length=max_length, overlap=0.5)  # type: ignore[arg-type]
    num_targets = length - 1
    assert spans.num_targets == 3 * num_targets
    if unit == "prefixes":
        assert listed(spans, np.array([3 * num_targets - 1])) == [(2, num_targets - max_length, num_targets, 1)]
        return
    per_user = 1 + -(-(num_targets - max_length) // stride)
    assert len(spans) == 3 * per_user
    left = num_targets - max_length - (per_user - 2) * stride
    numbers = np.array([3 * per_user - 1, per_user + 2**33, per_user, per_user - 1, 0])
    done = max_length + (2**33 - 1) * stride
    assert listed(spans, numbers) == [
        (2, num_targets - max_length, num_targets, left),
        (1, done + stride - max_length, done + stride, stride),
        (1, 0, max_length, max_length),
        (0, num_targets - max_length, num_targets, left),
        (0, 0, max_length, max_length),
    ]


def test_many_users_of_all_kinds_are_told_apart() -> None:
    """20,000 users, a third of them without a target: numbers in random order against a loop over the users."""
    rng = np.random.default_rng(1)
    ends = np.where(rng.random(20_000) < 0.3, rng.integers(0, 2, 20_000), rng.geometric(0.05, 20_000)).tolist()
    expected = []
    for user, end in enumerate(ends):
        done = 0
        while done < end - 1:
            last = min(done + (5 if done else 10), end - 1)
            expected.append((user, max(0, last - 10), last, last - done))
            done = last
    spans = TrainingSpans(data=data_of(ends), unit="windows", max_length=10, overlap=0.5)
    assert len(spans) == len(expected)
    index = rng.permutation(len(expected))[:5000]
    assert listed(spans, index) == [expected[number] for number in index]


def test_targets_of_spans_are_listed_span_after_span() -> None:
    spans = TrainingSpans(data=data_of([32, 4]), unit="windows", max_length=10, overlap=0.5).locate(np.array([6, 5, 1]))
    users, positions = spans.targets()
    assert users.tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert positions.tolist() == [1, 2, 3, 31, 11, 12, 13, 14, 15]
    assert spans.lengths.tolist() == [3, 10, 10]
    nobody = spans[np.empty(0, dtype=np.int64)]
    assert [array.shape for array in (*nobody.targets(), nobody.lengths)] == [(0,)] * 3
    picked = spans[np.array([2, 0])]
    assert (picked.users.tolist(), picked.starts.tolist(), picked.num_targets.tolist()) == ([0, 1], [5, 0], [5, 3])


def test_spans_before_targets_end_where_the_targets_are() -> None:
    spans = spans_before(np.array([4, 0, 4]), np.array([1, 9, 5]), 5)
    assert (spans.starts.tolist(), spans.ends.tolist()) == ([0, 4, 0], [1, 9, 5])
    assert spans.num_targets.tolist() == [1, 1, 1]
    users, positions = spans.targets()
    assert (users.tolist(), positions.tolist()) == ([4, 0, 4], [1, 9, 5])
