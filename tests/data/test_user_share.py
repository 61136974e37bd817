"""Which users are chosen, what is left of the others, and what is counted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data.sampling.negatives import target_counts
from data.sampling.spans import TrainingSpans
from data.sampling.user_share import ALL_USERS, UserShare
from tests.sequences import Sequences

USERS, ITEMS = 20_000, 50


def sequences(num_users: int = USERS) -> Sequences:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, num_users)
    offsets = np.concatenate([[0], lengths.cumsum()])
    return Sequences(ITEMS, num_users, offsets, rng.integers(0, ITEMS, offsets[-1]), lengths - 2, lengths - 1)


def test_a_smaller_share_has_a_subset_of_the_users_of_a_larger_one() -> None:
    data = sequences()
    before = np.zeros(USERS, dtype=bool)
    for share in (0.001, 0.1, 0.2, 0.5, 0.99, 1.0):
        chosen = UserShare(share, 3).chosen(data)
        deviation = 5 * np.sqrt(USERS * share * (1 - share))
        assert abs(chosen.sum() - share * USERS) <= deviation
        assert not (before & ~chosen).any()
        before = chosen
    assert before.all()


def test_another_seed_chooses_other_users_independently() -> None:
    one, other = (UserShare(0.3, seed).chosen(sequences()) for seed in (0, 1))
    assert (one & other).mean() == pytest.approx(0.09, abs=0.01)
    assert one[::2].mean() == pytest.approx(0.3, abs=0.02)


def test_a_user_of_joined_datasets_is_chosen_as_in_its_own() -> None:
    """So the graphs of the parts, each built for its dataset alone, count the users that are trained."""
    sizes = (700, 300)
    parts = [SimpleNamespace(first_user=0, num_users=700), SimpleNamespace(first_user=700, num_users=300)]
    joined = SimpleNamespace(offsets=np.arange(sum(sizes) + 1), domains=tuple(parts))
    alone = [UserShare(0.4, 5).chosen(SimpleNamespace(offsets=np.arange(size + 1))) for size in sizes]
    assert np.array_equal(UserShare(0.4, 5).chosen(joined), np.concatenate(alone))


@pytest.mark.parametrize("unit", ["windows", "prefixes"])
def test_only_chosen_users_are_trained_in_their_order(unit: str) -> None:
    data, users = sequences(500), UserShare(0.2, 1)
    few = TrainingSpans(data=users.of(data), unit=unit, max_length=4, overlap=0.5)  # type: ignore[arg-type]
    every = TrainingSpans(data=data, unit=unit, max_length=4, overlap=0.5)  # type: ignore[arg-type]
    found, expected = few.locate(np.arange(len(few))), every.locate(np.arange(len(every)))
    kept = users.chosen(data)[expected.users]
    assert 0 < kept.sum() < len(kept)
    for name in ("users", "starts", "ends", "num_targets"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)[kept])
    assert (np.diff(found.users) >= 0).all()


def test_popularity_and_targets_are_those_of_the_chosen_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.sampling.user_share._BLOCK", 64)  # many blocks of users and of interactions
    data, users = sequences(500), UserShare(0.3, 1)
    chosen = users.chosen(data)
    assert np.array_equal(chosen, UserShare(0.3, 1).chosen(data))
    expected, targets = np.zeros(ITEMS, dtype=np.int64), np.zeros(ITEMS, dtype=np.int64)
    for user in np.flatnonzero(chosen):
        items = data.items[data.offsets[user] : data.offsets[user] + data.train_end[user]]
        np.add.at(expected, items, 1)
        np.add.at(targets, items[1:], 1)
    popularity = users.popularity(data)  # type: ignore[arg-type]
    assert np.array_equal(popularity, expected)
    assert np.array_equal(target_counts(users.of(data), popularity), targets)


def test_the_whole_of_the_users_leaves_everything_as_it_is() -> None:
    data = sequences(10)
    assert ALL_USERS.of(data) is data
    assert ALL_USERS.chosen(data).all()
    data.popularity = lambda: np.arange(ITEMS)  # type: ignore[attr-defined]
    assert np.array_equal(ALL_USERS.popularity(data), np.arange(ITEMS))  # type: ignore[arg-type]


def test_nobody_may_be_chosen() -> None:
    data = sequences(4)
    assert not UserShare(1e-12, 0).popularity(data).any()  # type: ignore[arg-type]
