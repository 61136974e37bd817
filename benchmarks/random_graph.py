"""A graph of any size for benchmarks of training, which depend on how many neighbours there are, not on which."""

from __future__ import annotations

import numpy as np

from data.ragged import ragged_indices


class RandomGraph:
    """Random neighbours, clusters and co-occurrence rows, behind the attributes that a step's plan reads."""

    def __init__(
        self, num_items: int, modalities: tuple[str, ...], num_neighbors: int, num_centers: int, pairs_per_item: int
    ) -> None:
        rng = np.random.default_rng(0)
        self.num_items, self.modalities, self._pairs = num_items, modalities, pairs_per_item
        self._num_centers = num_centers
        self._neighbors = {m: rng.integers(0, num_items, (num_items, num_neighbors)) for m in modalities}
        self._clusters = {m: rng.integers(0, num_centers, num_items) for m in modalities}
        self._others = rng.integers(0, num_items, num_items + pairs_per_item)

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lengths = np.full(len(items), self._pairs)
        others = self._others[ragged_indices(items, lengths)]
        weights = np.full(len(others), self._pairs**-0.5, np.float32)
        return np.arange(len(items) + 1, dtype=np.int64) * self._pairs, others, weights

    def neighbors(self, modality: str) -> np.ndarray:
        return self._neighbors[modality]

    def clusters(self, modality: str) -> np.ndarray:
        return self._clusters[modality]

    def num_centers(self, modality: str) -> int:
        assert modality in self.modalities
        return self._num_centers
