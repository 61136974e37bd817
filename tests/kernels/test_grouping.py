"""Rows by group, against NumPy's stable sorts and plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.grouping import LONGEST_INSERTION, count_of_live_users, grouped_order, sort_within, text_buckets

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=120)


@settings(deadline=None)
@given(ROWS)
def test_rows_are_grouped_and_short_groups_sorted(rows: list[tuple[int, int]]) -> None:
    groups, keys = np.array(rows, np.int64).reshape(-1, 2).T.copy()
    order, offsets = grouped_order(groups.astype(np.int32), 5)
    assert order.tolist() == np.argsort(groups, kind="stable").tolist()
    assert np.diff(offsets).tolist() == np.bincount(groups, minlength=5).tolist()
    before, ordered = order.copy(), keys[order]
    left = sort_within(offsets, ordered, order)
    for group in range(5):
        part = slice(offsets[group], offsets[group + 1])
        own = before[part]
        is_sorted = bool((np.diff(keys[own]) >= 0).all())
        assert left[group] == (len(own) > LONGEST_INSERTION and not is_sorted)
        expected = own if left[group] else own[np.argsort(keys[own], kind="stable")]
        assert order[part].tolist() == expected.tolist()
        assert ordered[part].tolist() == keys[expected].tolist()


@settings(deadline=None)
@given(ROWS, st.lists(st.booleans(), min_size=7, max_size=7), st.integers(1, 4), st.integers(0, 5))
def test_rows_of_live_users_are_counted(rows: list[tuple[int, int]], live: list[bool], least: int, exempt: int) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    users, items = np.array(rows, np.int64).reshape(-1, 2).T
    expected, counts = np.zeros(7, np.int64), np.zeros(7, np.int64)
    for user in range(5):
        own = [item + 3 for item in items[users == user] if live[item + 3]]
        if len(own) >= least or user < exempt:
            np.add.at(expected, own, 1)
    offsets = np.searchsorted(users, np.arange(6))
    count_of_live_users(offsets, (items + 3).astype(np.int32), np.array(live), least, exempt, counts)
    assert counts.tolist() == expected.tolist()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=9), max_size=20), st.integers(1, 9))
def test_buckets_are_those_of_fnv(texts: list[bytes], count: int) -> None:
    offsets = np.cumsum([0, *map(len, texts)])
    found = text_buckets(offsets, np.frombuffer(b"".join(texts), np.uint8), count)
    for text, bucket in zip(texts, found, strict=True):
        value = 14695981039346656037
        for byte in text:
            value = (value ^ byte) * 1099511628211 % 2**64
        assert bucket == (value ^ value >> 32) % count
