"""Chooses a few users and items to show: typical ones and extremes, always the same for a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from experiments.inspection.facts import Event, ItemExample, PopularityFacts, UserExample
from experiments.inspection.name_pass import Names

_NUM_TYPICAL = 2
_NUM_EVENTS = 8
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The rows that are shown, each with the reason."""

    users: Mapping[int, str]
    items: Mapping[int, str]


def choose(data: Dataset, popularity: np.ndarray, facts: PopularityFacts, median_length: int, longest: int) -> Chosen:
    """Choose users by the length of their history, and items by their training interactions, int64 [N]."""
    users: dict[int, str] = {}
    if longest > median_length:
        users |= dict.fromkeys(_users_of_length(data, longest, 1), "the longest history")
    for user in _users_of_length(data, median_length, _NUM_TYPICAL + 1):
        if user not in users and len(users) <= _NUM_TYPICAL:
            users[user] = "a typical history: its length is the median"
    items = {int(popularity.argmax()): "the most popular item"}
    for item in _first(popularity == facts.counts.median, _NUM_TYPICAL + 1):
        if item not in items and len(items) <= _NUM_TYPICAL:
            items[item] = "a typical item: its popularity is the median"
    for item in _first(popularity == 0, 1):
        items.setdefault(item, "an item without training interactions")
    return Chosen(users=users, items=items)


def shown_items(data: Dataset, chosen: Chosen) -> set[int]:
    """Return all items whose names are needed."""
    return {*chosen.items, *(int(item) for user in chosen.users for item in data.items[_latest(data, user)])}


def item_examples(chosen: Chosen, popularity: np.ndarray, names: Names) -> tuple[ItemExample, ...]:
    """Return the chosen items with their names."""
    return tuple(
        ItemExample(why=why, id=names.id_of[item], text=names.text_of.get(item), num_training=int(popularity[item]))
        for item, why in chosen.items.items()
    )


def user_examples(data: Dataset, chosen: Chosen, users: Names, items: Names) -> tuple[UserExample, ...]:
    """Return the chosen users with their latest interactions."""
    return tuple(
        UserExample(
            why=why,
            id=users.id_of[user],
            length=int(data.offsets[user + 1] - data.offsets[user]),
            events=tuple(
                _event(data, user, row, items) for row in range(*_latest(data, user).indices(len(data.items)))
            ),
        )
        for user, why in chosen.users.items()
    )


def _event(data: Dataset, user: int, row: int, names: Names) -> Event:
    item, position = int(data.items[row]), row - int(data.offsets[user])
    part = "train" if position < data.train_end[user] else "valid" if position < data.valid_end[user] else "test"
    timestamp = None if data.timestamps is None else int(data.timestamps[row])
    return Event(id=names.id_of[item], text=names.text_of.get(item), timestamp=timestamp, part=part)


def _latest(data: Dataset, user: int) -> slice:
    start, stop = (int(offset) for offset in data.offsets[user : user + 2])
    return slice(max(start, stop - _NUM_EVENTS), stop)


def _users_of_length(data: Dataset, length: int, most: int) -> list[int]:
    """Return the first users whose sequence has this length."""
    found: list[int] = []
    for begin in range(0, data.num_users, _BLOCK):
        lengths = np.diff(data.offsets[begin : begin + _BLOCK + 1])
        found += [begin + user for user in _first(lengths == length, most - len(found))]
        if len(found) == most:
            break
    return found


def _first(mask: np.ndarray, most: int) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)[:most]]
