"""Splits against their definitions, user by user."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InputError
from data.prepare.split import SplitRule, global_time, leave_one_out, time_quantiles
from data.ragged import first_difference, offsets_of, ragged_indices, take_lists

HISTORIES = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6).map(sorted), min_size=1, max_size=6)


def test_leave_one_out_trains_only_on_short_histories() -> None:
    train_end, valid_end = leave_one_out(offsets_of(np.array([1, 2, 3, 7])))
    assert train_end.tolist() == [1, 2, 1, 5]
    assert valid_end.tolist() == [1, 2, 2, 6]


@given(HISTORIES, st.integers(-1, 11), st.integers(0, 4))
def test_global_time_is_one_moment_for_all(histories: list[list[int]], valid_from: int, gap: int) -> None:
    offsets = offsets_of(np.array([len(history) for history in histories]))
    times = np.concatenate([np.array(history, np.int64) for history in histories])
    train_end, valid_end = global_time(offsets, times, valid_from, valid_from + gap)
    for user, history in enumerate(histories):
        assert train_end[user] == sum(time < valid_from for time in history)
        assert valid_end[user] == sum(time < valid_from + gap for time in history)


def test_quantiles_put_the_stated_share_before_the_moment() -> None:
    parts = [np.arange(0, 1000, 3), np.zeros(0, np.int64), np.arange(1, 1000, 3), np.arange(2, 1000, 3)]
    assert time_quantiles(parts, 0.8, 0.9) == (800, 900)
    assert time_quantiles(parts, 0.8, 1.0) == (800, 1000)  # 1: after the last interaction
    assert time_quantiles([np.array([5, 5]), np.array([5, 5])], 0.5, 0.75) == (5, 5)


@given(HISTORIES, st.floats(0.01, 1), st.floats(0.01, 1))
def test_quantiles_of_parts_are_those_of_all(histories: list[list[int]], one: float, other: float) -> None:
    parts = [np.array(history, np.int64) for history in histories]
    ordered = np.sort(np.concatenate(parts))
    expected = [*ordered.tolist(), ordered[-1] + 1]
    fractions = min(one, other), max(one, other)
    assert time_quantiles(parts, *fractions) == tuple(expected[int(fraction * len(ordered))] for fraction in fractions)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (SplitRule(method="global-time", valid_from=3), "both --valid-from and --test-from"),
        (SplitRule(method="global-time", valid_from=3, test_from=2), "--valid-from 3 is after --test-from 2"),
        (SplitRule(method="global-time", valid_fraction=0.9, test_fraction=0.8), "got 0.9 and 0.8"),
        (SplitRule(method="global-time", valid_fraction=0.0), "got 0.0 and 0.9"),
    ],
)
def test_contradictory_rules_are_refused(rule: SplitRule, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rule.check()


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=6), st.data())
def test_ragged_take_is_list_indexing(lists: list[list[int]], data: st.DataObject) -> None:
    offsets = offsets_of(np.array([len(row) for row in lists], np.int64))
    values = np.array([value for row in lists for value in row], object)
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=5)) if lists else []
    _, taken = take_lists(offsets, values, np.array(rows, np.int64))
    assert taken.tolist() == [value for row in rows for value in lists[row]]


def test_first_difference_skips_empty_lists() -> None:
    left, right = np.array([1, 2, 3, 4]), np.array([1, 2, 9, 4])
    starts, lengths = np.array([0, 2, 2, 3]), np.array([2, 0, 1, 1])
    assert first_difference(left, starts, right, starts, lengths) == 2
    assert first_difference(left, starts, left, starts, lengths) is None
    assert ragged_indices(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
