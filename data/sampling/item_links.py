"""Sparse matrices of an item plan while their columns are still item ids (links), and the order of the union.

Shapes: R items with a role, U items of the union.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.cooccurrence.pair_counts import strongest

# The purpose of the matrix and its modality; "" for co-occurrence, which has none.
LinksKind = Literal["centers", "sampled centers", "cooccurrence", "views"]
LinksName = tuple[LinksKind, str]


@dataclass(frozen=True)
class Links:
    """A CSR matrix whose columns are item ids: indptr int64 [rows+1], ids int64 [nnz], values float32 [nnz]."""

    indptr: np.ndarray
    ids: np.ndarray
    values: np.ndarray


def strongest_links(links: Links, cap: int) -> Links:
    """Keep the `cap` largest values of each row, unchanged and in their order; of equal values those of smaller ids.

    A graph that is built with max_neighbors=cap follows the same rule, also after normalisation.
    """
    lengths = np.diff(links.indptr)
    if lengths.max(initial=0) <= cap:
        return links
    lengths, kept = strongest(lengths, links.values, cap)
    return Links(row_starts(lengths), links.ids[kept], links.values[kept])


def order_union(
    roles: np.ndarray, linked: Mapping[LinksName, np.ndarray], is_catalogue: bool
) -> tuple[np.ndarray, Mapping[LinksName, np.ndarray]]:
    """Return the union in its order, int64 [U], and for each array of `linked` ids their positions in the union, int32.

    From 2^31 items on, positions are int64.

    All ids are sorted once. On 5 million ids this took 0.8 s, compared with 2.5 s for a plain np.unique (a hash set in
    NumPy 2.4), and 2 to 4 s for a search of the ids in the union afterwards.

    Args:
        roles: int64 [R], ids of the items with a role, ascending.
        linked: arrays of item ids by name.
        is_catalogue: whether all items have a role, so that ids are positions.
    """
    if is_catalogue:
        dtype = _position_dtype(len(roles))
        return roles, {name: found.astype(dtype, copy=False) for name, found in linked.items()}
    ids, inverse = np.unique(np.concatenate([roles, *linked.values()]), return_inverse=True)
    is_role = np.zeros(len(ids), dtype=bool)
    is_role[inverse[: len(roles)]] = True
    order = np.concatenate([np.flatnonzero(is_role), np.flatnonzero(~is_role)])
    place = np.empty(len(order), dtype=_position_dtype(len(order)))
    place[order] = np.arange(len(order))
    ends = np.cumsum([len(roles), *map(len, linked.values())])
    _, *parts = np.split(place[inverse], ends[:-1])
    return ids[order], dict(zip(linked, parts, strict=True))


def _position_dtype(num_items: int) -> type[np.signedinteger]:
    """Return the dtype of positions below `num_items`. Most entries of a plan are positions, so int32 halves it."""
    return np.int32 if num_items <= 2**31 else np.int64


def row_starts(counts: np.ndarray) -> np.ndarray:
    """Return the start of each row, int64 [rows+1], for rows with these numbers of entries."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
