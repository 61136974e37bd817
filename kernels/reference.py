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


def sampled_softmax(
    users: np.ndarray,
    targets: np.ndarray,
    columns: np.ndarray,
    log_weights: np.ndarray,
    own: np.ndarray,
    same: Sequence[Sequence[int]],
    seen: Sequence[Sequence[int]],
    seen_targets: np.ndarray,
    gain: float,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return the sum of the rows' losses -s_t + log(exp(s_t) + sum over c != own of exp(l_c)), and its gradients.

    s_t = <user, target> + gain * seen_target. l_c = <user, column c> + log w_c + gain * (c is seen), and w_c is 1 for
    columns of the same sequence.

    Args:
        users: [B, d].
        targets: [B, d], vectors of the rows' targets.
        columns: [C, d].
        log_weights: [C], -inf for a column that is in no sum.
        own: [B], the column of each row's target, or -1.
        same: for each row, its columns of the same sequence; a column may come twice.
        seen: for each row, the columns that it has seen.
        seen_targets: [B], 1 for rows that have seen their target, else 0.
        gain: the gain.

    Returns:
        The loss and its gradients by users [B, d], targets [B, d], columns [C, d] and the gain.
    """
    users, targets, columns = (x.astype(np.float64) for x in (users, targets, columns))
    loss, gain_grad = 0.0, 0.0
    user_grads, target_grads, column_grads = np.zeros_like(users), np.zeros_like(targets), np.zeros_like(columns)
    for b, user in enumerate(users):
        score = float(user @ targets[b]) + gain * float(seen_targets[b])
        logits = {}
        for c, column in enumerate(columns):
            weight = 0.0 if c in same[b] else float(log_weights[c])
            if c != own[b] and weight != -math.inf:
                logits[c] = float(user @ column) + weight + gain * (c in seen[b])
        largest = max([score, *logits.values()])
        log_sum = largest + math.log(sum(math.exp(x - largest) for x in [score, *logits.values()]))
        loss += log_sum - score
        by_score = math.expm1(score - log_sum)
        user_grads[b] += by_score * targets[b]
        target_grads[b] += by_score * user
        gain_grad += by_score * float(seen_targets[b])
        for c, logit in logits.items():
            probability = math.exp(logit - log_sum)
            user_grads[b] += probability * columns[c]
            column_grads[c] += probability * user
            gain_grad += probability * (c in seen[b])
    return loss, user_grads, target_grads, column_grads, gain_grad
