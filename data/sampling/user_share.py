"""Chooses the users whose sequences are trained, as a pure function of seed, share and user, and counts their items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from contracts.errors import InputError
from data.joined import RunDataset
from data.ragged import ragged_indices
from data.sampling.order import splitmix
from data.sequences import SequenceArrays

_STREAM = 0x55534552  # "USER": keeps these numbers apart from others with the same seed
_BLOCK = 1 << 20  # users, or interactions, that are processed at a time


class Users(Protocol):
    """Whatever has users: `SequenceArrays`, or the sequences that a graph is built from."""

    @property
    def offsets(self) -> np.ndarray:
        """The start of each user's sequence, int64 [U+1]."""
        ...


@dataclass(frozen=True)
class UserShare:
    """A share of the users, chosen by a hash of the seed and a user's number in its own dataset.

    So a smaller share has a subset of the users of a larger one, with the same seed. The choice depends neither on the
    number of ranks nor on which datasets are joined.

    Attributes:
        share: in (0, 1]. A user is chosen with this probability.
        seed: the seed of the run.
    """

    share: float
    seed: int

    @property
    def is_all(self) -> bool:
        """Whether all users are chosen."""
        return self.share >= 1

    def chosen(self, data: Users) -> np.ndarray:
        """Return which users are chosen, bool [U]."""
        chosen = np.ones(len(data.offsets) - 1, dtype=bool)
        if self.is_all:
            return chosen
        limit = np.uint64(int(self.share * 2**64))
        key = splitmix(splitmix(np.array([self.seed], dtype=np.uint64)) ^ np.uint64(_STREAM))
        for first_user, num_users in _parts(data):
            for start in range(0, num_users, _BLOCK):
                users = np.arange(start, min(start + _BLOCK, num_users), dtype=np.uint64)
                chosen[first_user + start : first_user + start + len(users)] = splitmix(users ^ key) < limit
        return chosen

    def of(self, data: SequenceArrays) -> SequenceArrays:
        """Return the sequences without training parts of users who are not chosen; the same object if all are."""
        return data if self.is_all else _OfChosenUsers(data, self)

    def popularity(self, dataset: RunDataset) -> np.ndarray:
        """Return the number of interactions of each item in the training parts of the chosen users, int64 [N].

        Raises:
            InputError: an item is outside the catalogue.
        """
        if self.is_all:
            return dataset.popularity()
        counts = np.zeros(dataset.num_items, dtype=np.int64)
        train_end = self.of(dataset).train_end
        users = np.flatnonzero(train_end)
        block = np.cumsum(train_end[users], dtype=np.int64) // _BLOCK  # users whose items are counted together
        for some in np.split(users, np.flatnonzero(np.diff(block)) + 1):
            items = dataset.items[ragged_indices(dataset.offsets[some], train_end[some])]
            if len(items) and (items.min() < 0 or items.max() >= dataset.num_items):
                raise InputError(
                    f"dataset {dataset.path}: users {some[0]} to {some[-1]} have a training item outside "
                    f"[0, {dataset.num_items}); prepare the dataset again"
                )
            counts += np.bincount(items, minlength=dataset.num_items)
        return counts


ALL_USERS = UserShare(1.0, 0)


class _OfChosenUsers:
    """Sequences in which a user who is not chosen has no training part (implements `SequenceArrays`)."""

    def __init__(self, data: SequenceArrays, users: UserShare) -> None:
        self.num_items, self.num_users = data.num_items, data.num_users
        self.offsets, self.items, self.valid_end = data.offsets, data.items, data.valid_end
        self.train_end = np.where(users.chosen(data), data.train_end, 0)


def _parts(data: Users) -> list[tuple[int, int]]:
    """Return the first user and the number of users of each dataset that `data` consists of."""
    domains = getattr(data, "domains", ())
    return [(domain.first_user, domain.num_users) for domain in domains] or [(0, len(data.offsets) - 1)]
