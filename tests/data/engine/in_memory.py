"""The slow twin of data.prepare.engine: the same steps over whole columns in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.prepare.engine.plan import Rules
from data.ragged import offsets_of, ragged_indices
from data.writing import Sequences


def interaction_codes(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, pa.Array, pa.Array, int]:
    """Drop rows without a user, an item or a timestamp, and number users and items in order of first appearance.

    Returns:
        Users, items and timestamps, int64 [E] each; the source ids of users and of items by their number; the number
        of dropped rows.
    """
    complete = table.drop_null()
    users, user_ids = _codes(complete.column("user"))
    items, item_ids = _codes(complete.column("item"))
    times = complete.column("timestamp").to_numpy()
    return users, items, times, user_ids, item_ids, table.num_rows - complete.num_rows


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    encoded = column.dictionary_encode().unify_dictionaries()
    if encoded.num_chunks == 0:
        return np.zeros(0, np.int64), pa.array([], pa.large_string())
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    return codes, encoded.chunk(0).dictionary


def first_of_duplicates(users: np.ndarray, items: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Return a mask, bool [E], that keeps the first in input order of equal (user, item, timestamp)."""
    order = np.lexsort((timestamps, items, users))  # stable: equal triples stay in input order
    keep = np.ones(len(users), bool)
    same = np.ones(max(len(users) - 1, 0), bool)
    for column in (users, items, timestamps):
        same &= column[order[1:]] == column[order[:-1]]
    keep[order[1:][same]] = False
    return keep


def k_core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Return a mask, bool [E], of the largest set in which users have >= min_user and items >= min_item interactions.

    Users and items below the minimum are removed until nothing changes. The result does not depend on the order of
    removal. Repeated interactions of a user with an item count separately.
    """
    kept = np.arange(len(users))
    while True:
        enough = np.ones(len(kept), bool)
        for codes, minimum in ((users[kept], min_user), (items[kept], min_item)):
            enough &= np.bincount(codes)[codes] >= minimum if len(codes) else True
        if enough.all():
            break
        kept = kept[enough]
    mask = np.zeros(len(users), bool)
    mask[kept] = True
    return mask


def renumber(codes: np.ndarray, source_ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Renumber the codes that are still in use without gaps, in the same order; return them and their source ids."""
    used = np.bincount(codes, minlength=len(source_ids)) > 0
    return (np.cumsum(used) - 1)[codes], source_ids.filter(pa.array(used))


def ordered_by_time(users: np.ndarray, timestamps: np.ndarray, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Group interactions by user, oldest first; interactions at the same time keep their input order.

    Returns:
        The order as indices of interactions, int64 [E], and the offsets of users in it, int64 [U+1].
    """
    order = np.lexsort((timestamps, users))
    return order, offsets_of(np.bincount(users, minlength=num_users))


def most_recent(offsets: np.ndarray, max_history: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of each user's last `max_history` interactions, and the offsets of users in them."""
    lengths = np.minimum(np.diff(offsets), max_history)
    return ragged_indices(offsets[1:] - lengths, lengths), offsets_of(lengths)


def prepared_in_memory(
    table: pa.Table, name: str, rules: Rules
) -> tuple[Sequences, pa.Array, pa.Array, dict[str, Any], dict[str, int]]:
    """Return sequences, source ids of users and of items, the split, and what was dropped.

    The table has the columns user, item and timestamp, with nulls.
    """
    users, items, times, user_ids, item_ids, num_null = interaction_codes(table)
    if not len(users):
        raise InputError(
            f"{name}: none of its {table.num_rows} rows has a user, an item and a timestamp; restore the file"
        )
    dropped = {"rows_with_null": num_null}

    def keep(mask: np.ndarray) -> int:
        nonlocal users, items, times
        users, items, times = users[mask], items[mask], times[mask]
        return int((~mask).sum())

    dropped["duplicates"] = keep(first_of_duplicates(users, items, times))
    minimums = rules.min_user_interactions, rules.min_item_interactions
    before = len(np.unique(users)), len(np.unique(items))
    dropped["k_core_interactions"] = keep(k_core(users, items, *minimums))
    if not len(users):
        raise InputError(
            f"{name}: none of its {table.num_rows} rows is left after the {minimums[0]}/{minimums[1]}-core; "
            "lower --min-user-interactions and --min-item-interactions"
        )
    users, user_ids = renumber(users, user_ids)
    items, item_ids = renumber(items, item_ids)
    dropped |= {"k_core_users": before[0] - len(user_ids), "k_core_items": before[1] - len(item_ids)}

    order, offsets = ordered_by_time(users, times, len(user_ids))
    if rules.max_history is not None:
        recent, offsets = most_recent(offsets, rules.max_history)
        order = order[recent]
    dropped["truncated_interactions"] = len(users) - len(order)
    items, times = items[order], times[order]
    train_end, valid_end, split = rules.split.apply(offsets, times)
    return (
        Sequences(offsets=offsets, items=items, timestamps=times, train_end=train_end, valid_end=valid_end),
        user_ids,
        item_ids,
        split,
        dropped,
    )
