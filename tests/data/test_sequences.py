"""Targets of a split and the histories before them, against the obvious loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import sequences
from data.sequences import Split, Targets, gather_histories, repeats_history, target_items
from tests.sequences import Sequences


def sequences_of(lists: list[list[int]], train_end: list[int], valid_end: list[int], num_items: int) -> Sequences:
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    items = np.array([item for row in lists for item in row], dtype=np.int64)
    return Sequences(num_items, len(lists), offsets, items, np.array(train_end, int), np.array(valid_end, int))


@st.composite
def datasets(draw: st.DrawFn) -> tuple[Sequences, list[list[int]]]:
    lists = draw(st.lists(st.lists(st.integers(0, 8), max_size=7), max_size=6))
    valid_end = [draw(st.integers(0, len(row))) for row in lists]
    train_end = [draw(st.integers(0, end)) for end in valid_end]
    return sequences_of(lists, train_end, valid_end, 9), lists


def expected_targets(data: Sequences, lists: list[list[int]], split: Split) -> list[tuple[int, int]]:
    targets = []
    for user, row in enumerate(lists):
        train, valid, end = int(data.train_end[user]), int(data.valid_end[user]), len(row)
        positions = {
            "train": range(1, train),
            "valid": range(max(1, train), valid),
            "test": range(max(1, valid), end),
            "next": [end] if row else [],
        }[split]
        targets += [(user, position) for position in positions]
    return targets


@pytest.mark.parametrize("split", ["train", "valid", "test", "next"])
@settings(max_examples=60, deadline=None)
@given(case=datasets())
def test_targets_are_located_as_by_a_loop(split: Split, case: tuple[Sequences, list[list[int]]]) -> None:
    data, lists = case
    targets = Targets(data, split)
    expected = expected_targets(data, lists, split)
    assert len(targets) == len(expected)
    users, positions = targets.locate(np.arange(len(targets)))
    assert list(zip(users.tolist(), positions.tolist(), strict=True)) == expected
    assert users.dtype == positions.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(case=datasets(), max_length=st.integers(1, 9))
def test_histories_are_the_items_before_and_never_the_target(
    case: tuple[Sequences, list[list[int]]], max_length: int
) -> None:
    data, lists = case
    for split in ("train", "valid", "test", "next"):
        targets = Targets(data, split)
        users, positions = targets.locate(np.arange(len(targets)))
        history, lengths = gather_histories(data, users, positions, max_length)
        items = target_items(data, users, positions)
        assert history.shape == (len(users), max([1, *lengths.tolist()]))
        for row, length, item, user, position in zip(history, lengths, items, users, positions, strict=True):
            before = lists[user][max(0, position - max_length) : position]
            assert row.tolist() == before + [0] * (history.shape[1] - length)
            assert length == len(before) >= 1
            assert item == (-1 if split == "next" else lists[user][position])


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_repeats_are_found_as_by_a_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "_BLOCK", block)
    random = np.random.default_rng(1)
    lengths = random.integers(0, 9, 30)
    offsets = np.concatenate([[0], lengths.cumsum()])
    data = Sequences(5, 30, offsets, random.integers(0, 5, offsets[-1]), lengths, lengths)
    users = np.repeat(np.arange(30), lengths)
    positions = np.arange(offsets[-1]) - offsets[users]
    order = random.permutation(len(users))[: len(users) - 5]  # any order, not all targets of a user
    users, positions = users[order], positions[order]
    expected = [
        data.items[offsets[u] + p] in data.items[offsets[u] : offsets[u] + p]
        for u, p in zip(users, positions, strict=True)
    ]
    found = repeats_history(data, users, positions)
    assert found.tolist() == expected
    assert 0 < found.sum() < len(found)
    assert repeats_history(data, users[:0], positions[:0]).tolist() == []


def test_the_three_splits_share_out_every_position_but_the_first() -> None:
    data = sequences_of([[3, 1, 4, 1, 5], [9], [], [2, 6]], [3, 1, 0, 0], [4, 1, 0, 1], 10)
    splits = [Targets(data, "train"), Targets(data, "valid"), Targets(data, "test")]
    located = [targets.locate(np.arange(len(targets))) for targets in splits]
    pairs = [pair for users, positions in located for pair in zip(users.tolist(), positions.tolist(), strict=True)]
    assert sorted(pairs) == [(0, 1), (0, 2), (0, 3), (0, 4), (3, 1)]


def test_an_empty_batch_has_one_column() -> None:
    data = sequences_of([[3, 1]], [2], [2], 10)
    nobody = np.empty(0, dtype=np.int64)
    history, lengths = gather_histories(data, nobody, nobody, 5)
    assert (history.shape, lengths.shape, target_items(data, nobody, nobody).shape) == ((0, 1), (0,), (0,))


def test_the_end_of_a_sequence_is_not_the_next_users_item() -> None:
    data = sequences_of([[3, 1], [7, 8]], [2, 2], [2, 2], 10)
    assert target_items(data, np.array([0, 1, 1]), np.array([2, 1, 2])).tolist() == [-1, 8, -1]


def test_ids_above_32_bits_survive() -> None:
    big = 2**53 + 1  # lost in float64, and of course in int32 and float32
    data = sequences_of([[2**31, big, 2**33]], [3], [3], 2**60)
    users, positions = Targets(data, "train").locate(np.array([1, 0]))
    history, _ = gather_histories(data, users, positions, 5)
    assert history.tolist() == [[2**31, big], [2**31, 0]]
    assert target_items(data, users, positions).tolist() == [2**33, big]


def test_counts_above_32_bits_are_located() -> None:
    """Three users of 2^31 interactions each: nothing but per-user arrays is touched."""
    length = 2**31
    ends = np.full(3, length - 1)
    data = Sequences(5, 3, np.arange(4) * length, np.empty(0, np.int64), ends - 1, ends)
    targets = Targets(data, "train")
    per_user = length - 3
    assert len(targets) == 3 * per_user
    users, positions = targets.locate(np.array([0, per_user - 1, per_user, 3 * per_user - 1]))
    assert users.tolist() == [0, 0, 1, 2]
    assert positions.tolist() == [1, per_user, 1, per_user]
