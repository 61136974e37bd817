"""Lists for users without a known item: the items that occur most often in training.

f: such users, K: items of a list, N: items of the catalogue.
"""

from __future__ import annotations

import numpy as np

from data.ragged import offsets_of, ragged_indices


def popular_lists(
    counts: np.ndarray, k: int, hidden: tuple[np.ndarray, np.ndarray], num_users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the items with the most training interactions for each of f users; ties go to the smaller id.

    Args:
        counts: int64 [N], training interactions of each item.
        k: K.
        hidden: item ids and users (0 .. f - 1) of pairs that no list may hold, int64 [m] each.
        num_users: f.

    Returns:
        Items int64 [f, K], -1 where there are no more; and counts float32 [f, K], -inf there.
    """
    items, users = hidden
    most_hidden = int(np.bincount(users, minlength=1).max()) if len(users) else 0
    order = np.lexsort((np.arange(len(counts)), -counts))[: k + most_hidden]
    place = np.full(len(counts), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    free = np.ones((num_users, len(order)), dtype=bool)
    seen = place[items] >= 0
    free[users[seen], place[items[seen]]] = False
    columns = np.argsort(~free, axis=1, kind="stable")[:, :k]
    found = np.where(np.take_along_axis(free, columns, axis=1), order[columns], -1)
    return found, np.where(found >= 0, counts[found], -np.inf).astype(np.float32)


def best_of_each(
    rows: np.ndarray, items: np.ndarray, scores: np.ndarray, k: int, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the K best of each row's items, by score descending, then id ascending.

    Args:
        rows: int64 [p], the row of each pair.
        items: int64 [p]; an item may occur twice in a row.
        scores: float32 [p]; a pair with -inf is in no list.
        k: K.
        num_rows: number of rows.

    Returns:
        Items int64 [num_rows, K], -1 where there are no more; and scores float32, -inf there.
    """
    kept = scores > -np.inf
    rows, items, scores = rows[kept], items[kept], scores[kept]
    order = np.lexsort((items, -scores.astype(np.float64), rows))
    rows, items, scores = rows[order], items[order], scores[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]) | (items[1:] != items[:-1])  # equal items of a row have equal scores
    rows, items, scores = rows[first], items[first], scores[first]
    sizes = np.bincount(rows, minlength=num_rows)
    taken = np.minimum(sizes, k)
    source = ragged_indices(offsets_of(sizes)[:-1], taken)
    target = np.repeat(np.arange(num_rows), taken), ragged_indices(np.zeros(num_rows, np.int64), taken)
    found, values = np.full((num_rows, k), -1, dtype=np.int64), np.full((num_rows, k), -np.inf, dtype=np.float32)
    found[target], values[target] = items[source], scores[source]
    return found, values
