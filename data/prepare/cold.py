"""Holds a share of the items out of training: chooses these *cold* items, and drops their training interactions.

The choice is a function of the items' source ids, the share and the seed alone. So it does not depend on the order of
the input, on the engine, or on how the input is divided. With the same seed, the cold items of a smaller share are
among those of a larger one.

U users, E interactions, N items; user u owns items[offsets[u]:offsets[u + 1]], oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.ragged import offsets_of
from data.sampling.order import splitmix
from data.writing import DatasetContent, Sequences

# The reasons for which the manifest counts what is dropped.
COLD_ROWS, COLD_USERS = "training_interactions_of_cold_items", "users_of_cold_items_only"
_BLOCK_BYTES = 1 << 20  # bytes of ids that are hashed at a time; their numbers take some 50 times as much


@dataclass(frozen=True, kw_only=True)
class ColdRule:
    """How many items are held out of training, and which.

    Attributes:
        share: the share of all items, in (0, 1).
        seed: the key of the hash that chooses them, in [0, 2^63).
    """

    share: float
    seed: int = 0

    def check(self) -> None:
        """Raise InputError if a value is outside its range."""
        if not 0 < self.share < 1:
            raise InputError(
                f"--cold-item-share {self.share}: must be above 0 and below 1, the share of items that are held out of "
                "training; leave it out to hold none out"
            )
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed}: must be at least 0 and below 2^63; choose another")

    def described(self, cold: np.ndarray) -> dict[str, Any]:
        """Return what the manifest's split says about the cold items, bool [N]."""
        return {"cold_items": {"share": self.share, "seed": self.seed, "count": int(np.count_nonzero(cold))}}

    def nothing_left(self, cold: np.ndarray) -> InputError:
        """Return the error for a dataset without training interactions."""
        return InputError(
            f"--cold-item-share {self.share}: every training interaction is of a cold item, of which there are "
            f"{np.count_nonzero(cold):,}, so nothing is left to train on; lower it, or choose another --seed"
        )


def choose_cold(groups: Iterable[pa.Array], rule: ColdRule) -> np.ndarray:
    """Return which items are cold: those round(share * N) items whose source ids have the smallest keyed hashes.

    Args:
        groups: the source ids of all items in their order, large_string, a group at a time.
        rule: how many, and which.

    Returns:
        bool [N]. Of items with the same hash, the first are chosen.

    Raises:
        InputError: the share stands for no item, or for all.
    """
    hashes = np.concatenate([keyed_hashes(ids, rule.seed) for ids in groups])
    count = round(rule.share * len(hashes))
    if not 0 < count < len(hashes):
        raise InputError(
            f"--cold-item-share {rule.share}: of {len(hashes):,} items these are {count:,}; "
            f"{'raise' if not count else 'lower'} it so that some items are held out and some are not"
        )
    limit = np.partition(hashes, count - 1)[count - 1]
    cold = hashes < limit
    cold[np.flatnonzero(hashes == limit)[: count - np.count_nonzero(cold)]] = True
    return cold


def keyed_hashes(ids: pa.Array, seed: int) -> np.ndarray:
    """Return a hash of each id, uint64: a mix of the sum of a random number for each of its bytes and their places."""
    texts = ids.cast(pa.large_string())
    if not len(texts):
        return np.empty(0, np.uint64)
    _, ends, content = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    every = np.frombuffer(content, np.uint8) if content is not None else np.empty(0, np.uint8)
    key = splitmix(np.array([seed], np.uint64))
    found = np.empty(len(texts), np.uint64)
    start = 0
    while start < len(texts):
        stop = int(np.searchsorted(offsets, offsets[start] + _BLOCK_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), len(texts))
        lengths = np.diff(offsets[start : stop + 1])
        local = offsets_of(lengths)
        places = np.arange(local[-1]) - np.repeat(local[:-1], lengths) + 1  # so that no byte has the key itself
        letters = every[offsets[start] : offsets[stop]].astype(np.uint64)
        numbers = splitmix(key ^ (places.astype(np.uint64) << np.uint64(8) | letters))
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(numbers, dtype=np.uint64)])  # wraps around
        found[start:stop] = splitmix(key ^ (running[local[1:]] - running[local[:-1]]))
        start = stop
    return found


def cold_in_training(offsets: np.ndarray, items: np.ndarray, train_end: np.ndarray, cold: np.ndarray) -> np.ndarray:
    """Return which interactions are training interactions of cold items, bool [E].

    Args:
        offsets: int64 [U+1].
        items: int64 [E].
        train_end: int64 [U], number of training items of each user, which are the first.
        cold: bool [N].
    """
    lengths = np.diff(offsets)
    places = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
    found: np.ndarray = (places < np.repeat(train_end, lengths)) & cold[items]
    return found


def with_cold(columns: pa.Table | None, cold: np.ndarray) -> pa.Table:
    """Return further columns of items with the column `cold`, from bool [N]."""
    column = pa.array(cold)
    return pa.table({"cold": column}) if columns is None else columns.append_column("cold", column)


def held_out(content: DatasetContent, rule: ColdRule) -> DatasetContent:
    """Return content in memory with cold items, whose training interactions are dropped.

    Validation and test targets stay. A user of whom nothing is left is dropped too.

    Raises:
        InputError: see `choose_cold`; or no training interaction is left.
    """
    data = content.sequences
    assert isinstance(data, Sequences)
    assert isinstance(content.user_source_ids, pa.Array)
    assert isinstance(content.item_source_ids, pa.Array)
    cold = choose_cold([content.item_source_ids], rule)
    dropped = cold_in_training(data.offsets, data.items, data.train_end, cold)
    running = np.concatenate([[0], np.cumsum(dropped)])
    fewer = running[data.offsets[1:]] - running[data.offsets[:-1]]
    lengths = np.diff(data.offsets) - fewer
    left = lengths > 0
    if not (data.train_end - fewer).any():
        raise rule.nothing_left(cold)
    return replace(
        content,
        sequences=Sequences(
            offsets=offsets_of(lengths[left]),
            items=data.items[~dropped],
            timestamps=None if data.timestamps is None else data.timestamps[~dropped],
            train_end=(data.train_end - fewer)[left],
            valid_end=(data.valid_end - fewer)[left],
        ),
        user_source_ids=content.user_source_ids.filter(pa.array(left)),
        item_columns=with_cold(content.item_columns, cold),
        split={**content.split, **rule.described(cold)},
        dropped={
            **content.dropped,
            COLD_ROWS: int(np.count_nonzero(dropped)),
            COLD_USERS: int(np.count_nonzero(~left)),
        },
    )
