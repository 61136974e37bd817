"""What a model and a loader read of an item graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class GraphRows(Protocol):
    """Read access to an item graph, as plain arrays (implemented by `graph_builder.store.Graph`)."""

    num_items: int

    def cooccurrence_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normalised co-occurrence rows: indptr int64 [n+1], items int64 [nnz], weights float32 [nnz]."""
        ...

    def neighbors(self, modality: str) -> np.ndarray:
        """Top-H neighbours, int64 [N, H], padded with -1; a row without the modality holds only itself."""
        ...

    def clusters(self, modality: str) -> np.ndarray:
        """Cluster of each item, int64 [N]; -1 where the modality is missing."""
        ...

    def num_centers(self, modality: str) -> int:
        """Number of interest centres k of a modality."""
        ...
