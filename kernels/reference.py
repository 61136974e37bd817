"""The slow twins: every kernel as plain, slow float64 code, which tests compare the kernels with.

The code uses no blocks and no optimisations, and loops where loops are clearest. Only tests and benchmarks import it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def cooccurrence(
    sequences: Sequence[Sequence[int]], num_items: int, window: int | None = None, distance_weighting: bool = True
) -> np.ndarray:
    """Return O, dense float64 [N, N]: every pair of positions adds 1 / distance to both entries (MDSRec Eq. 1-2).

    Pairs are counted per gap, and the gaps are summed in ascending order, as in the kernel.
    """
    longest = max((len(sequence) for sequence in sequences), default=0)
    counts = np.zeros((longest + 1, num_items, num_items))
    for sequence in sequences:
        for left, item in enumerate(sequence):
            for right in range(left + 1, len(sequence)):
                gap = right - left
                if sequence[right] != item and (window is None or gap <= window):
                    counts[gap, item, sequence[right]] += 1
                    counts[gap, sequence[right], item] += 1
    total = np.zeros((num_items, num_items))
    for gap in range(1, longest + 1):
        total += counts[gap] / gap if distance_weighting else counts[gap]
    return total


def normalized_cooccurrence(raw: np.ndarray, normalization: str, max_neighbors: int | None) -> np.ndarray:
    """Divide each row of `raw` [N, N] by its norm and keep its `max_neighbors` largest entries (ties: lower id)."""
    result = np.zeros_like(raw)
    for row, weights in enumerate(raw):
        norm = {"row_l2": math.sqrt(sum(w * w for w in weights)), "row_l1": sum(weights), "none": 1.0}[normalization]
        order = sorted(np.flatnonzero(weights), key=lambda column: (-weights[column], column))
        for column in order[:max_neighbors]:
            result[row, column] = weights[column] / norm
    return result


def injected(cooccurrences: np.ndarray, features: np.ndarray, mu: float) -> np.ndarray:
    """Return mu * O E + E, float64 [N, d] (MDSRec Eq. 3), for a dense O [N, N]."""
    return mu * row_sums(cooccurrences, features) + features.astype(np.float64)


def row_sums(matrix: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Return matrix @ dense in float64, added up one entry at a time."""
    result = np.zeros((len(matrix), dense.shape[1]))
    for row in range(len(matrix)):
        for column in np.flatnonzero(matrix[row]):
            result[row] += matrix[row, column] * dense[column].astype(np.float64)
    return result


def cosine_topk(
    features: np.ndarray, num_neighbors: int, include_self: bool = True, present: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the neighbours that `cosine_topk.py` defines: ids int64 [N, H] and cosines float64 [N, H]."""
    wide = features.astype(np.float64)
    squares = [float(sum(value * value for value in row)) for row in wide]
    alive = [square > 0 and (present is None or bool(present[i])) for i, square in enumerate(squares)]
    ids = np.full((len(wide), num_neighbors), -1, dtype=np.int64)
    cosines = np.zeros((len(wide), num_neighbors))
    for i in range(len(wide)):
        if not alive[i]:
            ids[i, 0] = i
            continue
        keys = {}
        for j in range(len(wide)):
            if alive[j]:
                dot = float(sum(a * b for a, b in zip(wide[i], wide[j], strict=True)))
                keys[j] = dot * abs(dot) / squares[j]
        others = sorted((j for j in keys if j != i), key=lambda j: (-keys[j], j))
        kept = [i, *others[: num_neighbors - 1]] if include_self else others[:num_neighbors]
        for place, j in enumerate(sorted(kept, key=lambda j: (-keys[j], j))):
            ids[i, place] = j
            cosines[i, place] = math.copysign(math.sqrt(abs(keys[j]) / squares[i]), keys[j])
    return ids, cosines


def kmeans_step(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each point's nearest centre (ties: lowest), and the centres moved to their points' means.

    A centre without points stays where it is.
    """
    nearest = np.zeros(len(points), dtype=np.int64)
    for i, point in enumerate(points.astype(np.float64)):
        distances = [float(sum((a - b) ** 2 for a, b in zip(point, center, strict=True))) for center in centers]
        nearest[i] = min(range(len(centers)), key=lambda c: (distances[c], c))
    moved = centers.astype(np.float64)
    for c in range(len(centers)):
        if (nearest == c).any():
            moved[c] = points[nearest == c].astype(np.float64).sum(axis=0) / (nearest == c).sum()
    return nearest, moved
