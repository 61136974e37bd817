"""An item graph as training and ranking read it if items are held out of training: without these cold items.

A cold item's ID row is not trained. So it must be in no other item's view and in no centre, and its own view is that of
its warm neighbours. Rows of co-occurrence stay as they are, because a graph counts training interactions, of which a
cold item has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from contracts.graph_rows import GraphRows


class WarmGraph:
    """A graph without its cold items (implements `contracts.graph_rows.GraphRows`).

    Args:
        graph: the graph of all items.
        cold: bool [N], the items that are held out of training.
    """

    def __init__(self, graph: GraphRows, cold: np.ndarray) -> None:
        assert len(cold) == graph.num_items, (len(cold), graph.num_items)
        self.num_items = graph.num_items
        self._graph, self._cold = graph, cold
        self._clusters: dict[str, np.ndarray] = {}

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the graph's rows."""
        return self._graph.cooccurrence_rows(items)

    def neighbors(self, modality: str) -> Any:
        """Return the top-H neighbours without cold ones, which is read like an array int64 [N, H]; see `WarmRows`."""
        return WarmRows(self._graph.neighbors(modality), self._cold)

    def clusters(self, modality: str) -> np.ndarray:
        """Return the cluster of each item, int64 [N]; -1 for items without the modality, and for cold ones."""
        if modality not in self._clusters:
            found = np.array(self._graph.clusters(modality), dtype=np.int64)
            found[self._cold] = -1
            self._clusters[modality] = found
        return self._clusters[modality]

    def num_centers(self, modality: str) -> int:
        """Return k, also of centres whose items are all cold; these have no members."""
        return self._graph.num_centers(modality)


class WarmRows:
    """Rows of neighbours in which cold ones are replaced by -1, read where they are asked for.

    If all neighbours of an item are cold, it has itself as its only one, as an item without the modality has.

    Args:
        neighbors: int64 [N, H], in memory or memory-mapped, padded with -1.
        cold: bool [N].

    Attributes:
        shape: N and H.
        dtype: int64.
    """

    dtype = np.dtype(np.int64)

    def __init__(self, neighbors: Any, cold: np.ndarray) -> None:
        self._neighbors, self._cold = neighbors, cold
        self.shape: tuple[int, ...] = neighbors.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> np.ndarray:
        """Return the rows of a slice, or of an array of numbers or booleans, [n, H]."""
        items = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        items = np.flatnonzero(items) if items.dtype == bool else items
        found = np.array(self._neighbors[items], dtype=np.int64)
        exists = (found >= 0) & (found < len(self._cold))  # ids outside stay, for the reader to refuse
        is_cold = exists & self._cold[np.where(exists, found, 0)]
        found[is_cold] = -1
        alone = is_cold.any(axis=1) & (found == -1).all(axis=1)
        found[alone, 0] = items[alone]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)
