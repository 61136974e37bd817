"""Counts the users whose targets of validation and test are others in a grown dataset than they were before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from data.ragged import ragged_indices

_USERS = 1 << 18  # users that are compared at a time


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How many users of OLD have other targets now.

    Attributes:
        num_users: users of OLD.
        valid: those with other validation targets.
        test: those with other test targets.
    """

    num_users: int
    valid: int
    test: int


def moved_targets(old: Dataset, new: Dataset) -> Moved:
    """Compare the targets of the users of OLD, who are the first of the new dataset. Memory: a block of users.

    A target is an item at a time, or without timestamps an item at a place in the history.
    """
    valid = test = 0
    for first in range(0, old.num_users, _USERS):
        users = slice(first, min(first + _USERS, old.num_users))
        ours, theirs = _block(old, users), _block(new, users)
        valid += _num_different(ours[0], theirs[0])
        test += _num_different(ours[1], theirs[1])
    return Moved(num_users=old.num_users, valid=valid, test=test)


@dataclass(frozen=True, kw_only=True)
class _Targets:
    """Targets of a block of users: their number for each user, int64 [U]; and two arrays of all of them, int64 [T]."""

    counts: np.ndarray
    items: np.ndarray
    moments: np.ndarray


def _block(dataset: Dataset, users: slice) -> tuple[_Targets, _Targets]:
    """Return the validation and the test targets of users."""
    offsets = dataset.offsets[users.start : users.stop + 1]
    train_end, valid_end = dataset.train_end[users], dataset.valid_end[users]
    return _targets(dataset, offsets, train_end, valid_end), _targets(dataset, offsets, valid_end, np.diff(offsets))


def _targets(dataset: Dataset, offsets: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> _Targets:
    counts = ends - begins
    rows = ragged_indices(offsets[:-1] + begins, counts)
    places = rows - np.repeat(offsets[:-1], counts)
    moments = places if dataset.timestamps is None else dataset.timestamps[rows]
    return _Targets(counts=counts, items=dataset.items[rows], moments=moments)


def _num_different(ours: _Targets, theirs: _Targets) -> int:
    """Return how many users have other targets."""
    differs = ours.counts != theirs.counts
    same = ~differs
    (items, moments), (other_items, other_moments) = (
        (side.items[rows], side.moments[rows]) for side in (ours, theirs) for rows in [np.repeat(same, side.counts)]
    )
    unequal = (items != other_items) | (moments != other_moments)
    of_users = np.repeat(np.arange(len(same)), np.where(same, ours.counts, 0))
    differs[of_users[unequal]] = True
    return int(np.count_nonzero(differs))
