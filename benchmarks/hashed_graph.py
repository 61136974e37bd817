"""An item graph of any size whose rows are computed when they are read, so no benchmark has to build a graph.

Neighbours and co-occurrences are hashes of the item, uniform over the catalogue, and are not stored. Those of a real
graph overlap more, so a step's union is larger here than in a real graph with as many neighbours and co-occurrences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class HashedNeighbors:
    """Stands for the int64 [N, H] array of neighbours when rows are indexed; the first neighbour is the item itself."""

    num_items: int
    num_neighbors: int
    salt: int

    def __getitem__(self, items: np.ndarray) -> np.ndarray:
        rows = hashed_items(np.asarray(items), self.num_neighbors, self.num_items, self.salt)
        rows[:, 0] = items
        return rows


@dataclass(frozen=True)
class HashedGraph:
    """The attributes of `graph_builder.graph.Graph` that training uses.

    Attributes:
        num_items: N.
        modalities: names of the modalities.
        num_neighbors: H, including the item itself.
        num_cooccurrences: entries of every row of O.
        centers: k.
        fingerprint: a constant.
    """

    num_items: int
    modalities: tuple[str, ...]
    num_neighbors: int
    num_cooccurrences: int
    centers: int
    fingerprint: str = "hashed"

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows of O, see `contracts.graph_rows.GraphRows`. Every weight is 1 / sqrt(entries of the row)."""
        degree = self.num_cooccurrences
        columns = hashed_items(items, degree, self.num_items, salt=0).ravel()
        weights = np.full(len(columns), max(degree, 1) ** -0.5, dtype=np.float32)
        return np.arange(len(items) + 1) * degree, columns, weights

    def neighbors(self, modality: str) -> HashedNeighbors:
        return HashedNeighbors(self.num_items, self.num_neighbors, 1 + self.modalities.index(modality))

    def clusters(self, modality: str) -> np.ndarray:
        """Return the cluster of each item, int64 [N]."""
        everyone = np.arange(self.num_items)
        return hashed_items(everyone, 1, self.centers, salt=1001 + self.modalities.index(modality))[:, 0]

    def num_centers(self, modality: str) -> int:  # noqa: ARG002
        return self.centers


def hashed_items(items: np.ndarray, count: int, num_items: int, salt: int) -> np.ndarray:
    """Return `count` numbers below `num_items` for each item, int64 [n, count]: SplitMix64 of (item, column, salt)."""
    columns = np.arange(count, dtype=np.uint64) + np.uint64(salt * 1024)
    values = items.astype(np.uint64)[:, None] * np.uint64(2**20) + columns
    values = values * _SPREAD + _SPREAD
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((values ^ (values >> np.uint64(31))) % np.uint64(num_items)).astype(np.int64)
