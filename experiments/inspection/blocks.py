"""Cuts the sequences of a dataset into blocks of bounded size; a user with more interactions than that gets several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset

BLOCK = 1 << 20  # interactions or users


@dataclass(frozen=True, kw_only=True)
class Block:
    """Interactions [start, stop) of all, which are of the users [first, last).

    Attributes:
        first: the first user.
        last: the user after the last one.
        start: the first interaction; if it is not the first one of its user, the block has only this user.
        stop: the interaction after the last one.
    """

    first: int
    last: int
    start: int
    stop: int


def blocks(offsets: np.ndarray, size: int = BLOCK) -> Iterator[Block]:
    """Yield all interactions in blocks of at most `size`. Sequences have the given offsets, int64 [U+1]."""
    first, num_users = 0, len(offsets) - 1
    while first < num_users:
        start = int(offsets[first])
        last = int(np.searchsorted(offsets, start + size, side="right")) - 1
        if last > first:
            yield Block(first=first, last=last, start=start, stop=int(offsets[last]))
            first = last
            continue
        stop = int(offsets[first + 1])
        for begin in range(start, stop, size):
            yield Block(first=first, last=first + 1, start=begin, stop=min(begin + size, stop))
        first += 1


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """The n interactions of a block.

    Attributes:
        users: int64 [n], counted from the block's first user.
        positions: int64 [n], in the user's sequence, from 0.
        is_test: bool [n], test targets.
        is_valid: bool [n], validation targets.
        is_train: bool [n], training targets.
    """

    users: np.ndarray
    positions: np.ndarray
    is_train: np.ndarray
    is_valid: np.ndarray
    is_test: np.ndarray


def interactions(data: Dataset, block: Block) -> Interactions:
    """Return users, positions and parts of a block's interactions."""
    offsets = np.clip(data.offsets[block.first : block.last + 1], block.start, block.stop)
    users = np.repeat(np.arange(block.last - block.first), np.diff(offsets))
    positions = np.arange(block.start, block.stop) - data.offsets[block.first : block.last][users]
    train_end = data.train_end[block.first : block.last][users]
    is_target = positions > 0
    is_before_test = positions < data.valid_end[block.first : block.last][users]
    is_train = is_target & (positions < train_end)
    return Interactions(
        users=users,
        positions=positions,
        is_train=is_train,
        is_valid=is_target & is_before_test & ~is_train,
        is_test=is_target & ~is_before_test,
    )


def with_previous(values: np.ndarray, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a block's interactions, and of the interaction before each.

    Where there is none before, or one of another user, the second has some value; `positions` tells where.
    """
    pairs = values[max(block.start - 1, 0) : block.stop]
    if not block.start:
        pairs = np.concatenate([pairs[:1], pairs])
    return pairs[1:], pairs[:-1]
