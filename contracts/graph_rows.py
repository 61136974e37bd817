"""The interface through which models and loaders read an item graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from contracts.rows import Rows


class GraphRows(Protocol):
    """Read access to an item graph, as arrays (implemented by `Graph` and `JoinedGraph` of `graph_builder`)."""

    num_items: int

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return normalised co-occurrence rows: indptr int64 [n+1], items int64 [nnz], weights float32 [nnz]."""
        ...

    def neighbors(self, modality: str) -> Rows:
        """Return the top-H neighbours, int64 [N, H], padded with -1; an item without the modality has only itself."""
        ...

    def clusters(self, modality: str) -> Rows:
        """Return the cluster of each item, int64 [N]; -1 for items without the modality."""
        ...

    def num_centers(self, modality: str) -> int:
        """Return the number of interest centres k of a modality."""
        ...
