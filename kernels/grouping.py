"""Compiled loops that put rows into groups and order them: the preparation of interactions uses them.

The functions use one thread, release the interpreter lock, and take time in proportion to their rows, apart from
`sort_within`, whose groups are short.
"""

from __future__ import annotations

import numba
import numpy as np

# Longer groups that are out of order are left to the caller: insertion takes time in the square of the length.
LONGEST_INSERTION = 48


@numba.njit(nogil=True, cache=True)
def grouped_order(groups, num_groups):  # type: ignore[no-untyped-def]
    """Return the rows group by group, each group in input order.

    Args:
        groups: integers [E], the group of each row, 0 .. num_groups - 1.
        num_groups: G.

    Returns:
        The rows, int64 [E], and the start of each group among them, int64 [G+1].
    """
    offsets = np.zeros(num_groups + 1, np.int64)
    for row in range(len(groups)):
        offsets[groups[row] + 1] += 1
    for group in range(num_groups):
        offsets[group + 1] += offsets[group]
    places = offsets[:-1].copy()
    order = np.empty(len(groups), np.int64)
    for row in range(len(groups)):
        group = groups[row]
        order[places[group]] = row
        places[group] += 1
    return order, offsets


@numba.njit(nogil=True, cache=True)
def sort_within(offsets, keys, order):  # type: ignore[no-untyped-def]
    """Sort each group by its keys, in place; equal keys keep their order. Long unsorted groups are left as they are.

    Args:
        offsets: int64 [G+1], the starts of the groups.
        keys: int64 [E], sorted in place.
        order: int64 [E], moved as the keys are.

    Returns:
        bool [G], the groups that are longer than `LONGEST_INSERTION` and out of order.
    """
    left = np.zeros(len(offsets) - 1, np.bool_)
    for group in range(len(offsets) - 1):
        start, stop = offsets[group], offsets[group + 1]
        is_long = stop - start > LONGEST_INSERTION
        for place in range(start + 1, stop):
            key = keys[place]
            if keys[place - 1] <= key:
                continue
            if is_long:
                left[group] = True
                break
            row, at = order[place], place
            while at > start and keys[at - 1] > key:
                keys[at], order[at] = keys[at - 1], order[at - 1]
                at -= 1
            keys[at], order[at] = key, row
    return left


@numba.njit(nogil=True, cache=True)
def count_of_live_users(offsets, items, is_live, minimum, num_exempt, counts):  # type: ignore[no-untyped-def]
    """Add up the rows of live items of those users who have enough of them.

    Args:
        offsets: int64 [U+1], the starts of the users' rows.
        items: int32 [E], the items of the rows.
        is_live: bool [M], by item.
        minimum: least number of rows of live items that a user needs.
        num_exempt: the first so many users need none.
        counts: int64 [M], to which the rows are added.
    """
    for user in range(len(offsets) - 1):
        start, stop = offsets[user], offsets[user + 1]
        live = 0
        for row in range(start, stop):
            live += is_live[items[row]]
        if live >= minimum or user < num_exempt:
            for row in range(start, stop):
                counts[items[row]] += is_live[items[row]]


@numba.njit(nogil=True, cache=True)
def text_buckets(offsets, characters, num_buckets):  # type: ignore[no-untyped-def]
    """Return a bucket for each text by the FNV-1a hash of its bytes.

    Args:
        offsets: int64 [R+1], the starts of the texts.
        characters: uint8, the bytes of all texts.
        num_buckets: B.

    Returns:
        int32 [R], 0 .. B - 1.
    """
    buckets = np.empty(len(offsets) - 1, np.int32)
    for row in range(len(offsets) - 1):
        value = np.uint64(14695981039346656037)
        for place in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(characters[place])) * np.uint64(1099511628211)
        # The low bits of FNV-1a depend on few bits of the last bytes.
        value ^= value >> np.uint64(32)
        buckets[row] = value % np.uint64(num_buckets)
    return buckets
