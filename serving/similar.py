"""Finds the items most similar to one item, exactly, in one pass over the catalogue in blocks.

N: items, b: items of a block, D: width of a vector, K: items that are returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from contracts.errors import InputError
from distributed.inference.channel_parts import COOCCURRENCE
from serving.history_ranking import HistoryRanking

VECTORS = "vectors"
_BLOCK = 65_536


def similar_items(ranking: HistoryRanking, item: int, k: int, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Return up to K items most similar to an item, int64 [K'], best first, and their similarity, float32 [K'].

    See `Predictor.similar_items` for `by`.

    Raises:
        InputError: `by` is not known, or the item lacks this modality.
    """
    inputs = ranking.scorer.inputs
    dataset = inputs.dataset
    if by == COOCCURRENCE and inputs.graph is not None:
        _, others, weights = inputs.graph.cooccurrence_rows(np.array([item]))
        return _best([(np.asarray(others, dtype=np.int64), np.asarray(weights, dtype=np.float32))], item, k)
    if by == VECTORS:
        held = ranking.blocks
        (block,) = [b for b in held.pass_over(held.rounds_of(np.array([item]))) if b.start <= item < b.stop]
        query = block.vectors[item - block.start].cpu().numpy()
        parts = ((b.start, b.vectors.cpu().numpy()) for b in held.pass_over())
        return _best(_cosines(query, parts), item, k)
    if by in dataset.modalities:
        features = dataset.features(by)
        query = np.asarray(features[item], dtype=np.float32)
        if not query.any():
            raise InputError(f"item: {item} (dense id) has no {by}; choose another `by`, such as {VECTORS!r}")
        parts = ((first, np.asarray(features[first : first + _BLOCK])) for first in range(0, len(features), _BLOCK))
        return _best(_cosines(query, parts), item, k)
    choices = [VECTORS, *dataset.modalities, *([COOCCURRENCE] if inputs.graph is not None else [])]
    raise InputError(f"by={by!r}: is not among {', '.join(map(repr, choices))}")


def _cosines(query: np.ndarray, parts: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield item ids and cosines of each part (first id, vectors [b, D]); items whose vector is zero are left out."""
    query = query.astype(np.float64) / max(float(np.linalg.norm(query.astype(np.float64))), 1e-300)
    for first, vectors in parts:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        has = np.flatnonzero(lengths > 0)
        cosines = vectors[has].astype(np.float64) @ query / lengths[has]
        yield first + has, cosines.astype(np.float32)


def _best(parts: Iterable[tuple[np.ndarray, np.ndarray]], item: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the K best of all parts but the item itself, by similarity descending, then id ascending."""
    ids, scores = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    for more, similarities in parts:
        other = more != item
        ids, scores = np.concatenate([ids, more[other]]), np.concatenate([scores, similarities[other]])
        kept = np.lexsort((ids, -scores.astype(np.float64)))[:k]
        ids, scores = ids[kept], scores[kept]
    return ids, scores
