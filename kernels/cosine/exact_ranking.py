"""Rank candidates exactly in float64 and make the final neighbour lists.

The ranking is that of `cosine_topk`: by descending key dot * |dot| / (square of the other item), then by id.

Copies. If many items have the same row, such as the embedding of a placeholder text, they overflow the candidate
lists of all items near them. Of such items, only the H + 1 with the lowest ids can be in any list. The others, called
copies, are left out of the search. Their lists are computed from the list of the first item with the same row, their
original.

Legend: n rows, N items, d width, H neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kernels.cosine.exact_dots import insert_self, offer_all, pair_dots, row_hashes, rows_equal, select_best

# A function with the arguments and the result of `exact_dots.pair_dots`, on a CPU or a GPU.
DotProducts = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# Rows that are read at a time, or whose candidates are ranked at a time.
_ROWS_AT_A_TIME = 1 << 12
# Queries that share one pass over all rows.
_QUERIES_AT_A_TIME = 32


def leave_out_copies(features: np.ndarray, squares: np.ndarray, num_best: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the copies: items whose row is also the row of at least `num_best` + 1 items with lower ids.

    Equal rows have equal squares, so only rows of large groups of equal squares are read. Memory: 40 bytes per item.

    Args:
        features: float32 [N, d], may be a memory map.
        squares: float64 [N]; 0: the item is missing, and never a copy.
        num_best: the number of other items in a list.

    Returns copies and originals, int64 [c] each, by ascending copy. An original is the lowest item with the same row.
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
    # An item whose row differs from that of the group's first item stays in the search. A hash collision can thus
    # cost time, but no exactness.
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
    """Compute the final lists of some items, from their candidates or, if their list overflowed, from all items.

    Args:
        features: float32 [N, d], may be a memory map.
        squares: float64 [N].
        queries: int64 [n], present items.
        offsets: int64 [n+1]; query i has the candidates offsets[i]..offsets[i+1].
        candidates: int64 item ids, in any order within a list.
        overflowed: bool [n].
        searched: bool [N], the items that may be in a list.
        num_neighbors: H.
        include_self: see `cosine_topk.cosine_neighbors`.
        threads: Python threads.
        dots: computes the dot products of candidates.

    Returns ids int64 [n, H] and cosines float32 [n, H], in the form of `cosine_topk.cosine_neighbors`.
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
    """Compute the final lists of copies: the original and the entries of its list, ranked again.

    Args:
        features: float32 [N, d], may be a memory map.
        squares: float64 [N].
        copies: int64 [c], from `leave_out_copies`.
        originals: int64 [c], from `leave_out_copies`.
        stored: int64 [N, H], final lists, needed only of the originals; may be a memory map.
        include_self: see `cosine_topk.cosine_neighbors`.

    Returns ids int64 [c, H] and cosines float32 [c, H].
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
    """Rank each query's own candidates by float64 keys and keep the best.

    The arguments are those of `finish_lists`; `num_best` is the number of items to keep.

    Returns ids int64 [n, num_best] (-1 where empty) and keys float64 [n, num_best] (-inf where empty).
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
    """Rank all N items except the query itself by float64 keys and keep the best. Used for rows that overflowed.

    All features are read once per 32 queries.

    The arguments are those of `finish_lists`; `num_best` is the number of items to keep.

    Returns the same as `rank_candidates`.
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
    """Convert lists of other items to their final form: insert the query itself if `include_self`, keys to cosines.

    Returns ids int64 [n, H] and cosines float32 [n, H].
    """
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
    """Call `work` on consecutive ranges of rows, in `threads` threads. The calls must not write to the same places."""
    parts = [slice(first, min(first + rows_at_a_time, num_rows)) for first in range(0, num_rows, rows_at_a_time)]
    if threads == 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, part) for part in parts]:
            done.result()


def _in_large_groups(ordered: np.ndarray, size: int) -> np.ndarray:
    """Return which entries of a sorted array have a value that occurs more than `size` times, bool."""
    if not len(ordered):
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(ordered)]]))
    return np.repeat(lengths > size, lengths)


def _without_self(ids: np.ndarray, keys: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shorten each list by one entry: the query itself or, if the query is not on the list, the last entry."""
    itself = ids == queries[:, None]
    itself[:, -1] |= ~itself.any(axis=1)
    kept = ~itself
    shape = (len(ids), ids.shape[1] - 1)
    return ids[kept].reshape(shape), keys[kept].reshape(shape)
