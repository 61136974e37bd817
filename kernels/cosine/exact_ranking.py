"""From candidates to lists: exact ranking in float64, for certified rows, for the others, and for copies.

The keys and their order are those of `cosine_topk`: dot * |dot| / square of the other, descending, then id.

Copies. Many items with the very same row (a placeholder text, say) would overflow the candidate lists of
all items around them. At most H + 1 of them, those with the lowest ids, can be in anyone's list, so the
others are left out of the search, and their own lists follow from that of the first of them.

Legend: n rows, N items, d width, H neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kernels.cosine.exact_dots import insert_self, offer_all, pair_dots, row_hashes, rows_equal, select_best

# What `exact_dots.pair_dots` computes, wherever.
DotProducts = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# Rows read, or ranked by their candidates, at a time; and queries that share one reading of all rows.
_ROWS_AT_A_TIME = 1 << 12
_QUERIES_AT_A_TIME = 32


def leave_out_copies(features: np.ndarray, squares: np.ndarray, num_best: int) -> tuple[np.ndarray, np.ndarray]:
    """Items whose row at least `num_best` + 1 items with lower ids have too.

    Args:
        features: float32 [N, d], may be a memory map; squares: float64 [N] (0: missing, never a copy).

    Returns (copies, originals), int64 [c] each, ascending in copies: an item to leave out, and the lowest
    item with its row. Equal rows have equal squares, so only large groups of equal squares are read.
    Memory: 40 bytes per item.
    """
    by_square = np.argsort(squares, kind="stable")
    items = by_square[_in_large_groups(squares[by_square], num_best + 1) & (squares[by_square] > 0)]
    hashes = row_hashes(features, items)
    by_hash = np.argsort(hashes, kind="stable")  # stable: within a group by square, then by id
    items, hashes = items[by_hash], hashes[by_hash]
    new = np.concatenate([np.ones(min(len(items), 1), dtype=bool), hashes[1:] != hashes[:-1]])
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    place = np.arange(len(items)) - starts[group]
    copies, originals = items[place > num_best], items[starts[group]][place > num_best]
    # Different rows with one hash stay in the search: that costs time, not exactness.
    same = rows_equal(features, copies, originals)
    order = np.argsort(copies[same])
    return copies[same][order], originals[same][order]


def finish_lists(
    features: np.ndarray,
    squares: np.ndarray,
    queries: np.ndarray,
    offsets: np.ndarray,
    candidates: np.ndarray,
    overflowed: np.ndarray,
    searched: np.ndarray,
    num_neighbors: int,
    include_self: bool,
    threads: int = 1,
    dots: DotProducts = pair_dots,
) -> tuple[np.ndarray, np.ndarray]:
    """The stored lists of some items, from their candidates or, where these overflowed, from all items.

    Args:
        features: float32 [N, d], may be a memory map; squares: float64 [N]; queries: int64 [n] present items.
        offsets: int64 [n+1], candidates: int64 item ids; query i's are offsets[i]..offsets[i+1], in any order.
        overflowed: bool [n]. searched: bool [N], the items that may be in a list.

    Returns ids int64 and cosines float32, [n, num_neighbors] as `cosine_topk.cosine_neighbors` stores them.
    """
    others = num_neighbors - include_self
    ids, keys = rank_candidates(features, squares, queries, offsets, candidates, others, threads, dots)
    failed = np.flatnonzero(overflowed)
    ids[failed], keys[failed] = rank_all(features, squares, queries[failed], searched, others, threads)
    return stored_rows(ids, keys, squares, queries, include_self)


def finish_copies(
    features: np.ndarray,
    squares: np.ndarray,
    copies: np.ndarray,
    originals: np.ndarray,
    stored: np.ndarray,
    include_self: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The stored lists of items left out of the search: their original and what is on its list, ranked again.

    Args:
        copies, originals: int64 [c] from `leave_out_copies`. stored: int64 [N, H], finished for the originals;
            may be a memory map.
    """
    distinct, which = np.unique(originals, return_inverse=True)
    own = np.asarray(stored[distinct])
    candidates = np.concatenate([distinct[:, None], np.where(own == distinct[:, None], -1, own)], axis=1)
    counted = candidates >= 0
    offsets = np.concatenate([[0], np.cumsum(counted.sum(axis=1))])
    others = own.shape[1] - include_self
    ids, keys = rank_candidates(features, squares, distinct, offsets, candidates[counted], others)
    return stored_rows(ids[which], keys[which], squares, copies, include_self)


def rank_candidates(
    features: np.ndarray,
    squares: np.ndarray,
    queries: np.ndarray,
    offsets: np.ndarray,
    candidates: np.ndarray,
    num_best: int,
    threads: int = 1,
    dots: DotProducts = pair_dots,
) -> tuple[np.ndarray, np.ndarray]:
    """The best of each query's own candidates, by float64 keys.

    Args:
        features: float32 [N, d], may be a memory map; squares: float64 [N]; queries: int64 [n] items.
        offsets: int64 [n+1], candidates: int64 item ids; query i's are offsets[i]..offsets[i+1], in any order.

    Returns ids int64 [n, num_best] (-1: empty) and keys float64 [n, num_best] (-inf).
    """
    ids = np.full((len(queries), num_best), -1, dtype=np.int64)
    keys = np.full((len(queries), num_best), -np.inf)

    def work(part: slice) -> None:
        own = offsets[part.start : part.stop + 1]
        items = candidates[own[0] : own[-1]]
        left = np.repeat(queries[part], np.diff(own))
        products = dots(features, left, features, items)
        select_best(own - own[0], items, products * np.abs(products) / squares[items], ids[part], keys[part])

    if num_best:
        run_in_parts(work, len(queries), threads)
    return ids, keys


def rank_all(
    features: np.ndarray,
    squares: np.ndarray,
    queries: np.ndarray,
    searched: np.ndarray,
    num_best: int,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The best of all N items for each query, without itself, by float64 keys: for rows without a certificate.

    Args: as for `rank_candidates`; searched: bool [N], the items that may be in a list.
    Reads all features once per 32 distinct queries.
    """
    ids = np.full((len(queries), num_best + 1), -1, dtype=np.int64)
    keys = np.full((len(queries), num_best + 1), -np.inf)

    def work(part: slice) -> None:
        rows = np.ascontiguousarray(features[queries[part]])
        for first in range(0, len(features), _ROWS_AT_A_TIME):
            block = slice(first, first + _ROWS_AT_A_TIME)
            present = np.where(searched[block], squares[block], 0.0)
            offer_all(rows, features[block], present, first, ids[part], keys[part])

    run_in_parts(work, len(queries), threads, _QUERIES_AT_A_TIME)
    return _without_self(ids, keys, queries)


def stored_rows(
    ids: np.ndarray, keys: np.ndarray, squares: np.ndarray, queries: np.ndarray, include_self: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 and cosines float32 of lists of others, each with the query itself in its place if it belongs there."""
    if include_self:
        ids = np.concatenate([ids, np.full((len(ids), 1), -1, dtype=np.int64)], axis=1)
        keys = np.concatenate([keys, np.full((len(keys), 1), -np.inf)], axis=1)
        insert_self(ids, keys, squares[queries], queries)
    empty = ids < 0
    keys = np.where(empty, 0.0, keys)
    cosines = np.sign(keys) * np.sqrt(np.abs(keys) / squares[queries][:, None])
    return ids, cosines.astype(np.float32)


def run_in_parts(
    work: Callable[[slice], None], num_rows: int, threads: int, rows_at_a_time: int = _ROWS_AT_A_TIME
) -> None:
    """Calls `work` on consecutive ranges of rows, several at a time; they must not write to common places."""
    parts = [slice(first, min(first + rows_at_a_time, num_rows)) for first in range(0, num_rows, rows_at_a_time)]
    if threads == 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, part) for part in parts]:
            done.result()


def _in_large_groups(ordered: np.ndarray, size: int) -> np.ndarray:
    """Which entries of a sorted array have more than `size` equal ones (themselves included), bool."""
    if not len(ordered):
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(ordered)]]))
    return np.repeat(lengths > size, lengths)


def _without_self(ids: np.ndarray, keys: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists one shorter: without the query itself, or without the last where it is not on its list."""
    itself = ids == queries[:, None]
    itself[:, -1] |= ~itself.any(axis=1)
    kept = ~itself
    shape = (len(ids), ids.shape[1] - 1)
    return ids[kept].reshape(shape), keys[kept].reshape(shape)
