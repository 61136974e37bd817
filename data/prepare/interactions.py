"""The steps that turn raw interactions into sequences: duplicates, k-core, dense ids, order of time.

E interactions, U users, N items. Every step is a sort, a bincount or a mask over flat int64 arrays.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data.ragged import offsets_of, ragged_indices


def interaction_codes(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, pa.Array, pa.Array]:
    """Number users and items in order of first appearance.

    Args:
        rows: columns user, item and, if there are any, timestamp, without nulls.

    Returns:
        Users, items and timestamps (without timestamps: zeros), int64 [E] each; the source ids of users and of items
        by their number.
    """
    users, user_ids = _codes(rows.column("user"))
    items, item_ids = _codes(rows.column("item"))
    has_times = "timestamp" in rows.column_names
    times = rows.column("timestamp").to_numpy() if has_times else np.zeros(len(users), np.int64)
    return users, items, times, user_ids, item_ids


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
